"""Receipts end to end: from the service that did the work, through the log, to who checks it offline."""

from __future__ import annotations

import hashlib
import itertools
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from google.protobuf import json_format

from facetmesh.audit.intake import logged_event
from facetmesh.audit.note import LogSigner
from facetmesh.event.v1.event_pb2 import AuditEvent, SignedEvent
from facetmesh.kit.signing import SIGNATURE_CONTEXT, EventSigner
from facetmesh.verify import (
    VerificationError,
    dump_receipt,
    load_receipt,
    matches_input,
    matches_output,
    open_checkpoint,
    verify_growth,
    verify_receipt,
)
from facetmesh.verify.event import ANNOUNCEMENT, CONTEXT, ServiceKey, open_announcement

from .audit_world import ORIGIN, World, b64, seed, service_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from facetmesh.audit.v1.audit_pb2 import Receipt

VERIFYLOG = Path(__file__).parents[2] / "tools" / "verifylog"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A log in a file."""
    return World(tmp_path / "audit.db")


async def issued(world: World, event: AuditEvent, *, before: int = 3, after: int = 4) -> Receipt:
    """The receipt of an event that others stand around."""
    async with world.log() as (log, _):
        await log.ingest([world.signed() for _ in range(before)])
        signer = world.services[event.service]
        assert await log.ingest([signer.sign(event)]) == [None]
        await log.ingest([world.signed("auth") for _ in range(after)])
        return await world.receipt(log, event)


@pytest.mark.parametrize("service", ["detection", "auth", "audit"])
@pytest.mark.parametrize("after", [0, 300])
async def test_a_receipt_holds(world: World, service: str, after: int) -> None:
    event = world.event(service)
    receipt = await issued(world, event, after=after)
    assert verify_receipt(receipt, world.verifier_key) == event
    assert open_checkpoint(receipt.checkpoint, world.verifier_key).size == 3 + 3 + 1 + after


async def test_a_receipt_of_an_event_that_was_signed_with_others_holds(world: World) -> None:
    events = [world.event() for _ in range(11)]
    async with world.log() as (log, _):
        assert await log.ingest(world.services["detection"].sign_many(events)) == [None] * 11
        receipts = [await world.receipt(log, event) for event in events]
    assert [verify_receipt(receipt, world.verifier_key) for receipt in receipts] == events


async def test_both_files_can_be_read(world: World) -> None:
    receipt = await issued(world, world.event())
    assert load_receipt(dump_receipt(receipt).encode()) == receipt
    assert load_receipt(b"\n  " + dump_receipt(receipt).encode()) == receipt
    assert load_receipt(receipt.SerializeToString()) == receipt


@pytest.mark.parametrize(
    "data", [b"{", b'{"name": 3}', b'{"unknown": 1}', b"\xff\xff", b"{\xff}", b"[]", b" " * (1 << 20) + b"{}"]
)
def test_files_that_are_no_receipt(data: bytes) -> None:
    with pytest.raises(VerificationError) as refusal:
        load_receipt(data)
    assert refusal.value.reason == "RECEIPT_MALFORMED"


async def test_what_went_in_and_came_out(world: World) -> None:
    event = verify_receipt(await issued(world, world.event()), world.verifier_key)
    assert matches_input(event, b"a photo")
    assert not matches_input(event, b"another photo")
    assert matches_output(event, b"a result")
    assert not matches_output(event, b"a photo")


async def test_whose_hash_it_is_cannot_be_found_by_trying(world: World) -> None:
    """The same photo twice leaves two different hashes, neither of them the photo's own."""
    first, second = world.event(), world.event()
    plain = hashlib.sha256(b"a photo").digest()
    assert len({plain, first.input_hashes[0], second.input_hashes[0]}) == 3


def resigned(receipt: Receipt, change: Callable[[AuditEvent], object], signer: EventSigner) -> None:
    """Changes the event in a receipt and signs it again."""
    event = AuditEvent.FromString(SignedEvent.FromString(receipt.event.signed_event).event)
    change(event)
    receipt.event.signed_event = signer.sign(event)


def flipped(value: bytes, place: int = 0) -> bytes:
    """The value with one bit changed."""
    return value[:place] + bytes([value[place] ^ 1]) + value[place + 1 :]


def no_key(receipt: Receipt) -> None:
    """Puts the event's own proof where the key's should be: it is in the log, and announces nothing."""
    receipt.service_key.CopyFrom(receipt.event)


def replaced_hash(receipt: Receipt) -> None:
    """Changes a hash of the event's proof."""
    receipt.event.hashes[1] = flipped(receipt.event.hashes[1])


