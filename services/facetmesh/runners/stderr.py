"""What a child writes to its standard error, relayed to the parent's log."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

_CHUNK = 64 << 10
_MAX_LINE = 2000
_LINES = 100
_WINDOW_S = 10.0


async def relay(reader: asyncio.StreamReader, fields: Mapping[str, object]) -> None:
    """Logs each line until the child's standard error closes.

    A line is cut at 2,000 characters, and of the lines of ten seconds the first
    hundred are logged: a tenant's model must not fill the disk.

    Args:
        reader: The child's standard error.
        fields: What each log record says of the child.
    """
    rest = b""
    window, lines = time.monotonic(), 0
    while chunk := await reader.read(_CHUNK):
        *complete, rest = (rest + chunk).split(b"\n")
        if len(rest) > _MAX_LINE:
            complete.append(rest)
            rest = b""
        if time.monotonic() - window > _WINDOW_S:
            window, lines = time.monotonic(), 0
        for line in complete:
            lines += 1
            if lines <= _LINES:
                logger.warning("runner: %s", line[:_MAX_LINE].decode(errors="replace"), extra=fields)
            elif lines == _LINES + 1:
                logger.warning("runner: it writes too much; the rest of %d s is left out", _WINDOW_S, extra=fields)
    if rest:
        logger.warning("runner: %s", rest[:_MAX_LINE].decode(errors="replace"), extra=fields)
