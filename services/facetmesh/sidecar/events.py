"""What is published becomes a message: a CloudEvent in JSON, made as daprd makes it."""

from __future__ import annotations

import base64
import json
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from facetmesh.kit import cloudevents
from facetmesh.sidecar import durations

if TYPE_CHECKING:
    from collections.abc import Mapping

_SPEC_VERSION = "1.0"
_TYPE = "com.dapr.event.sent"
_TRACE = frozenset({"traceid", "traceparent", "tracestate"})
_OVERRIDES = {f"cloudevent.{name}": name for name in ("id", "source", "type", "subject", *_TRACE)}
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_FALSE = frozenset({"", "0", "f", "F", "FALSE", "false", "False"})


class EventError(ValueError):
    """What was to be published is no event; the message says why."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The W3C trace context of a publisher's call."""

    parent: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """What an app gives to be published."""

    data: bytes
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    trace: Trace = Trace()


@dataclass(frozen=True, slots=True)
class Message:
    """What is kept and delivered."""

    data: bytes
    metadata: Mapping[str, str] = field(default_factory=dict)


def is_raw(metadata: Mapping[str, str]) -> bool:
    """Whether a publisher wants its bytes to be taken as they are.

    Raises:
        EventError: rawPayload is neither true nor false.
    """
    value = metadata.get("rawPayload", "")
    if value not in _TRUE | _FALSE:
        raise EventError(f"rawPayload value must be a valid boolean: actual is '{value}'")
    return value in _TRUE


def message(published: Published, *, app: str, pubsub: str, topic: str) -> Message:
    """The message for what was published.

    Raises:
        EventError: It claims to be a CloudEvent and is none, or its ttlInSeconds is no duration.
    """
    metadata = published.metadata
    if is_raw(metadata):
        traced = {"traceid": published.trace.parent, "tracestate": published.trace.state}
        return Message(published.data, {**metadata, **traced})
    media = cloudevents.media_type(published.content_type)
    if media == cloudevents.CLOUD_EVENT:
        event = _adopted(published, pubsub, topic)
    else:
        event = _new(published, app, pubsub, topic)
    if ttl := metadata.get("ttlInSeconds") or metadata.get("ttl"):
        event["expiration"] = _after(ttl)
    text = _json(event).encode()
    if media == cloudevents.BINARY:
        # Base64 has nothing to escape, and to look for it costs as much as to write the rest.
        text = b'%b,"data_base64":"%b"}' % (text[:-1], base64.b64encode(published.data))
    return Message(text, dict(metadata))


def wrapped(raw: Message, pubsub: str, topic: str, event_id: uuid.UUID) -> dict[str, Any]:
    """A CloudEvent around a message that is none, for a subscriber who wants it so."""
    event: dict[str, Any] = {
        "id": str(event_id),
        "specversion": _SPEC_VERSION,
        "datacontenttype": cloudevents.BINARY,
        "source": "Dapr",
        "type": _TYPE,
        "topic": topic,
        "pubsubname": pubsub,
    }
    return event | {name: value for name, value in raw.metadata.items() if name in _TRACE}


def has_expired(event: Mapping[str, Any]) -> bool:
    """Whether its time is over."""
    try:
        return datetime.fromisoformat(event["expiration"]).timestamp() < time.time()
    except (KeyError, TypeError, ValueError):
        return False


def _new(published: Published, app: str, pubsub: str, topic: str) -> dict[str, Any]:
    """A CloudEvent around what was published, which it has unless that is binary."""
    lowered = {name.lower(): value for name, value in published.metadata.items()}
    given = {_OVERRIDES[name]: value for name, value in lowered.items() if name in _OVERRIDES}
    trace = given.get("traceparent") or given.get("traceid") or published.trace.parent
    content_type = published.content_type or "text/plain"
    event: dict[str, Any] = {
        "id": given.get("id") or str(uuid.uuid4()),
        "specversion": _SPEC_VERSION,
        "datacontenttype": content_type,
        "source": given.get("source") or app,
        "type": given.get("type") or _TYPE,
        "topic": topic,
        "pubsubname": pubsub,
        "traceid": trace,
        "traceparent": trace,
        "tracestate": given.get("tracestate") or published.trace.state,
        "time": _now(),
    }
    if given.get("subject"):
        event["subject"] = given["subject"]
    media = cloudevents.media_type(content_type)
    if media == cloudevents.JSON:
        try:
            event["data"] = json.loads(published.data)
        except ValueError:  # what says that it is JSON and is not goes out as text, as daprd does it
            event["data"] = published.data.decode(errors="replace")
    elif media != cloudevents.BINARY:
        event["data"] = published.data.decode(errors="replace")
    return event


def _adopted(published: Published, pubsub: str, topic: str) -> dict[str, Any]:
    """A CloudEvent that the publisher made itself, with what it left out."""
    try:
        event = json.loads(published.data)
    except ValueError as error:
        raise EventError(f"not a CloudEvent in JSON: {error}") from error
    if not isinstance(event, dict):
        raise EventError("not a CloudEvent in JSON: no object")
    if "traceid" not in event:
        event["traceid"] = event["traceparent"] = published.trace.parent
    defaults = {
        "time": _now(), "tracestate": published.trace.state, "source": "Dapr", "type": _TYPE,
        "specversion": _SPEC_VERSION,
    }  # fmt: skip
    return defaults | event | {"topic": topic, "pubsubname": pubsub}


def _now() -> str:
    return _written(int(time.time()))


@lru_cache(maxsize=2)
def _written(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat().replace("+00:00", "Z")


def _after(ttl: str) -> str:
    try:
        ends = time.time() + durations.seconds(ttl)
        return datetime.fromtimestamp(ends, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError) as error:
        raise EventError(f"ttlInSeconds: {error}") from error