def replaced_key_hash(receipt: Receipt) -> None:
    """Changes a hash of the key's proof."""
    receipt.service_key.hashes[0] = flipped(receipt.service_key.hashes[0])


def other_log(receipt: Receipt) -> None:
    """A checkpoint of another log's, in the same name."""
    receipt.checkpoint = LogSigner(ORIGIN, seed("another")).checkpoint(11, bytes(32))


TAMPERINGS: dict[str, tuple[Callable[[Receipt], object], str]] = {
    "name": (lambda r: setattr(r, "name", r.name.replace("acme", "globex")), "NAME_MISMATCH"),
    "id": (lambda r: setattr(r, "name", r.name[:-1] + "g"), "NAME_MISMATCH"),
    "checkpoint's size": (lambda r: setattr(r, "checkpoint", r.checkpoint.replace("\n11\n", "\n12\n")),
                          "NOTE_SIGNATURE_WRONG"),
    "checkpoint's origin": (lambda r: setattr(r, "checkpoint", r.checkpoint.replace("log.", "lag.", 1)),
                            "NOTE_SIGNATURE_WRONG"),
    "checkpoint's signer": (lambda r: setattr(r, "checkpoint", r.checkpoint.replace("— log.", "— lag.")),
                            "NOTE_UNSIGNED"),
    "checkpoint gone": (lambda r: r.ClearField("checkpoint"), "NOTE_MALFORMED"),
    "another log": (other_log, "NOTE_UNSIGNED"),
    "event's salt": (lambda r: setattr(r.event, "salt", flipped(r.event.salt)), "NOT_INCLUDED"),
    "event's salt cut": (lambda r: setattr(r.event, "salt", r.event.salt[1:]), "RECEIPT_MALFORMED"),
    "event's index": (lambda r: setattr(r.event, "index", r.event.index - 1), "NOT_INCLUDED"),
    "event's index negative": (lambda r: setattr(r.event, "index", -1), "NOT_INCLUDED"),
    "event's index too large": (lambda r: setattr(r.event, "index", 11), "NOT_INCLUDED"),
    "event's hash": (replaced_hash, "NOT_INCLUDED"),
    "event's hashes gone": (lambda r: r.event.ClearField("hashes"), "PROOF_MALFORMED"),
    "event gone": (lambda r: r.ClearField("event"), "RECEIPT_MALFORMED"),
    "event": (lambda r: setattr(r.event, "signed_event", flipped(r.event.signed_event, 9)), "NOT_INCLUDED"),
    "event signed again": (lambda r: resigned(r, lambda e: setattr(e, "outcome", 2),
                                              EventSigner("detection", seed("detection"))), "NOT_INCLUDED"),
    "key's salt": (lambda r: setattr(r.service_key, "salt", flipped(r.service_key.salt)), "SERVICE_KEY_NOT_INCLUDED"),
    "key's hash": (replaced_key_hash, "SERVICE_KEY_NOT_INCLUDED"),
    "key's index": (lambda r: setattr(r.service_key, "index", 5), "SERVICE_KEY_NOT_INCLUDED"),
    "key gone": (lambda r: r.ClearField("service_key"), "RECEIPT_MALFORMED"),
    "key is no announcement": (no_key, "ANNOUNCEMENT_MALFORMED"),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERINGS)
async def test_tampering_is_noticed_for_its_own_reason(world: World, what: str) -> None:
    receipt = await issued(world, world.event())
    change, reason = TAMPERINGS[what]
    change(receipt)
    with pytest.raises(VerificationError) as refusal:
        verify_receipt(receipt, world.verifier_key)
    assert refusal.value.reason == reason


async def test_every_byte_counts(world: World) -> None:
    """Whatever byte of a receipt's binary form is changed, it does not say the same and still hold."""
    honest = await issued(world, world.event(), before=0, after=1)
    data = honest.SerializeToString()
    for place in range(len(data)):
        try:
            changed = load_receipt(flipped(data, place))
            event = verify_receipt(changed, world.verifier_key)
        except VerificationError:
            continue
        pytest.fail(f"byte {place}: {event} from {json_format.MessageToJson(changed)}")


async def test_another_services_key_does_not_do(world: World) -> None:
    """The proof of auth's key, for an event that detection signed."""
    event, other = world.event("detection"), world.event("auth")
    async with world.log() as (log, _):
        await log.ingest([world.services[e.service].sign(e) for e in (event, other)])
        receipt, others = await world.receipt(log, event), await world.receipt(log, other)
    receipt.service_key.CopyFrom(others.service_key)
    with pytest.raises(VerificationError) as refusal:
        verify_receipt(receipt, world.verifier_key)
    assert refusal.value.reason == "EVENT_KEY_UNKNOWN"


