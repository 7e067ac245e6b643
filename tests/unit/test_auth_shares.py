"""Sharing a limit out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facetmesh.auth.shares import max_min, share

NAMES = st.sampled_from("abcde")
WANTED = st.dictionaries(NAMES, st.floats(0, 1000), min_size=1)


@given(st.floats(0, 1000), WANTED)
def test_parts_are_never_more_than_the_limit(limit: float, wanted: dict[str, float]) -> None:
    assert sum(max_min(limit, wanted).values()) <= limit * (1 + 1e-9)


@given(st.floats(1, 1000), WANTED)
def test_nobody_gets_less_than_he_wants_while_another_gets_more(limit: float, wanted: dict[str, float]) -> None:
    parts = max_min(limit, wanted)
    short = [name for name in wanted if parts[name] < wanted[name] - 1e-6]
    for name in short:
        least = 0.02 * limit
        assert all(parts[name] >= min(parts[other], max(wanted[other], least)) - 1e-6 for other in wanted)
    if short:
        assert sum(parts.values()) == pytest.approx(limit)


def test_examples() -> None:
    assert max_min(100, {"a": 200, "b": 10}) == pytest.approx({"a": 90, "b": 10})
    assert max_min(100, {"a": 200, "b": 200}) == pytest.approx({"a": 50, "b": 50})
    assert max_min(100, {"a": 20}) == pytest.approx({"a": 60})  # half of what is left is kept for others
    assert max_min(100, {"a": 0, "b": 0}) == pytest.approx({"a": 26, "b": 26})


@given(st.floats(1, 1000), WANTED, st.data())
def test_with_what_others_hold_it_is_the_limit_and_the_least_part(
    limit: float, wanted: dict[str, float], data: st.DataObject
) -> None:
    held: dict[str, float] = {}
    for _ in range(10):
        name = data.draw(st.sampled_from(sorted(wanted)))
        held[name] = share(limit, wanted, held, name)
        assert sum(held.values()) <= limit * (1 + 0.02 * len(wanted)) + 1e-6


@given(st.integers(1, 100), st.dictionaries(NAMES, st.integers(0, 50), min_size=1))
def test_whole_parts_are_whole_and_used_up(limit: int, wanted: dict[str, int]) -> None:
    held: dict[str, float] = {}
    for _ in range(2):
        for name in wanted:
            held[name] = share(limit, wanted, held, name, whole=True)
    assert all(part == int(part) for part in held.values())
    assert sum(held.values()) <= limit * (1 + 0.02 * len(wanted))
    if all(one >= limit for one in wanted.values()):
        assert sum(held.values()) >= limit - 1e-9 or len(wanted) > limit


def test_what_others_hold_must_come_back_first() -> None:
    wanted = {"a": 100.0, "b": 100.0}
    assert share(100, wanted, {"a": 100.0}, "b") == pytest.approx(2)  # the least
    assert share(100, wanted, {"a": 50.0}, "b") == pytest.approx(50)
