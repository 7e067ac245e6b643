"""What the log takes in and what it refuses, each for a reason of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from facetmesh.audit.intake import MAX_EVENT_BYTES, MAX_FUTURE_S, MAX_PAST_S, Event, Refusal
from facetmesh.event.v1.event_pb2 import AuditEvent, SignedEvent
from facetmesh.kit.audit import Record, Recorder
from facetmesh.kit.errors import InvalidArgument
from facetmesh.kit.signing import EventSigner
from facetmesh.kit.telemetry import Metrics
from facetmesh.verify.event import ANNOUNCEMENT, CONTEXT, parse

from .audit_world import World, seed, service_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from facetmesh.kit.dapr import Outgoing


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Services and their keys; the log is not opened."""
    return World(tmp_path / "audit.db")


def at(world: World, offset_s: float) -> Timestamp:
    """A time from the world's now."""
    time = Timestamp()
    time.FromMicroseconds(int((world.clock() + offset_s) * 1e6))
    return time


def timed(world: World, time: Timestamp) -> bytes:
    """An event of that time."""
    event = world.event()
    event.time.CopyFrom(time)
    return world.services["detection"].sign(event)


def lasting(world: World, duration: Duration) -> bytes:
    """An event that took so long."""
    event = world.event()
    event.duration.CopyFrom(duration)
    return world.services["detection"].sign(event)


def with_roles(world: World, *roles: str) -> AuditEvent:
    """An event of who has these roles."""
    event = world.event()
    event.roles.extend(roles)
    return event


def changed(world: World, change: Callable[[SignedEvent], object]) -> bytes:
    """A signed event, changed after it was signed."""
    signed = SignedEvent.FromString(world.signed())
    change(signed)
    return signed.SerializeToString()


REFUSED: dict[str, tuple[Callable[[World], bytes], str]] = {
    "not protobuf": (lambda _: b"\xff\xff\xff", "EVENT_MALFORMED"),
    "protobuf around what is none": (lambda _: SignedEvent(event=b"\xff").SerializeToString(), "EVENT_MALFORMED"),
    "nothing": (lambda _: b"", "EVENT_KEY_UNKNOWN"),
    "1 MB": (lambda w: w.signed(method="x" * 1_000_000), "EVENT_TOO_LARGE"),
    "a byte too large": (lambda _: bytes(MAX_EVENT_BYTES + 1), "EVENT_TOO_LARGE"),
    "unknown key": (lambda w: EventSigner("detection", seed("stranger")).sign(w.event()), "EVENT_KEY_UNKNOWN"),
    "key of nobody": (lambda w: changed(w, lambda s: s.ClearField("key_id")), "EVENT_KEY_UNKNOWN"),
    "a stranger in a known key's name": (
        lambda w: changed(w, lambda s: setattr(s, "signature", bytes(64))), "EVENT_SIGNATURE_WRONG"),
    "no signature": (lambda w: changed(w, lambda s: s.ClearField("signature")), "EVENT_SIGNATURE_WRONG"),
    "changed after signing": (
        lambda w: changed(w, lambda s: setattr(s, "event", w.event().SerializeToString())), "EVENT_SIGNATURE_WRONG"),
    "another service's": (lambda w: w.services["auth"].sign(w.event("detection")), "SERVICE_MISMATCH"),
    "no service": (lambda w: w.services["auth"].sign(w.event("")), "SERVICE_MISMATCH"),
    "id too short": (lambda w: w.signed(id="abc"), "EVENT_ID_INVALID"),
    "id in capitals": (lambda w: w.signed(id="A" * 32), "EVENT_ID_INVALID"),
    "id with a newline": (lambda w: w.signed(id="a" * 32 + "\n"), "EVENT_ID_INVALID"),
    "no id": (lambda w: w.signed(id=""), "EVENT_ID_INVALID"),
    "tenant without its collection": (lambda w: w.signed(tenant="acme"), "TENANT_INVALID"),
    "all tenants": (lambda w: w.signed(tenant="tenants/-"), "TENANT_INVALID"),
    "what is within a tenant": (lambda w: w.signed(tenant="tenants/acme/keys/k1"), "TENANT_INVALID"),
    "in the future": (lambda w: timed(w, at(w, MAX_FUTURE_S + 1)), "EVENT_IN_FUTURE"),
    "in the far future": (lambda w: timed(w, Timestamp(seconds=2**62)), "EVENT_IN_FUTURE"),
    "in the past": (lambda w: timed(w, at(w, -MAX_PAST_S - 2)), "EVENT_TOO_OLD"),
    "before all time": (lambda w: timed(w, Timestamp(seconds=-(2**62))), "EVENT_TIME_INVALID"),
    "no time": (lambda w: timed(w, Timestamp()), "EVENT_TIME_INVALID"),
    "a time with too many nanoseconds": (
        lambda w: timed(w, Timestamp(seconds=int(w.clock()), nanos=2_000_000_000)), "EVENT_TIME_INVALID"),
    "a time with fewer than none": (
        lambda w: timed(w, Timestamp(seconds=int(w.clock()), nanos=-1)), "EVENT_TIME_INVALID"),
    "for ever": (lambda w: lasting(w, Duration(seconds=2**62)), "EVENT_DURATION_INVALID"),
    "for less than no time": (lambda w: lasting(w, Duration(nanos=-1)), "EVENT_DURATION_INVALID"),
    "of a duration that is none": (lambda w: lasting(w, Duration(nanos=2**31 - 1)), "EVENT_DURATION_INVALID"),
    "control characters among others": (
        lambda w: w.services["detection"].sign(with_roles(w, "ROLE_USER", "ROLE_\x00")), "EVENT_UNPRINTABLE"),
    "control characters": (lambda w: w.signed(resource="tenants/acme\x1b[2J"), "EVENT_UNPRINTABLE"),
    "a second line": (lambda w: w.signed(source_address="10.0.0.1\nOK"), "EVENT_UNPRINTABLE"),
    "an announcement by name": (lambda w: w.signed("audit", method=ANNOUNCEMENT), "ANNOUNCEMENT_FORBIDDEN"),
    "an announcement by key": (lambda w: w.signed("audit", service_public_key=bytes(32)), "ANNOUNCEMENT_FORBIDDEN"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused(world: World, what: str) -> None:
    make, reason = REFUSED[what]
    refusal = world.intake.read(make(world))
    assert isinstance(refusal, Refusal)
    assert refusal.reason == reason
    assert refusal.detail.endswith(".")


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200), seconds=st.integers(-(2**63), 2**63 - 1), nanos=st.integers(-(2**31), 2**31 - 1))
def test_nothing_that_a_service_signs_stops_the_log(data: bytes, seconds: int, nanos: int) -> None:
    """Whoever has stolen its key would else keep all events out, by one that comes again and again."""
    world = World(Path("unused.db"))
    event = world.event(outcome=seconds % (1 << 31))
    event.time.seconds, event.time.nanos = (int(world.clock()) if seconds % 2 else seconds), nanos
    event.duration.seconds, event.duration.nanos = seconds, nanos
    for body in (event.SerializeToString(), event.SerializeToString() + data, data):
        read = world.intake.read(signed_bytes(body))
        if isinstance(read, Event):
            assert json_format.MessageToJson(parse(read.data)[1])


