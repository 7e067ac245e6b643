"""Filters: the documented part of AIP-160's language, and what is none of it."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facetmesh.audit.filters import END_US, MAX_DEPTH, MAX_LENGTH, parse_filter
from facetmesh.event.v1.event_pb2 import AuditEvent
from facetmesh.kit.errors import InvalidArgument

EVENT = AuditEvent(
    id="0" * 32, service="detection", method="facetmesh.detection.v1.DetectionService/Detect", tenant="tenants/acme",
    subject="tenants/acme/keys/k1", source_address="203.0.113.7", resource="tenants/acme/models/faces",
    outcome=AuditEvent.OUTCOME_REFUSED, code="PERMISSION_DENIED", reason="SCOPE_MISSING", region="eu-1",
)
EVENT.time.FromJsonString("2026-11-21T12:00:00Z")
EVENT.duration.FromMilliseconds(1500)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("   ", True),
        ("outcome = REFUSED", True),
        ("outcome = OUTCOME_REFUSED", True),
        ("outcome=OK", False),
        ("outcome != OK", True),
        ("kind = Detect", True),
        ('method = "*/Detect"', True),
        ('method = "*Fuse"', False),
        ("method : DetectionService", True),
        ("resource = tenants/*/models/*", True),
        ("resource = tenants/*/keys/*", False),
        ('source_address = "203.0.113.7"', True),
        ("source_address = 203.0.113.*", True),
        ("NOT outcome = OK", True),
        ("-outcome = OK", True),
        ("NOT (outcome = REFUSED AND region = eu-1)", False),
        ("region = eu-2 OR region = eu-1", True),
        ("region = eu-2 OR region = eu-1 AND outcome = OK", False),  # OR binds tighter
        ("region = eu-1 OR region = eu-2 AND outcome = REFUSED", True),
        ("region = eu-1 OR (region = eu-2 AND outcome = OK)", True),
        ('time >= "2026-11-21T12:00:00Z"', True),
        ('time > "2026-11-21T12:00:00Z"', False),
        ('time < "2026-11-21T13:00:01+01:00"', True),
        ('time = "2026-11-21T12:00:00.000Z"', True),
        ("duration >= 1.5s", True),
        ("duration < 1s", False),
        (r'reason = "SCOPE\_MISSING"', True),
        ("reason = 'SCOPE_MISSING'", True),
        ('reason = ""', False),
        ('trace_id = ""', True),
    ],
)
def test_matches(text: str, *, expected: bool) -> None:
    assert parse_filter(text).matches(EVENT) is expected


@pytest.mark.parametrize(
    "text",
    [
        "REFUSED", "outcome", "outcome =", "= REFUSED", "outcome REFUSED", "outcome > OK", "shoe_size = 3",
        "outcome = OK region = eu-1", "(outcome = OK", "outcome = OK)", "outcome = OK AND", "AND", "NOT", "()",
        'reason = "open', "time >= yesterday", 'time >= "2026-11-21T12:00:00"', 'time : "2026-11-21T12:00:00Z"',
        "duration > 3", "duration > -1s", "outcome == OK", "(" * (MAX_DEPTH + 2) + "outcome = OK",
        "NOT " * (MAX_DEPTH + 2) + "outcome = OK", "outcome = OK" + " " * MAX_LENGTH,
    ],
)  # fmt: skip
def test_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        parse_filter(text)
    assert error.value.reason == "FILTER_INVALID"


def test_times_are_looked_up() -> None:
    wanted = parse_filter('time >= "1970-01-01T00:00:05Z" AND (time < "1970-01-01T00:00:09Z" AND outcome = OK)')
    assert (wanted.since_us, wanted.until_us) == (5_000_000, 9_000_000)
    wanted = parse_filter('time > "1970-01-01T00:00:05Z" OR time < "1970-01-01T00:00:02Z"')
    assert (wanted.since_us, wanted.until_us) == (0, END_US)
    wanted = parse_filter('time = "1970-01-01T00:00:05Z"')
    assert (wanted.since_us, wanted.until_us) == (5_000_000, 5_000_001)
    wanted = parse_filter('NOT time > "1970-01-01T00:00:05Z" AND time <= "1970-01-01T00:00:09Z"')
    assert (wanted.since_us, wanted.until_us) == (0, 9_000_001)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="outcome=OK ANDRNT()-<>!:\"'*\\time0", max_size=60))
def test_whatever_comes_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidArgument):
        parse_filter(text).matches(EVENT)


def test_stars_cost_no_more_than_their_number() -> None:
    event = AuditEvent(resource="a" * 512)
    wanted = parse_filter("resource = " + "*a" * 500 + "*b")
    began = time.process_time()
    assert not wanted.matches(event)
    assert time.process_time() - began < 1
