"""Goes through the log behind whoever appends to it, and raises the alerts that the rules ask for.

How far it has come is kept in the store and moved on after the alerts were
published: each is raised at least once, whatever dies meanwhile. Of several
replicas one does it; another goes on when its lease has run out.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Protocol

from facetmesh.audit.receipts import opened
from facetmesh.audit.rules import Rules
from facetmesh.kit.errors import FacetmeshError, NotFound, Unavailable
from facetmesh.verify.event import parse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from facetmesh.audit.log import Log
    from facetmesh.audit.records import Sealer, Stored
    from facetmesh.audit.rules import Rule, Sighting
    from facetmesh.kit.alerts import Alert

CURSOR = "alerts"
LEASE_S = 3.0
"""How long a replica that says nothing more keeps the others waiting."""
LOOK_S = LEASE_S / 4
"""How often a lease is renewed at least, and how often the others look whether it has run out."""
LOOKED_BACK = 5000
"""How many entries before its beginning a replica reads again, to know what was counted."""
_AT_ONCE = 1000
_PAUSE_S = 0.2
_log = logging.getLogger(__name__)


class WatchStore(Protocol):
    """Where the log and the cursor are. Every method raises Unavailable when the store does not work."""

    async def after(self, tenant: str | None, *, start: int, limit: int) -> list[Stored]:
        """Events in the order of the log, from an index on."""
        ...

    async def take_cursor(self, name: str, holder: str, *, now_us: int, until_us: int) -> int | None:
        """Takes or keeps a cursor until a time; returns its position, or None while another holder has it."""
        ...

    async def move_cursor(self, name: str, holder: str, position: int) -> bool:
        """Moves a cursor on; returns whether it was the holder's still."""
        ...

    async def sightings(self) -> Iterable[Sighting]:
        """All that the rules have seen."""
        ...

    async def saw(self, seen: Sequence[Sighting], forgotten: Sequence[tuple[str, str]]) -> None:
        """Keeps what the rules have seen, and nothing of what they have forgotten: rules' names and subjects."""
        ...


class Watcher:
    """Raises alerts.

    Args:
        log: Tells when something was logged.
        store: Where the log is.
        sealer: Decrypts the events.
        rules: What to look for.
        publish: Raises an alert; an Unavailable means that it must be tried again.
        clock: Seconds since the epoch.
        holder: This replica's name.
    """

    def __init__(
        self,
        log: Log,
        store: WatchStore,
        sealer: Sealer,
        rules: Sequence[Rule],
        publish: Callable[[Alert], Awaitable[None]],
        *,
        clock: Callable[[], float],
        holder: str,
    ) -> None:
        self._log = log
        self._store = store
        self._sealer = sealer
        self._rules = rules
        self._publish = publish
        self._clock = clock
        self._holder = holder

    async def run(self) -> None:
        """Watches, for ever."""
        working = True
        while True:
            try:
                await self.watch()
                working = True
            except FacetmeshError as error:
                if working:
                    _log.warning("the log is not watched now", extra={"reason": error.reason})
                working = False
            await asyncio.sleep(LOOK_S)

    async def watch(self) -> None:
        """Watches for as long as this replica is the one that does; returns at once where another is.

        Raises:
            Unavailable: The store does not work.
        """
        position = await self._take()
        if position is None:
            return
        rules = Rules(self._rules, await self._store.sightings(), self._now_us())
        for stored in await self._store.after(None, start=max(0, position - LOOKED_BACK), limit=LOOKED_BACK):
            if stored.index < position:
                await self._feed(rules, stored)  # what it raises was raised
        rules.sightings.clear()
        while await self._take() is not None:
            some = await self._store.after(None, start=position, limit=_AT_ONCE)
            raised = [alert for stored in some for alert in await self._feed(rules, stored)]
            for alert in (*raised, *rules.tick(self._now_us())):
                await self._raise(alert)
            if rules.sightings or rules.forgotten:
                await self._store.saw(rules.sightings, rules.forgotten)
                rules.sightings.clear()
                rules.forgotten.clear()
            if some:
                position = some[-1].index + 1
                if not await self._store.move_cursor(CURSOR, self._holder, position):
                    return
            if len(some) < _AT_ONCE:
                await asyncio.sleep(_PAUSE_S)  # others gather meanwhile, and need one commit together
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._log.grown(max(position, self._log.head.size)), LOOK_S)

    async def _feed(self, rules: Rules, stored: Stored) -> list[Alert]:
        try:
            body = await opened(stored, self._sealer)
        except NotFound:
            return []
        return rules.feed(parse(body.signed_event)[1])

    async def _raise(self, alert: Alert) -> None:
        while True:
            try:
                await self._publish(alert)
            except Unavailable:
                await asyncio.sleep(_PAUSE_S)
                await self._take()
            else:
                return

    async def _take(self) -> int | None:
        now_us = self._now_us()
        return await self._store.take_cursor(
            CURSOR, self._holder, now_us=now_us, until_us=now_us + int(LEASE_S * 1e6)
        )

    def _now_us(self) -> int:
        return int(self._clock() * 1e6)
