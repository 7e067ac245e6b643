"""Parts and their sum."""

from __future__ import annotations

import threading
import time

import pytest

from facetmesh.runners.stopwatch import measured, part, ran_together


def spend(seconds: float) -> None:
    """Works."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def test_parts_add_up_and_the_rest_is_told() -> None:
    """Also when one comes twice, or ends in an error."""
    began = time.perf_counter()
    with measured() as found:
        for _ in range(2):
            with part("infer"):
                spend(0.005)
        with pytest.raises(ValueError, match="bad"), part("decode"):
            raise ValueError("bad")
        spend(0.003)
    times = found.times_ms
    assert times["infer"] >= 10
    assert times["post"] >= 3
    assert sum(times.values()) <= (time.perf_counter() - began) * 1000
    assert times.keys() == {"infer", "decode", "post"}


def test_a_part_within_another_counts_once() -> None:
    """Whoever loads a model may run it once to warm it up."""
    began = time.perf_counter()
    with measured() as found, part("load"):
        spend(0.002)
        with part("infer"):
            spend(0.005)
    assert found.times_ms["load"] >= 2
    assert found.times_ms["infer"] >= 5
    assert sum(found.times_ms.values()) <= (time.perf_counter() - began) * 1000


def test_threads_do_not_mix_and_nobody_needs_to_measure() -> None:
    """A part outside of a task costs nothing and tells nobody."""
    with part("infer"):
        pass
    with measured() as mine:
        other = threading.Thread(target=lambda: part("infer").__enter__())
        other.start()
        other.join()
    assert mine.times_ms.keys() == {"post"}


def test_whoever_ran_with_others_says_so() -> None:
    """Within a task."""
    ran_together(8)
    with measured() as found:
        assert found.batch == 1
        ran_together(4)
    assert found.batch == 4
