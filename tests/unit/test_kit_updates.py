"""Changes of what others change at the same time."""

from __future__ import annotations

import asyncio

import pytest

from facetmesh.kit.errors import Aborted, FailedPrecondition
from facetmesh.kit.updates import update


class Cell:
    """One value and its version, as a state store keeps it."""

    def __init__(self) -> None:
        self.value, self.version, self.writes = 0, 0, 0

    async def read(self) -> tuple[int, int]:
        """The value and its version."""
        await asyncio.sleep(0)
        return self.value, self.version

    async def write(self, read: tuple[int, int]) -> None:
        """Stores a value over that version."""
        await asyncio.sleep(0)
        if read[1] != self.version:
            raise Aborted("It was changed.")
        self.value, self.version, self.writes = read[0], self.version + 1, self.writes + 1


def one_more(read: tuple[int, int]) -> tuple[int, int]:
    """The value after it, over the same version."""
    return read[0] + 1, read[1]


async def test_of_many_changes_at_once_none_is_lost() -> None:
    cell = Cell()
    await asyncio.gather(*(update(cell.read, one_more, cell.write) for _ in range(8)))
    assert (cell.value, cell.writes) == (8, 8)


async def test_what_makes_no_difference_is_not_written() -> None:
    cell = Cell()
    assert await update(cell.read, lambda read: read, cell.write) == (0, 0)
    assert cell.writes == 0


async def test_who_is_always_slower_is_told() -> None:
    cell = Cell()

    async def read() -> tuple[int, int]:
        found = await cell.read()
        await cell.write(found)  # by another
        return found

    with pytest.raises(Aborted) as told:
        await update(read, one_more, cell.write)
    assert told.value.retry_after_s == 0.1
    assert cell.value == 0


async def test_what_the_change_raises_is_raised_at_once() -> None:
    cell, times = Cell(), []

    def refuse(read: tuple[int, int]) -> tuple[int, int]:
        times.append(read)
        raise FailedPrecondition("No.")

    with pytest.raises(FailedPrecondition):
        await update(cell.read, refuse, cell.write)
    assert len(times) == 1
