"""What was logged, read again: a page of events, or all of them one after the other.

Only an event's tenant and time can be looked up; the rest is encrypted, and is
filtered as it is opened. A page ends after `SCANNED` events, full or not, and says
where to go on: no question can keep the service busy for long.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from facetmesh.audit.filters import END_US
from facetmesh.audit.receipts import Opened, opened
from facetmesh.kit.errors import InvalidArgument, NotFound
from facetmesh.verify.event import parse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from facetmesh.audit.filters import Filter
    from facetmesh.audit.records import Head, Sealer, Stored
    from facetmesh.event.v1.event_pb2 import AuditEvent

DEFAULT_PAGE_SIZE = 50
SCANNED = 5000
"""How many events are opened for one page at most."""
_AT_ONCE = 200
_POSITION = struct.Struct(">QQ")
_CHECK_BYTES = 8


class EventStore(Protocol):
    """Where events are found."""

    async def listed(
        self, tenant: str | None, *, since_us: int, before: tuple[int, int], limit: int
    ) -> list[Stored]:
        """The newest events between a time and a time with an index, the newest first."""
        ...

    async def after(self, tenant: str | None, *, start: int, limit: int) -> list[Stored]:
        """Events in the order of the log, from an index on; of one tenant, or of all when None."""
        ...


class Growing(Protocol):
    """What tells that something was logged."""

    @property
    def head(self) -> Head:
        """The log's size, as far as is known here."""
        ...

    async def grown(self, size: int) -> None:
        """Returns once the log has more than this many entries."""
        ...


@dataclass(frozen=True, slots=True)
class Past:
    """An event that was logged."""

    index: int
    """The entry's place in the log, from 0."""
    opened: Opened
    event: AuditEvent


@dataclass(frozen=True, slots=True)
class Page:
    """Some events, the newest first."""

    events: Sequence[Past]
    next_token: str
    """Asks for the next page; empty on the last."""


class History:
    """Reads what was logged. Events whose body has expired, or whose tenant's key was destroyed, are left out.

    Args:
        store: Where events are found.
        sealer: Decrypts them.
    """

    def __init__(self, store: EventStore, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer

    async def page(self, tenant: str | None, *, wanted: Filter, size: int, token: str) -> Page:
        """A page of events, which may have fewer than were asked for although more follow.

        Args:
            tenant: The tenant's id; None for the events of all.
            wanted: Which of them.
            size: At most this many; DEFAULT_PAGE_SIZE when 0.
            token: What the page before gave, or "".

        Raises:
            InvalidArgument: The token was not given for this list.
        """
        size = size or DEFAULT_PAGE_SIZE
        before = _position(token, tenant, wanted) if token else (wanted.until_us, 0)
        found: list[Past] = []
        for _ in range(SCANNED // _AT_ONCE):
            some = await self._store.listed(tenant, since_us=wanted.since_us, before=before, limit=_AT_ONCE)
            for stored in some:
                past = await self._wanted(stored, wanted)
                if past is not None:
                    if len(found) == size:
                        return Page(found, _token(before, tenant, wanted))
                    found.append(past)
                before = (stored.time_us, stored.index)
            if len(some) < _AT_ONCE:
                return Page(found, "")
            await asyncio.sleep(0)  # opening them is work, and others wait
        return Page(found, _token(before, tenant, wanted))

    async def all(self, tenant: str | None, *, wanted: Filter) -> AsyncIterator[Past]:
        """All events of a filter, the newest first."""
        token = ""
        while True:
            page = await self.page(tenant, wanted=wanted, size=_AT_ONCE, token=token)
            for past in page.events:
                yield past
            token = page.next_token
            if not token:
                return

    async def follow(self, log: Growing, tenant: str | None, *, wanted: Filter, start: int) -> AsyncIterator[Past]:
        """Events in the order of the log from an index on, and those to come, for ever.

        Args:
            log: Tells when something was logged.
            tenant: The tenant's id; None for the events of all.
            wanted: Which of them.
            start: The first entry's index.
        """
        while True:
            size = log.head.size
            some = await self._store.after(tenant, start=start, limit=_AT_ONCE)
            for stored in some:
                past = await self._wanted(stored, wanted)
                if past is not None:
                    yield past
                start = stored.index + 1
            if len(some) < _AT_ONCE:
                start = max(start, size)
                await log.grown(start)

    async def _wanted(self, stored: Stored, wanted: Filter) -> Past | None:
        try:
            body = await opened(stored, self._sealer)
        except NotFound:
            return None
        past = Past(stored.index, body, parse(body.signed_event)[1])
        return past if wanted.matches(past.event) else None


def _token(position: tuple[int, int], tenant: str | None, wanted: Filter) -> str:
    raw = _POSITION.pack(*position)
    return base64.urlsafe_b64encode(raw + _check(raw, tenant, wanted)).decode()


def _position(token: str, tenant: str | None, wanted: Filter) -> tuple[int, int]:
    """The time and index in a token.

    The check notices a token that was damaged or belongs to another list. Who
    computes it himself only chooses where in his own list to go on.
    """
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    packed = raw[: _POSITION.size]
    if len(packed) < _POSITION.size or raw != packed + _check(packed, tenant, wanted):
        raise _not_ours()
    time_us, index = _POSITION.unpack(packed)
    if max(time_us, index) > END_US:
        raise _not_ours()
    return time_us, index


def _not_ours() -> InvalidArgument:
    return InvalidArgument("The page token was not given for this list.", reason="PAGE_TOKEN_INVALID")


def _check(position: bytes, tenant: str | None, wanted: Filter) -> bytes:
    text = b"%s\n%s\n%s" % (position, (tenant or "-").encode(), wanted.text.encode())
    return hashlib.sha256(text).digest()[:_CHECK_BYTES]