def signed_bytes(body: bytes) -> bytes:
    """What detection's key signed, whatever it is."""
    key = Ed25519PrivateKey.from_private_bytes(seed("detection"))
    signature = key.sign(CONTEXT + body)
    return SignedEvent(event=body, key_id=service_key("detection").id, signature=signature).SerializeToString()


def test_taken_in(world: World) -> None:
    event = world.event(reason="KEY_UNKNOWN", resource="tenants/acme/models/gesichter-äöü")
    data = world.services["detection"].sign(event)
    read = world.intake.read(data)
    assert read == Event(event.id, "acme", int(world.clock() * 1e6), data)


def test_the_platforms_own_events_have_no_tenant(world: World) -> None:
    read = world.intake.read(world.signed("auth", tenant=""))
    assert isinstance(read, Event)
    assert read.tenant == ""


@pytest.mark.parametrize(
    "name", ["tenants/acme/models/\x1b[2J\n", "x" * 1_000_000, "tenants/-", "tenants/a", "tenants/acme-", "\u202e\0"],
)
async def test_what_a_caller_asks_for_cannot_keep_its_refusal_out(world: World, name: str) -> None:
    published: list[bytes] = []

    class Publisher:
        """Keeps what is published."""

        async def publish_many(
            self, topic: str, events: Sequence[Outgoing], *, type: str  # noqa: A002 - the Protocol's name
        ) -> list[str]:
            """Keeps them."""
            published.extend(event.data for event in events)
            return []

    recorder = Recorder("test", world.services["auth"], Publisher(), Metrics.create(), clock=world.clock)
    record = Record("facetmesh.auth.v1.AuthService/GetTenant", subject="platform/admin")
    record.concerns([name])
    await recorder.accept(record, InvalidArgument("The name is not one."))
    await recorder.close()
    assert isinstance(world.intake.read(published[0]), Event)


@pytest.mark.parametrize("offset_s", [-MAX_PAST_S + 1, 0, MAX_FUTURE_S - 1])
def test_an_event_may_be_old_or_a_little_early(world: World, offset_s: float) -> None:
    assert isinstance(world.intake.read(timed(world, at(world, offset_s))), Event)
