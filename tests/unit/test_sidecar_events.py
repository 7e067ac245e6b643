"""From what is published to what is delivered, without a byte changed."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facetmesh.kit import cloudevents
from facetmesh.sidecar import events
from facetmesh.sidecar.events import EventError, Published

WHERE = {"app": "app", "pubsub": "pubsub", "topic": "topic"}


@given(st.binary(max_size=2000))
def test_binary_data_comes_through_byte_for_byte(data: bytes) -> None:
    message = events.message(Published(data, "application/octet-stream"), **WHERE)
    assert cloudevents.payload(json.loads(message.data)) == data


@given(st.text())
def test_text_comes_through(text: str) -> None:
    message = events.message(Published(text.encode(), "text/plain"), **WHERE)
    assert cloudevents.payload(json.loads(message.data)).decode() == text


@given(st.binary(max_size=200), st.text(max_size=40), st.dictionaries(st.text(max_size=20), st.text(max_size=20)))
def test_nothing_that_is_published_breaks_it(data: bytes, content_type: str, metadata: dict[str, str]) -> None:
    try:
        message = events.message(Published(data, content_type, metadata), **WHERE)
    except EventError:
        return
    event = json.loads(message.data)
    assert event["topic"] == "topic"
    assert not events.has_expired(event)


_ATTRIBUTES = st.sampled_from(["data", "data_base64", "datacontenttype", "id", "expiration", "traceparent"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda parts: st.dictionaries(_ATTRIBUTES, parts)
)


@given(st.dictionaries(_ATTRIBUTES, _VALUES))
def test_no_json_breaks_the_readers(value: dict[str, object]) -> None:
    events.has_expired(value)
    cloudevents.text(value, "id")
    with contextlib.suppress(ValueError):
        assert isinstance(cloudevents.payload(value), bytes)


@pytest.mark.parametrize("metadata", [{"rawPayload": "perhaps"}, {"ttlInSeconds": "soon"}, {"ttlInSeconds": "9" * 30}])
def test_metadata_that_makes_no_sense_is_refused(metadata: dict[str, str]) -> None:
    with pytest.raises(EventError):
        events.message(Published(b"x", "", metadata), **WHERE)


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b'"text"'])
def test_what_claims_to_be_a_cloud_event_must_be_one(data: bytes) -> None:
    with pytest.raises(EventError):
        events.message(Published(data, "application/cloudevents+json"), **WHERE)
