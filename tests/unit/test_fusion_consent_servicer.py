"""fusion's gRPC face for consents: what goes in and out, and what the audit log is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from facetmesh.fusion.consent_servicer import ConsentServicer
from facetmesh.fusion.purge import purge
from facetmesh.fusion.v1 import consent_pb2 as pb
from facetmesh.kit import audit
from facetmesh.kit.errors import InvalidArgument
from facetmesh.kit.validation import validate

from .fusion_jobs import World, sha256

if TYPE_CHECKING:
    from .conftest import Clock

ACME = "tenants/acme"


@pytest.fixture
def world(clock: Clock) -> World:
    """A service without work."""
    return World(clock)


@pytest.fixture
def record() -> audit.Record:
    """The audit record of the call, which a caller of acme makes."""
    made = audit.Record("facetmesh.fusion.v1.ConsentService/CreateConsent", ACME, f"{ACME}/keys/k1")
    audit.set_current(made)
    return made


@pytest.fixture
def servicer(world: World, record: audit.Record) -> ConsentServicer:
    """The servicer."""
    del record
    return ConsentServicer(world.consents, world.clock)


def creation(clock: Clock, **changes: object) -> pb.CreateConsentRequest:
    """Asks to keep what Ada agreed to, for an hour."""
    fields = {
        "subject": "Ada", "purpose": "a poster", "evidence_sha256": sha256(b"signed"),
        "faces": [pb.ConsentedFace(image_sha256=sha256(b"photo"), face_index=2)], **changes,
    }  # fmt: skip
    consent = pb.Consent(**fields)  # type: ignore[arg-type]
    consent.expire_time.seconds = int(clock.now) + 3600
    return pb.CreateConsentRequest(parent=ACME, consent=consent)


async def test_a_consent_comes_back_as_it_was_given(
    servicer: ConsentServicer, record: audit.Record, clock: Clock
) -> None:
    request = creation(clock)
    validate(request)
    made = await servicer.CreateConsent(request, None)
    assert (made.subject, made.purpose, made.state) == ("Ada", "a poster", pb.Consent.STATE_ACTIVE)
    assert list(made.faces) == list(request.consent.faces)
    assert made.expire_time == request.consent.expire_time
    assert made.create_time.seconds == int(clock.now)
    assert not made.HasField("revoke_time")
    assert (record.resource, record.output.hex()) == (made.name, made.sha256)
    assert await servicer.GetConsent(pb.GetConsentRequest(name=made.name), None) == made


async def test_lists_are_paged_and_name_nobody(servicer: ConsentServicer, world: World, clock: Clock) -> None:
    names = []
    for _ in range(3):
        names.append((await servicer.CreateConsent(creation(clock), None)).name)
        clock.now += 1
    await world.state.delete(names[2])
    request = pb.ListConsentsRequest(parent=ACME, page_size=2)
    first = await servicer.ListConsents(request, None)
    request.page_token = first.next_page_token
    second = await servicer.ListConsents(request, None)
    assert [one.name for page in (first, second) for one in page.consents] == [names[1], names[0]]
    assert not second.next_page_token
    assert {one.subject for page in (first, second) for one in page.consents} == {""}


async def test_revoking_and_expiring_show(servicer: ConsentServicer, clock: Clock) -> None:
    one = await servicer.CreateConsent(creation(clock), None)
    other = await servicer.CreateConsent(creation(clock), None)
    revoked = await servicer.RevokeConsent(pb.RevokeConsentRequest(name=one.name), None)
    assert (revoked.state, revoked.revoke_time.seconds) == (pb.Consent.STATE_REVOKED, int(clock.now))
    assert revoked.sha256 == one.sha256
    clock.now += 3600
    found = await servicer.GetConsent(pb.GetConsentRequest(name=other.name), None)
    assert found.state == pb.Consent.STATE_EXPIRED


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("subject", ""), ("subject", "x" * 257), ("purpose", ""), ("purpose", "x" * 1001), ("faces", []),
        ("faces", [pb.ConsentedFace(image_sha256=sha256(b"photo"))] * 101),
        ("faces", [pb.ConsentedFace(image_sha256="x")]),
        ("faces", [pb.ConsentedFace(image_sha256=sha256(b"photo"), face_index=100)]),
        ("evidence_sha256", ""), ("evidence_sha256", sha256(b"signed").upper()),
    ],
)  # fmt: skip
def test_what_is_no_consent_is_refused(clock: Clock, field: str, value: object) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        validate(creation(clock, **{field: value}))
    assert f"consent.{field}" in refusal.value.violations[0].field


async def test_a_tenants_end_is_that_of_its_consents(servicer: ConsentServicer, world: World, clock: Clock) -> None:
    made = await servicer.CreateConsent(creation(clock), None)
    kept = await world.consent("globex")
    await purge(world.store, world.blobs, [world.consent_store], "acme")
    assert made.name not in world.state.entries
    assert [key for key in world.state.entries if key.startswith("tenants/acme/consents")] == []
    assert (await world.consents.get("globex", kept.id)).sha256 == kept.sha256
