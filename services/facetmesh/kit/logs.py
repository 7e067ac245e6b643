"""JSON logs on stderr, a line an event, with secrets and personal data masked."""

from __future__ import annotations

import logging
import re
import sys
import time
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from pythonjsonlogger.json import JsonFormatter

if TYPE_CHECKING:
    from collections.abc import Mapping

MASK = "***"
_LONGEST_VALUE = 2000
_SECRET_NAMES = re.compile(r"(?i)(authorization|token|secret|password|api[-_]?key|cookie|credential|image|signature)")
_SECRET_VALUES = re.compile(
    r"fm_[a-z0-9-]+_[A-Za-z0-9]+_[A-Za-z0-9]+"  # our API keys
    r"|eyJ[\w-]+\.[\w-]+\.[\w-]*"  # JSON Web Tokens
    r"|-----BEGIN [A-Z ]+-----[\s\S]*?-----END [A-Z ]+-----"  # PEM
    r"|[\w.+-]+@[\w-]+\.[\w.-]+"  # mail addresses
)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def masked(value: Any) -> Any:
    """The value with everything masked that must not be in a log. Long texts are cut."""
    if isinstance(value, str):
        return _SECRET_VALUES.sub(MASK, value if len(value) <= _LONGEST_VALUE else value[:_LONGEST_VALUE] + "…")
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, dict):
        return {k: MASK if _SECRET_NAMES.search(str(k)) else masked(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [masked(v) for v in value]
    return value


class _Formatter(JsonFormatter):
    def __init__(self, service: str) -> None:
        super().__init__(json_ensure_ascii=False)
        self._service = service

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        extra = {k: v for k, v in vars(record).items() if k not in _STANDARD and not k.startswith("_")}
        log_data.update(
            time=self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            level=record.levelname.lower(),
            service=self._service,
            logger=record.name,
            message=masked(record.getMessage()),
            **masked(extra | message_dict),
        )
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            log_data["trace_id"] = format(context.trace_id, "032x")
        if record.exc_info:
            log_data["exception"] = masked(self.formatException(record.exc_info))


def configure(service: str, level: int = logging.INFO) -> None:
    """Sends all logs of this process to stderr as JSON lines of UTC time, level, service, message and extras."""
    formatter = _Formatter(service)
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("grpc", "asyncio", "opentelemetry", "DaprClient"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def describe(error: BaseException) -> Mapping[str, str]:
    """An error's type and text, as extras of a log line."""
    return {"error": type(error).__name__, "detail": str(error)}
