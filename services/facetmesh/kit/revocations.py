"""Which tokens no longer count, as each replica knows it from auth.

A revocation covers what was issued until then, so that none has to be taken
back: who is let in again gets newer tokens.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.errors import FacetmeshError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from facetmesh.kit.orders import TenantOrder

KEEP_S = 3600 + 120
"""After this no token is left that a revocation could cover: none works for longer than an hour."""
_AGAIN_S = 0.25
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Revocation:
    """Tokens that are refused from now on."""

    name: str
    """Whose, or which: tenants/{tenant}, tenants/{tenant}/keys/{key} or tenants/{tenant}/tokens/{token}."""
    until_s: float
    """Those issued at this time or before, in seconds since the epoch."""
    sequence: int = 0
    """Its place in the order of revocations."""


@dataclass(frozen=True, slots=True)
class News:
    """What a source says."""

    revocations: Sequence[Revocation]
    """Since the news before; none where nothing happened."""
    sequence: int
    """From where to go on."""
    orders: Sequence[TenantOrder] = ()
    """What this service has not yet confirmed; all of it each time."""


class RevocationSource(Protocol):
    """Who tells of revocations."""

    def revocations(self, after: int) -> AsyncIterator[News]:
        """First those after a sequence number, then each as it happens. Raises a FacetmeshError where it breaks."""
        ...


class Revocations:
    """All revocations that still matter."""

    def __init__(self) -> None:
        self._until_s: dict[str, float] = {}

    def add(self, revocations: Sequence[Revocation], now: float) -> None:
        """Takes some in, and forgets those that no token is left for."""
        for one in revocations:
            self._until_s[one.name] = max(one.until_s, self._until_s.get(one.name, 0.0))
        self._until_s = {name: until_s for name, until_s in self._until_s.items() if until_s + KEEP_S > now}

    def cover(self, issued_s: float, *names: str | None) -> bool:
        """Whether a token of one of these names, issued then, is revoked."""
        return any(name is not None and issued_s <= self._until_s.get(name, float("-inf")) for name in names)


async def follow(
    source: RevocationSource,
    hear: Callable[[Sequence[Revocation]], None],
    obey: Callable[[Sequence[TenantOrder]], None] = lambda _: None,
) -> None:
    """Tells hear of all revocations, and obey of orders, for ever.

    While the source is away, tokens go on until they expire.
    """
    after, reachable = 0, True
    while True:
        try:
            async for news in source.revocations(after):
                if not reachable:
                    _log.info("revocations are heard again")
                reachable = True
                if news.revocations:
                    hear(news.revocations)
                obey(news.orders)
                after = news.sequence
        except FacetmeshError as error:
            if reachable:
                _log.warning("revocations are not heard", extra={"reason": error.reason})
            reachable = False
        await asyncio.sleep(_AGAIN_S)
