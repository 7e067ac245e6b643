"""How calls are split between versions."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facetmesh.detection import splits
from facetmesh.detection.splits import Traffic
from facetmesh.kit.errors import InvalidArgument

KEYS = [f"caller-{number}" for number in range(4000)]


def test_a_key_always_gets_the_same_version() -> None:
    traffic = Traffic((("stable", 50), ("canary", 50)))
    for key in KEYS[:50]:
        assert len({splits.choose(traffic, key) for _ in range(5)}) == 1


def test_each_version_gets_its_part_of_the_keys() -> None:
    counts = Counter(splits.choose(Traffic((("stable", 90), ("canary", 10))), key) for key in KEYS)
    assert counts["canary"] / len(KEYS) == pytest.approx(0.1, abs=0.02)


def test_without_a_key_each_call_is_on_its_own() -> None:
    counts = Counter(splits.choose(Traffic((("1", 50), ("2", 50))), "") for _ in range(2000))
    assert counts["1"] / 2000 == pytest.approx(0.5, abs=0.08)


def test_a_canary_that_grows_keeps_those_that_it_has() -> None:
    small, large = (Traffic((("canary", percent), ("stable", 100 - percent))) for percent in (10, 30))
    assert {key for key in KEYS if splits.choose(small, key) == "canary"} < {
        key for key in KEYS if splits.choose(large, key) == "canary"
    }


@given(
    percents=st.lists(st.integers(0, 100), min_size=1, max_size=5).filter(lambda them: sum(them) == 100)
    | st.integers(0, 100).map(lambda first: [first, 100 - first]),
    key=st.text(max_size=20),
)
def test_a_version_without_a_part_gets_nothing(percents: list[int], key: str) -> None:
    traffic = Traffic(tuple((str(number), percent) for number, percent in enumerate(percents)))
    traffic.check()
    assert percents[int(splits.choose(traffic, key))] > 0


def test_no_traffic_is_no_choice() -> None:
    assert splits.choose(Traffic(), "key") == ""
    assert splits.shadow(Traffic()) == ""
    assert splits.shadow(Traffic(shadow="2", shadow_percent=100)) == "2"
    assert Traffic((("1", 100),), shadow="canary").versions() == {"1", "canary"}


@pytest.mark.parametrize("percents", [(99,), (60, 50), (0, 0)])
def test_percents_must_make_a_hundred(percents: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgument, match="100"):
        Traffic(tuple((str(number), percent) for number, percent in enumerate(percents))).check()
