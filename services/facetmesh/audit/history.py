"""A tenant's events page by page, the newest first."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from facetmesh.audit.receipts import Opened, opened
from facetmesh.kit.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facetmesh.audit.log import Sealer, Stored

DEFAULT_PAGE_SIZE = 50
_INDEX_BYTES = 8
_CHECK_BYTES = 8


class EventStore(Protocol):
    """Where events are found."""

    async def newest(self, tenant: str | None, *, before: int | None, limit: int) -> list[Stored]:
        """The newest events before an index, the newest first; of one tenant, or of all when None."""
        ...


@dataclass(frozen=True, slots=True)
class Past:
    """An event that was logged."""

    index: int
    """The entry's place in the log, from 0."""
    opened: Opened


@dataclass(frozen=True, slots=True)
class Page:
    """Some events, the newest first."""

    events: Sequence[Past]
    next_token: str
    """Asks for the next page; empty on the last."""


class History:
    """Lists what was logged.

    Args:
        store: Where events are found.
        sealer: Decrypts them.
    """

    def __init__(self, store: EventStore, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer

    async def page(self, tenant: str | None, *, size: int, token: str) -> Page:
        """A page of events. Those whose tenant's key was destroyed are left out.

        Args:
            tenant: The tenant's id; None for the events of all.
            size: At most this many; DEFAULT_PAGE_SIZE when 0.
            token: What the page before gave, or "".

        Raises:
            InvalidArgument: The token was not given for this list.
        """
        size = size or DEFAULT_PAGE_SIZE
        before = _index(token, tenant) if token else None
        found = await self._store.newest(tenant, before=before, limit=size + 1)
        events = [past for stored in found[:size] if (past := await self._past(stored)) is not None]
        return Page(events, _token(found[size - 1].index, tenant) if len(found) > size else "")

    async def _past(self, stored: Stored) -> Past | None:
        try:
            return Past(stored.index, await opened(stored, self._sealer))
        except NotFound:
            return None


def _token(index: int, tenant: str | None) -> str:
    position = index.to_bytes(_INDEX_BYTES, "big")
    return base64.urlsafe_b64encode(position + _check(position, tenant)).decode()


def _index(token: str, tenant: str | None) -> int:
    """The index in a token.

    The check notices a token that was damaged or belongs to another list. Who
    computes it himself only chooses where in his own list to go on.
    """
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    position = raw[:_INDEX_BYTES]
    index = int.from_bytes(position, "big")
    if raw != position + _check(position, tenant) or index >> 63:
        raise InvalidArgument("The page token was not given for this list.", reason="PAGE_TOKEN_INVALID")
    return index


def _check(position: bytes, tenant: str | None) -> bytes:
    return hashlib.sha256(b"%s\n%s" % (position, (tenant or "-").encode())).digest()[:_CHECK_BYTES]
