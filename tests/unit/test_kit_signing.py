"""Events that share a signature, each of which can be verified alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from facetmesh.event.v1.event_pb2 import AuditEvent, SignedEvent
from facetmesh.kit import signing
from facetmesh.verify import VerificationError
from facetmesh.verify.event import BATCH_CONTEXT, CONTEXT, open_event

from .audit_world import World, service_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEYS = {service_key(name).id: service_key(name) for name in ("auth", "detection")}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Services with keys."""
    return World(tmp_path / "unused.db")


def test_both_sides_sign_the_same() -> None:
    assert (signing.SIGNATURE_CONTEXT, signing.BATCH_CONTEXT) == (CONTEXT, BATCH_CONTEXT)


@pytest.mark.parametrize("count", [*range(1, 20), 33, 50])
def test_each_of_many_can_be_opened_alone(world: World, count: int) -> None:
    events = [world.event() for _ in range(count)]
    signed = world.services["detection"].sign_many(events)
    assert [open_event(data, KEYS) for data in signed] == events
    assert len({SignedEvent.FromString(data).signature for data in signed}) == -(-count // 16)


def test_nothing_to_sign(world: World) -> None:
    assert world.services["detection"].sign_many([]) == []


def test_an_event_alone_needs_no_proof(world: World) -> None:
    event = world.event()
    assert world.services["detection"].sign_many([event]) == [world.services["detection"].sign(event)]


def move(signed: SignedEvent) -> None:
    """To another place in its batch."""
    signed.batch_index += 1


def grow(signed: SignedEvent) -> None:
    """Into a larger batch."""
    signed.batch_size += 1


def leave(signed: SignedEvent) -> None:
    """Out of the batch."""
    signed.batch_size = 0


def lengthen(signed: SignedEvent) -> None:
    """With one hash more than are needed."""
    signed.batch_hashes.append(bytes(32))


def shorten(signed: SignedEvent) -> None:
    """With a hash that is none."""
    signed.batch_hashes[0] = signed.batch_hashes[0][:31]


def replace(signed: SignedEvent) -> None:
    """With another event in its place."""
    event = AuditEvent.FromString(signed.event)
    event.tenant = "tenants/other"
    signed.event = event.SerializeToString(deterministic=True)


@pytest.mark.parametrize("change", [move, grow, leave, lengthen, shorten, replace])
@pytest.mark.parametrize("place", [0, 4])
def test_what_was_changed_is_refused(world: World, change: Callable[[SignedEvent], None], place: int) -> None:
    data = world.services["detection"].sign_many([world.event() for _ in range(5)])[place]
    assert open_event(data, KEYS)  # its batch is known from now on, which must not help
    signed = SignedEvent.FromString(data)
    change(signed)
    with pytest.raises(VerificationError) as refusal:
        open_event(signed.SerializeToString(), KEYS)
    assert refusal.value.reason == "EVENT_SIGNATURE_WRONG"


def test_every_bit_of_the_proof_counts(world: World) -> None:
    data = world.services["detection"].sign_many([world.event() for _ in range(16)])[7]
    hashes = list(SignedEvent.FromString(data).batch_hashes)
    for place, value in enumerate(hashes):
        for bit in range(256):
            signed = SignedEvent.FromString(data)
            signed.batch_hashes[place] = (int.from_bytes(value, "big") ^ 1 << bit).to_bytes(32, "big")
            with pytest.raises(VerificationError):
                open_event(signed.SerializeToString(), KEYS)


def test_a_batch_of_another_service_is_refused(world: World) -> None:
    """Who has one service's key cannot speak for another, not even from within a batch."""
    mixed = [world.event(), world.event("auth")]
    mine, others = world.services["detection"].sign_many(mixed)
    assert open_event(mine, KEYS) == mixed[0]
    with pytest.raises(VerificationError) as refusal:
        open_event(others, KEYS)
    assert refusal.value.reason == "SERVICE_MISMATCH"
