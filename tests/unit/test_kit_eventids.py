"""Ids of events: unique, of the form that the log takes, and in the order of time."""

from __future__ import annotations

from unittest.mock import patch

from facetmesh.audit.intake import EVENT_ID
from facetmesh.kit.eventids import new_event_id


def test_the_log_takes_them() -> None:
    ids = {new_event_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(EVENT_ID.fullmatch(one) for one in ids)


def test_they_sort_by_time() -> None:
    made = []
    for time_ns in (0, 999_999, 1_000_000, 1_793_000_000_000_000_000, (1 << 48) * 1_000_000 - 1):
        with patch("time.time_ns", return_value=time_ns):
            made.append(new_event_id())
    assert made[2:] == sorted(made[2:])
    assert [one[:12] for one in made] == ["000000000000"] * 2 + ["000000000001", "01a17720ca00", "ffffffffffff"]
