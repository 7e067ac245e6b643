"""Places for calls in progress: nobody takes them all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facetmesh.kit.errors import ResourceExhausted
from facetmesh.kit.places import Place, Places


def taken(places: Places, caller: str, most: int = 1000) -> list[Place]:
    """As many places as the caller gets."""
    found: list[Place] = []
    with pytest.raises(ResourceExhausted) as refusal:  # noqa: PT012 - until it is refused
        for _ in range(most):
            found.append(places.enter(caller))  # noqa: PERF401 - what there was before counts
    assert (refusal.value.reason, refusal.value.retry_after_s) == ("TOO_MANY_CALLS", 1.0)
    return found


def test_who_is_alone_has_half_and_leaves_the_rest() -> None:
    places = Places(100, 1)
    assert len(taken(places, "a")) == 50
    assert len(taken(places, "b")) == 25
    assert len(taken(places, "c")) == 13


def test_what_is_given_back_is_there_for_others() -> None:
    places = Places(100, 1)
    for place in taken(places, "a"):
        place.leave()
    assert len(taken(places, "b")) == 50


def test_requests_share_the_bytes() -> None:
    places = Places(100, 1000)
    first, second, other = places.enter("a"), places.enter("a"), places.enter("b")
    first.hold(300)
    with pytest.raises(ResourceExhausted) as refusal:
        second.hold(450)
    assert refusal.value.reason == "TOO_MANY_BYTES"
    second.leave()  # with nothing
    other.hold(350)
    first.leave()
    other.leave()
    places.enter("a").hold(500)


def test_a_streams_messages_count_one_at_a_time() -> None:
    places = Places(100, 1000)
    stream = places.enter("a")
    for _ in range(10):
        stream.hold(400)
    with pytest.raises(ResourceExhausted):
        stream.hold(1001)
    places.enter("a").hold(500)


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.booleans())))
def test_there_is_always_one_for_a_newcomer(steps: list[tuple[str, bool]]) -> None:
    places = Places(32, 1)
    held: dict[str, list[Place]] = {name: [] for name in "abcde"}
    for caller, enters in steps:
        if enters:
            try:
                held[caller].append(places.enter(caller))
            except ResourceExhausted:
                assert held[caller], "who has nothing was refused"
        elif held[caller]:
            held[caller].pop().leave()
    for place in [place for one in held.values() for place in one]:
        place.leave()
    assert len(taken(places, "a")) == 16
