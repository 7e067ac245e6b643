"""A caller's stream of messages: each is checked before it is seen, and silence ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from facetmesh.kit.errors import FacetmeshError, InvalidArgument, Unauthenticated
from facetmesh.kit.incoming import Incoming

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def messages(*them: Any, then_wait: bool = False) -> AsyncIterator[Any]:
    """Messages as they come, and perhaps nothing more for ever."""
    for one in them:
        yield one
    if then_wait:
        await asyncio.Event().wait()


class Check:
    """Lets through what is not "bad", until the token is revoked."""

    def __init__(self) -> None:
        """Has seen nothing."""
        self.seen: list[tuple[Any, bool]] = []
        self.revoked = False

    async def __call__(self, message: Any, first: bool) -> Any:  # noqa: FBT001 - as Incoming calls it
        """Checks one."""
        self.seen.append((message, first))
        if self.revoked:
            raise Unauthenticated("It was revoked.", reason="TOKEN_REVOKED")
        if message == "bad":
            raise InvalidArgument("It is bad.")
        return message


def rest() -> None:
    """Nothing is to be given back."""


async def reason(incoming: Incoming, *, opened: bool = True) -> str:
    """What the next message is refused with."""
    with pytest.raises(FacetmeshError) as caught:
        await (anext(incoming) if opened else incoming.open())
    return caught.value.reason


async def test_all_are_checked_and_come_in_their_order() -> None:
    check = Check()
    incoming = Incoming(messages("a", "b", "c"), check, rest)
    await incoming.open()
    assert check.seen == [("a", True)]  # before anything is done
    assert [one async for one in incoming] == ["a", "b", "c"]
    assert check.seen == [("a", True), ("b", False), ("c", False)]


async def test_a_first_message_that_is_refused_opens_nothing() -> None:
    assert await reason(Incoming(messages("bad", "b"), Check(), rest), opened=False) == "INVALID_ARGUMENT"
    assert await reason(Incoming(messages(), Check(), rest), opened=False) == "REQUEST_MISSING"


async def test_a_later_one_that_is_refused_ends_it() -> None:
    incoming = Incoming(messages("a", "bad", "c"), Check(), rest)
    await incoming.open()
    assert await anext(incoming) == "a"
    assert await reason(incoming) == "INVALID_ARGUMENT"


async def test_a_token_that_is_revoked_meanwhile_ends_it() -> None:
    check = Check()
    incoming = Incoming(messages("a", "b"), check, rest)
    await incoming.open()
    assert await anext(incoming) == "a"
    check.revoked = True
    assert await reason(incoming) == "TOKEN_REVOKED"


async def test_it_rests_before_the_next_comes() -> None:
    rested: list[int] = []
    check = Check()
    incoming = Incoming(messages("a", "b"), check, lambda: rested.append(len(check.seen)))
    await incoming.open()
    assert [one async for one in incoming] == ["a", "b"]
    assert rested == [1, 2]


async def test_silence_ends_it() -> None:
    incoming = Incoming(messages("a", then_wait=True), Check(), rest, idle_s=0.05)
    await incoming.open()
    assert await anext(incoming) == "a"
    assert await reason(incoming) == "STREAM_IDLE"


async def test_no_more_is_read_than_is_asked_for() -> None:
    read: list[int] = []

    async def endless() -> AsyncIterator[Any]:
        for number in range(1_000_000):
            read.append(number)
            yield number

    incoming = Incoming(endless(), Check(), rest)
    await incoming.open()
    assert await anext(incoming) == 0
    assert await anext(incoming) == 1
    assert read == [0, 1]
