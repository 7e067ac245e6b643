"""Revocations: kept until no token is left for them, and told to every replica that watches."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.errors import ResourceExhausted, Unavailable
from facetmesh.kit.revocations import KEEP_S, News, Revocation
from facetmesh.kit.updates import update

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

_POLL_S = 0.25
"""How often what other replicas of auth revoked is looked for: a token must be refused within a second."""
_BEAT_S = 10.0


@dataclass(frozen=True, slots=True)
class Book:
    """All revocations that still matter."""

    sequence: int = 0
    """Of the newest that there ever was."""
    revocations: tuple[Revocation, ...] = ()
    etag: str = ""

    def with_one(self, name: str, until_s: float, now: float) -> Book:
        """The book with one more, which takes the place of an older one of the same name."""
        kept = tuple(r for r in self.revocations if r.name != name and r.until_s + KEEP_S > now)
        return Book(self.sequence + 1, (*kept, Revocation(name, until_s, self.sequence + 1)), self.etag)


class RevocationStore(Protocol):
    """Where the book is kept."""

    async def revocations(self) -> Book:
        """The book."""
        ...

    async def save_revocations(self, book: Book) -> None:
        """Stores the book in place of the one that was read.

        Raises:
            Aborted: It was changed since.
        """
        ...


class RevocationLog:
    """Takes revocations in and tells of them.

    Args:
        store: Where they are kept.
        announce: Tells other services; nothing depends on its success.
        clock: Seconds since the epoch.
        stopping: Set when the process was asked to end.
    """

    def __init__(
        self,
        store: RevocationStore,
        announce: Callable[[Revocation], Awaitable[None]],
        clock: Callable[[], float],
        stopping: asyncio.Event,
    ) -> None:
        self._store = store
        self._announce = announce
        self._clock = clock
        self._stopping = stopping
        self._book = Book()
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._changed = asyncio.Event()

    async def add(self, name: str, until_s: float | None = None, *, most: tuple[str, int] | None = None) -> None:
        """Revokes the tokens of a tenant or a key, or one token, issued until then. Repeating it does no harm.

        Args:
            name: Whose tokens, or which.
            until_s: In seconds since the epoch; now when None.
            most: A prefix of names, and how many with it may be revoked at a time.

        Raises:
            ResourceExhausted: TOO_MANY_REVOKED: there are as many of them.
            Aborted: Too many revoke at once.
            Unavailable: The store does not answer.
        """

        def revoked(book: Book) -> Book:
            now = self._clock()
            book = book.with_one(name, now if until_s is None else until_s, now)
            if most is not None and sum(one.name.startswith(most[0]) for one in book.revocations) > most[1]:
                raise ResourceExhausted(
                    "Too many tokens were revoked one by one: revoke their key.", reason="TOO_MANY_REVOKED",
                    retry_after_s=KEEP_S,
                )
            return book

        book = await update(self._store.revocations, revoked, self._store.save_revocations)
        self._read_at = float("-inf")
        self._wake()
        await self._announce(book.revocations[-1])

    async def revocations(self, after: int) -> AsyncIterator[News]:
        """Those after a sequence number, then each as it happens, until the process ends."""
        told_at = float("-inf")
        while not self._stopping.is_set():
            changed = self._changed
            book = await self._current()
            since = after if after <= book.sequence else 0  # beyond the newest: the store was set back
            news = tuple(one for one in book.revocations if one.sequence > since)
            now = asyncio.get_running_loop().time()
            if news or now - told_at >= _BEAT_S:
                told_at = now
                yield News(news, book.sequence)
            after = book.sequence
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), _POLL_S)

    async def _current(self) -> Book:
        """The book, read once for all who watch; an old one where the store does not answer."""
        async with self._reading:
            now = asyncio.get_running_loop().time()
            if now - self._read_at >= _POLL_S:
                with contextlib.suppress(Unavailable):
                    known, self._book = self._book.sequence, await self._store.revocations()
                    self._read_at = now
                    if self._book.sequence != known:
                        self._wake()
            return self._book

    def _wake(self) -> None:
        """Lets all who watch look now."""
        self._changed.set()
        self._changed = asyncio.Event()
