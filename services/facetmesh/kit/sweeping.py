"""Deletes what has expired, again and again."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from facetmesh.kit.errors import FacetmeshError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

EVERY_S = 600.0
"""How often it is looked for what has expired, in seconds."""
_log = logging.getLogger(__name__)


async def keep_sweeping(*sweeps: Callable[[], Awaitable[int]]) -> None:
    """Has what has expired deleted, again and again, until it is cancelled."""
    while True:
        for sweep in sweeps:
            try:
                await sweep()
            except FacetmeshError as error:
                _log.warning("what has expired could not be deleted", extra={"reason": error.reason})
        await asyncio.sleep(EVERY_S)
