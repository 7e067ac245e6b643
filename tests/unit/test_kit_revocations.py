"""What a replica knows of revocations, and how it hears of them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from facetmesh.event.v1 import event_pb2
from facetmesh.kit import revocations as module
from facetmesh.kit.dapr import Disposition, Event
from facetmesh.kit.errors import Unavailable
from facetmesh.kit.revocations import KEEP_S, News, Revocation, Revocations, follow
from facetmesh.kit.tokens import REVOCATIONS_TOPIC, revocation, revocation_handler, revocation_message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import pytest

NOW = 1_800_000_000.0


def test_what_was_issued_until_then_is_covered_and_nothing_else() -> None:
    known = Revocations()
    known.add([Revocation("tenants/acme", NOW), Revocation("tenants/globex/keys/k1", NOW)], NOW)
    assert known.cover(NOW, "tenants/acme/keys/k1", "tenants/acme")
    assert known.cover(NOW - 60, "services/fusion", "tenants/acme")
    assert not known.cover(NOW + 1, "tenants/acme/keys/k1", "tenants/acme")
    assert known.cover(NOW, "tenants/globex/keys/k1", "tenants/globex")
    assert not known.cover(NOW, "tenants/globex/keys/k2", "tenants/globex")
    assert not known.cover(NOW, "platform/admin", None)


def test_an_older_one_that_comes_late_changes_nothing() -> None:
    known = Revocations()
    known.add([Revocation("tenants/acme", NOW)], NOW)
    known.add([Revocation("tenants/acme", NOW - 60)], NOW)
    assert known.cover(NOW, "tenants/acme")


def test_those_that_no_token_is_left_for_are_forgotten() -> None:
    known = Revocations()
    known.add([Revocation("tenants/acme", NOW)], NOW)
    known.add([], NOW + KEEP_S)
    assert not known._until_s


class Source:
    """Says one thing each time it is asked, and breaks in between."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def revocations(self, after: int) -> AsyncIterator[News]:
        """One more."""
        self.asked.append(after)
        if len(self.asked) == 2:
            raise Unavailable("away")
        yield News([Revocation(f"tenants/t{after}", NOW)], after + 5)


async def test_after_a_break_it_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0)
    source, heard, enough = Source(), list[str](), asyncio.Event()

    def hear(news: Sequence[Revocation]) -> None:
        heard.extend(one.name for one in news)
        if len(heard) == 3:
            enough.set()

    following = asyncio.create_task(follow(source, hear))
    async with asyncio.timeout(60):
        await enough.wait()
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following
    assert heard == ["tenants/t0", "tenants/t5", "tenants/t10"]
    assert source.asked[:4] == [0, 5, 5, 10]


async def test_what_comes_by_topic_is_heard_and_what_is_no_revocation_is_dropped() -> None:
    heard: list[Revocation] = []
    sent = Revocation("tenants/acme", NOW + 0.25, 7)
    data = [revocation_message(sent).SerializeToString(), b"\xff"]
    events = [Event(str(n), "", "", body, "", REVOCATIONS_TOPIC) for n, body in enumerate(data)]
    assert await revocation_handler(heard.extend)(events) == [Disposition.OK, Disposition.DROP]
    assert heard == [sent]
    assert revocation(event_pb2.Revocation.FromString(data[0])) == sent
