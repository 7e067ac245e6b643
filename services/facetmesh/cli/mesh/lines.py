"""A line of any process's log, to be read by people: ours, daprd's and Envoy's are JSON, those of Redis are its own."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from facetmesh.kit.logs import masked

_NOT_SHOWN = frozenset({
    "time", "level", "service", "logger", "message", "msg", "exception", "trace_id", "taskName",
    "app_id", "instance", "scope", "type", "ver",  # daprd's
})  # fmt: skip
_REDIS = re.compile(r"\d+:[A-Z] \d+ \w+ \d+ [\d:.]+ (?P<level>[.*#-]) (?P<text>.*)")
_REDIS_LEVELS = {".": "debug", "-": "info", "*": "info", "#": "warning"}


@dataclass(frozen=True, slots=True)
class Line:
    """What it says."""

    level: str
    """debug, info, warning, error, critical or fatal."""
    text: str
    extras: str = ""


def parse(line: str) -> Line:
    """Reads a line, and masks what must not be seen."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        entry = None
    if not isinstance(entry, dict):
        return _plain(line)
    shown: dict[str, Any] = masked({key: value for key, value in entry.items() if key not in _NOT_SHOWN})
    text = masked(str(entry.get("message", entry.get("msg", ""))))
    extras = " ".join(f"{key}={value}" for key, value in shown.items())
    return Line(str(entry.get("level", "info")).lower(), str(text), extras)


def _plain(line: str) -> Line:
    if match := _REDIS.fullmatch(line):
        return Line(_REDIS_LEVELS[match["level"]], str(masked(match["text"])))
    return Line("info", str(masked(line)))