async def test_a_dishonest_log_cannot_pass_off_a_services_event(world: World) -> None:
    """Should the log take in what its services did not sign, the receipt shows it."""
    event = world.event("detection")
    forged = SignedEvent(event=event.SerializeToString(), key_id=service_key("detection").id, signature=bytes(64))
    foreign = world.services["auth"].sign(event)
    for data, reason in (
        (forged.SerializeToString(), "EVENT_SIGNATURE_WRONG"), (foreign, "SERVICE_MISMATCH"),
    ):  # fmt: skip
        careless = World(world.path.with_name(f"{reason}.db"))
        async with careless.log() as (log, _):
            await log._append([logged_event(data)])
            receipt = await careless.receipt(log, event)
        with pytest.raises(VerificationError) as refusal:
            verify_receipt(receipt, careless.verifier_key)
        assert refusal.value.reason == reason


def test_announcements() -> None:
    key, own = service_key("detection"), EventSigner("audit", seed("audit"))
    fields = {"service": "audit", "method": ANNOUNCEMENT, "resource": key.name, "service_public_key": key.public_key}
    assert open_announcement(own.sign(AuditEvent(**fields))) == key
    for change in (
        {"service": "auth"}, {"method": "x"}, {"resource": service_key("auth").name},
        {"service_public_key": service_key("auth").public_key}, {"service_public_key": b""},
    ):  # fmt: skip
        with pytest.raises(VerificationError) as refusal:
            open_announcement(own.sign(AuditEvent(**{**fields, **change})))
        assert refusal.value.reason == "ANNOUNCEMENT_MALFORMED"
    with pytest.raises(VerificationError) as refusal:
        open_announcement(EventSigner("auth", seed("auth")).sign(AuditEvent(**fields)))
    assert refusal.value.reason == "ANNOUNCEMENT_MALFORMED"


def test_audits_own_announcement_signs_itself() -> None:
    key = service_key("audit")
    event = AuditEvent(
        service="audit", method=ANNOUNCEMENT, resource=key.name, service_public_key=key.public_key
    ).SerializeToString()
    with pytest.raises(VerificationError) as refusal:
        open_announcement(SignedEvent(event=event, key_id=key.id, signature=bytes(64)).SerializeToString())
    assert refusal.value.reason == "EVENT_SIGNATURE_WRONG"


def test_kit_signs_what_verify_checks() -> None:
    assert SIGNATURE_CONTEXT == CONTEXT
    assert EventSigner("auth", seed("auth")).key_id == service_key("auth").id
    assert ServiceKey("auth", bytes(32)).name == f"services/auth/keys/{hashlib.sha256(bytes(32)).hexdigest()[:16]}"


@pytest.fixture
def verifylog(tmp_path: Path) -> Callable[..., bool]:
    """tools/verifylog: golang.org/x/mod/sumdb, which shares no code with ours. Says whether all holds."""
    program = tmp_path / "verifylog"
    subprocess.run(["go", "build", "-o", program, "."], cwd=VERIFYLOG, check=True)

    def verify(*arguments: Path | str) -> bool:
        return subprocess.run([program, *arguments], capture_output=True, check=False).returncode == 0

    return verify


@pytest.mark.full
@pytest.mark.skipif(shutil.which("go") is None, reason="needs Go")
async def test_gos_own_implementation_agrees(
    world: World, tmp_path: Path, verifylog: Callable[..., bool]
) -> None:
    key = tmp_path / "log.vkey"
    key.write_text(world.verifier_key + "\n")
    receipts, checkpoints = [], []
    async with world.log() as (log, _):
        for number in range(12):
            event = world.event()
            await log.ingest([world.services["detection"].sign(event), *(world.signed() for _ in range(number**2))])
            receipts.append(tmp_path / f"{number}.json")
            receipts[-1].write_text(dump_receipt(await world.receipt(log, event)))
            checkpoints.append(tmp_path / f"{number}.note")
            checkpoints[-1].write_text(log.checkpoint)
        assert verifylog("receipt", key, *receipts)
        for old, new in itertools.pairwise(checkpoints):
            trees = [open_checkpoint(file.read_text(), world.verifier_key) for file in (old, new)]
            hashes = await log.consistency(trees[0].size, trees[1].size)
            verify_growth(*trees, hashes)
            proof = tmp_path / "proof"
            proof.write_text("\n".join(b64(one) for one in hashes))
            assert verifylog("growth", key, old, new, proof)
            assert not verifylog("growth", key, new, old, proof)
    tampered = load_receipt(receipts[5].read_bytes())
    tampered.event.salt = flipped(tampered.event.salt)
    receipts[5].write_text(dump_receipt(tampered))
    assert not verifylog("receipt", key, receipts[5])
