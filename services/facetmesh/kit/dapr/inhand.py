"""Events that kill their handler are recognised, whatever the sidecar knows of it.

daprd on Redis delivers an event again and again that ends the process each time. So what
is in hand is written down before it is handled; after a death, that is what may have
caused it. Such an event is handled alone from then on, so that those that were only near
it go free, and is given up when the process has died over it too often.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
from typing import TYPE_CHECKING, TypeVar

from facetmesh.kit import files

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

MOST_DEATHS = 3
"""An event over which the process has died so often is not tried again."""
_LARGEST_FILE_BYTES = 8 << 20
_DIGITS = frozenset("0123456789")
_Outcome = TypeVar("_Outcome")
_log = logging.getLogger(__name__)


class InHand:
    """What this process handles now, in a file that outlives it.

    A crash of the machine may take it back: the count is then one too low. A disk that
    cannot be written keeps nobody from working.

    Args:
        file: Where it is kept; for one process only.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._deaths = _deaths(file)
        self._held: set[str] = set()
        self._turn = asyncio.Lock()
        self._nothing_held = asyncio.Event()
        self._nothing_held.set()
        self._handle = -1
        self._written = 0
        self._begin_anew()

    def close(self) -> None:
        """Ends the file's use; what is not in hand any more has left no trace."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    async def handle(
        self, event_ids: Sequence[str], handle: Callable[[Sequence[int]], Awaitable[Sequence[_Outcome]]],
        given_up: _Outcome,
    ) -> list[_Outcome]:
        """What becomes of each event.

        Args:
            event_ids: Theirs.
            handle: Handles those at some positions, and says what becomes of each.
            given_up: What becomes of one over which the process has died too often.
        """
        outcomes = [given_up] * len(event_ids)
        deaths = [self._deaths.get(_mark(event_id), 0) for event_id in event_ids]
        innocent = [position for position, died in enumerate(deaths) if not died]
        suspects = [[position] for position, died in enumerate(deaths) if 0 < died < MOST_DEATHS]
        for group in ([innocent] if innocent else []) + suspects:
            async with self._held_together([event_ids[position] for position in group]):
                for position, outcome in zip(group, await handle(group), strict=True):
                    outcomes[position] = outcome
        # Whoever lives to see it handled, or gives it up, clears it.
        for event_id, died in zip(event_ids, deaths, strict=True):
            if died:
                self._deaths.pop(_mark(event_id), None)
                self._write(f"0{_mark(event_id)}\n")
        return outcomes

    @contextlib.asynccontextmanager
    async def _held_together(self, event_ids: Sequence[str]) -> AsyncIterator[None]:
        """While they are handled: with others, unless one is a suspect."""
        marks = [_mark(event_id) for event_id in event_ids]
        async with self._turn:
            if self._deaths.keys() & set(marks):
                await self._nothing_held.wait()
                with self._noted(marks):
                    yield
                return
        with self._noted(marks):
            yield

    @contextlib.contextmanager
    def _noted(self, marks: Sequence[str]) -> Iterator[None]:
        self._held.update(marks)
        self._nothing_held.clear()
        self._write("".join(f"+{mark}\n" for mark in marks))
        try:
            yield
        finally:
            self._held.difference_update(marks)
            if not self._held:
                self._nothing_held.set()
            self._write("".join(f"-{mark}\n" for mark in marks))
            if self._written > _LARGEST_FILE_BYTES:
                self._begin_anew()

    def _write(self, lines: str) -> None:
        if self._handle >= 0:
            with contextlib.suppress(OSError):
                self._written += os.write(self._handle, lines.encode())

    def _begin_anew(self) -> None:
        """Keeps of the file what still counts."""
        kept = [f"{deaths}{mark}" for mark, deaths in self._deaths.items()]
        kept += [f"+{mark}" for mark in self._held]
        self.close()
        try:
            files.write(self._file, "".join(f"{line}\n" for line in kept), mode=files.PRIVATE)
            self._handle = os.open(self._file, os.O_WRONLY | os.O_APPEND)
        except OSError as problem:
            _log.warning("what is in hand cannot be written down", extra={"detail": str(problem)})
        self._written = 0


def _mark(event_id: str) -> str:
    """What stands for an event in the file, whatever its publisher called it."""
    return hashlib.sha256(event_id.encode(errors="surrogatepass")).hexdigest()[:32]


def _deaths(file: Path) -> dict[str, int]:
    """How often a process died over which events, as the last one left it."""
    deaths: dict[str, int] = {}
    held: set[str] = set()
    with contextlib.suppress(OSError):
        for line in file.read_text(errors="replace").splitlines():
            kind, mark = line[:1], line[1:]
            if kind == "+":
                held.add(mark)
            elif kind == "-":
                held.discard(mark)
            elif kind in _DIGITS:
                deaths[mark] = int(kind)
    for mark in held:
        deaths[mark] = min(deaths.get(mark, 0) + 1, MOST_DEATHS)
    return {mark: times for mark, times in deaths.items() if times}
