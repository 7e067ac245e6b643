"""An event that kills its handler is tried alone, and not for ever; what was only near it goes free."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from facetmesh.kit.dapr.inhand import MOST_DEATHS, InHand, _mark

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Process:
    """A process that handles events, dies over some, and is started again."""

    def __init__(self, file: Path, deadly: set[str]) -> None:
        self.file = file
        self.deadly = deadly
        self.lives = 1
        self.together: list[list[str]] = []

    async def deliver(self, *event_ids: str) -> dict[str, str]:
        """What becomes of them, once the process lives to say it."""
        while True:
            # A file that nobody has closed is what a killed process leaves.
            in_hand = InHand(self.file)
            content = b""

            async def handle(chosen: Sequence[int]) -> list[str]:
                nonlocal content
                names = [event_ids[position] for position in chosen]
                self.together.append(names)
                if self.deadly & set(names):
                    content = self.file.read_bytes()
                    raise KeyboardInterrupt
                return ["ok"] * len(names)

            try:
                return dict(zip(event_ids, await in_hand.handle(event_ids, handle, "given up"), strict=True))
            except KeyboardInterrupt:
                self.file.write_bytes(content)
                self.lives += 1
            finally:
                in_hand.close()


async def test_what_kills_is_given_up_and_what_came_with_it_is_handled(tmp_path: Path) -> None:
    process = Process(tmp_path / "file", {"poison"})
    assert await process.deliver("a", "poison", "b") == {"a": "ok", "poison": "given up", "b": "ok"}
    assert process.lives == MOST_DEATHS + 1
    assert process.together[0] == ["a", "poison", "b"]
    assert all(len(names) == 1 for names in process.together[1:])
    assert await process.deliver("a", "b") == {"a": "ok", "b": "ok"}
    assert process.together[-1] == ["a", "b"], "they are suspects no more"


async def test_what_has_another_life_is_given_tries_again(tmp_path: Path) -> None:
    process = Process(tmp_path / "file", {"poison"})
    assert await process.deliver("poison") == {"poison": "given up"}
    process.deadly.clear()
    assert await process.deliver("poison") == {"poison": "ok"}


async def test_a_suspect_is_handled_while_nothing_else_is(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(f"+{_mark('suspect')}\n")
    in_hand = InHand(file)
    running: set[str] = set()
    seen: list[set[str]] = []
    go = asyncio.Event()

    async def deliver(name: str) -> list[str]:
        async def handle(chosen: Sequence[int]) -> list[str]:
            running.add(name)
            seen.append(set(running))
            await go.wait()
            running.discard(name)
            return ["ok"] * len(chosen)

        return await in_hand.handle([name], handle, "given up")

    tasks = []
    for name in ("first", "second", "suspect", "late"):
        tasks.append(asyncio.create_task(deliver(name)))
        await asyncio.sleep(0)
    go.set()
    assert await asyncio.gather(*tasks) == [["ok"]] * 4
    assert {"first", "second"} in seen
    assert [names for names in seen if "suspect" in names] == [{"suspect"}]
    in_hand.close()


async def test_a_disk_that_cannot_be_written_keeps_nobody_from_working(tmp_path: Path) -> None:
    in_hand = InHand(tmp_path / "no such folder" / "file")

    async def handle(chosen: Sequence[int]) -> list[str]:
        return ["ok"] * len(chosen)

    assert await in_hand.handle(["a", "b"], handle, "given up") == ["ok", "ok"]
    in_hand.close()


@pytest.mark.parametrize("content", ["", "+", "garbage\n\n-x\n", "9zz\n", "\x00\ufffd\n"])
async def test_a_file_of_nonsense_is_no_obstacle(tmp_path: Path, content: str) -> None:
    file = tmp_path / "file"
    file.write_text(content)
    assert await Process(file, set()).deliver("a") == {"a": "ok"}


async def test_the_file_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facetmesh.kit.dapr.inhand._LARGEST_FILE_BYTES", 1000)
    process = Process(tmp_path / "file", set())
    in_hand = InHand(process.file)

    async def handle(chosen: Sequence[int]) -> list[str]:
        return ["ok"] * len(chosen)

    for number in range(200):
        await in_hand.handle([str(number)], handle, "given up")
        assert process.file.stat().st_size < 1100
    in_hand.close()
