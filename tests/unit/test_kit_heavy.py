"""Misra and Gries's counts: never too high, and too low by a bounded number."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from facetmesh.kit.heavy import HeavyHitters


@given(st.lists(st.integers(0, 40).map(str), max_size=400), st.integers(1, 12))
def test_no_count_is_too_high_or_much_too_low(keys: list[str], capacity: int) -> None:
    counted, true = HeavyHitters(capacity), Counter[str]()
    for total, key in enumerate(keys, start=1):
        true[key] += 1
        count = counted.add(key)
        assert count <= true[key]
        assert count >= true[key] - total / (capacity + 1)
        assert len(counted) <= capacity


def test_what_comes_often_is_seen_among_any_number_of_others() -> None:
    counted = HeavyHitters(100)
    highest = 0
    for number in range(50_000):
        counted.add(f"forged {number}")
        if number % 20 == 0:
            highest = max(highest, counted.add("10.0.0.1"))
    assert highest >= 2000
    assert len(counted) <= 100


def test_all_is_forgotten() -> None:
    counted = HeavyHitters(2)
    counted.add("a")
    counted.clear()
    assert counted.add("a") == 1
