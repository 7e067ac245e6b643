"""Consents: who agreed to what, and that nothing is fused without it, or after it has ended."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from facetmesh.fusion.consents import LONGEST_S, Consent, Consents, SourceFace, State
from facetmesh.fusion.operations import Stage
from facetmesh.kit.errors import Aborted, AlreadyExists, FacetmeshError, FailedPrecondition, InvalidArgument, NotFound

from .fusion_jobs import World, sha256, terms

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from facetmesh.fusion.fuser import Fused

    from .conftest import Clock

FACE = SourceFace(sha256(b"source"))


@pytest.fixture
def world(clock: Clock) -> World:
    """A service without work."""
    return World(clock)


async def refusal(work: Awaitable[object]) -> FacetmeshError:
    with pytest.raises(FailedPrecondition) as refused:
        await work
    return refused.value


async def test_a_consent_is_kept_as_it_was_given(world: World, clock: Clock) -> None:
    made = await world.consents.create("acme", terms(clock))
    found = await world.consents.get("acme", made.id)
    assert replace(found, etag="") == made
    assert found.sha256 == made.sha256
    assert found.state(clock.now) is State.ACTIVE
    assert await world.consents.ids("acme") == [made.id]
    assert await world.consents.ids("globex") == []
    with pytest.raises(NotFound):
        await world.consents.get("globex", made.id)


async def test_lists_begin_with_the_newest(world: World, clock: Clock) -> None:
    made = []
    for _ in range(3):
        made.append((await world.consents.create("acme", terms(clock))).id)
        clock.now += 1
    assert await world.consents.ids("acme") == made[::-1]


async def test_no_word_of_a_consent_lies_in_the_open(world: World, clock: Clock) -> None:
    made = await world.consents.create("acme", terms(clock, subject="Ada Lovelace", purpose="a poster"))
    stored = world.state.entries[made.name].value
    for word in (b"Ada", b"poster", sha256(b"source").encode(), sha256(b"signed").encode()):
        assert word not in stored


async def test_a_consent_cannot_be_passed_off_as_another(world: World, clock: Clock) -> None:
    one = await world.consents.create("acme", terms(clock))
    other = await world.consents.create("acme", terms(clock))
    world.state.entries[one.name] = world.state.entries[other.name]
    with pytest.raises(FacetmeshError):
        await world.consents.get("acme", one.id)


def test_the_hash_is_of_what_the_proto_says(clock: Clock) -> None:
    consent = Consent("acme", "0" * 32, terms(clock), clock.now, salt="ab" * 16)
    said = {
        "name": f"tenants/acme/consents/{'0' * 32}", "subject": "Ada", "purpose": "a poster",
        "faces": [[sha256(b"source"), index] for index in (0, 1, 7)], "evidence_sha256": sha256(b"signed"),
        "created_us": int(clock.now) * 10**6, "expires_us": (int(clock.now) + 3600) * 10**6, "salt": "ab" * 16,
    }  # fmt: skip
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    assert consent.sha256 == hashlib.sha256(b"facetmesh-consent-v1\n" + text.encode()).hexdigest()
    assert replace(consent, revoked_s=clock.now).sha256 == consent.sha256
    assert replace(consent, salt="cd" * 16).sha256 != consent.sha256


@pytest.mark.parametrize("ahead_s", [0.0, -1.0, LONGEST_S + 1])
async def test_a_consent_ends_in_the_future_but_not_in_the_far_future(
    world: World, clock: Clock, ahead_s: float
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await world.consents.create("acme", terms(clock, expires_s=clock.now + ahead_s))
    assert refused.value.reason == "EXPIRE_TIME_OUT_OF_RANGE"
    assert await world.consents.ids("acme") == []


async def test_a_repeated_request_is_the_same_consent(world: World, clock: Clock) -> None:
    first = await world.consents.create("acme", terms(clock), "r1")
    clock.now += 7200  # even when it has ended meanwhile
    assert (await world.consents.create("acme", terms(clock), "r1")).sha256 == first.sha256
    with pytest.raises(AlreadyExists) as refused:
        await world.consents.create("acme", terms(clock, subject="Eve"), "r1")
    assert refused.value.reason == "REQUEST_ID_REUSED"
    assert len(await world.consents.ids("acme")) == 1


async def test_revoking_is_for_good(world: World, clock: Clock) -> None:
    made = await world.consents.create("acme", terms(clock))
    revoked = await world.consents.revoke("acme", made.id)
    clock.now += 60
    assert (await world.consents.revoke("acme", made.id)).revoked_s == revoked.revoked_s
    assert (await world.consents.get("acme", made.id)).state(clock.now) is State.REVOKED
    with pytest.raises(NotFound):
        await world.consents.revoke("globex", made.id)


async def test_two_that_revoke_at_once_are_both_told_that_it_is_done(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await world.consents.create("acme", terms(clock))
    put, calls = world.state.put, []

    async def raced(key: str, value: bytes, **options: object) -> None:
        calls.append(key)
        if len(calls) == 1:
            raise Aborted("changed")
        await put(key, value, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(world.state, "put", raced)
    assert (await world.consents.revoke("acme", made.id)).revoked_s == clock.now
    assert len(calls) == 2


async def _none(_: World) -> str:
    return ""


async def _unknown(_: World) -> str:
    return f"tenants/acme/consents/{'0' * 32}"


async def _of_another_tenant(world: World) -> str:
    return (await world.consent("globex")).name


async def _of_another_photo(world: World) -> str:
    others = (SourceFace(sha256(b"another")),)
    return (await world.consents.create("acme", terms(world.clock, faces=others))).name


async def _of_another_face(world: World) -> str:
    others = (SourceFace(sha256(b"source"), 4),)
    return (await world.consents.create("acme", terms(world.clock, faces=others))).name


async def _expired(world: World) -> str:
    name = (await world.consent()).name
    world.clock.now += 3600
    return name


async def _revoked(world: World) -> str:
    consent = await world.consent()
    await world.consents.revoke("acme", consent.id)
    return consent.name


REFUSED = [
    (_none, "CONSENT_MISSING"), (_unknown, "CONSENT_MISSING"), (_of_another_tenant, "CONSENT_MISSING"),
    (_of_another_photo, "CONSENT_MISMATCH"), (_of_another_face, "CONSENT_MISMATCH"),
    (_expired, "CONSENT_EXPIRED"), (_revoked, "CONSENT_REVOKED"),
]  # fmt: skip


@pytest.mark.parametrize(("named", "reason"), REFUSED)
async def test_nothing_is_begun_without_a_consent_that_allows_it(
    world: World, named: Callable[[World], Awaitable[str]], reason: str
) -> None:
    assert (await refusal(world.create(consent=await named(world)))).reason == reason
    assert world.blobs.blobs == {}
    assert await world.fusions.ids("acme") == []
    assert await world.registry.store.announced() == []


async def test_a_repeated_request_is_answered_although_the_consent_has_ended(world: World) -> None:
    consent = await world.consent()
    first = await world.create(request_id="r1", consent=consent.name)
    await world.consents.revoke("acme", consent.id)
    assert (await world.create(request_id="r1", consent=consent.name)).id == first.id


async def test_a_consent_revoked_before_the_work_begins_stops_it(world: World) -> None:
    operation = await world.create()
    await world.consents.revoke("acme", (await world.consent()).id)
    ended = await world.worker.work(operation)
    assert ended.failure is not None
    assert ended.failure.reason == "CONSENT_REVOKED"
    assert world.script.found_in == []


@pytest.mark.parametrize(("end", "reason"), [("revoke", "CONSENT_REVOKED"), ("expire", "CONSENT_EXPIRED")])
async def test_a_consent_that_ends_while_the_job_runs_leaves_no_result(world: World, end: str, reason: str) -> None:
    fuse = world.script.fuse

    async def ends(*arguments: object, **more: object) -> Fused:
        made = await fuse(*arguments, **more)  # type: ignore[arg-type]
        if end == "revoke":
            await world.consents.revoke("acme", (await world.consent()).id)
        else:
            world.clock.now += 3600
            await world.registry.change(operation.ref, lambda found: replace(found, until_s=world.clock.now + 60))
        return made

    operation = await world.create()
    world.script.fuse = ends  # type: ignore[method-assign]
    ended = await world.worker.work(operation)
    assert world.script.fused
    assert (ended.stage, ended.result) == (Stage.DONE, None)
    assert ended.failure is not None
    assert (ended.failure.code, ended.failure.reason) == ("FAILED_PRECONDITION", reason)
    await world.worker.clear(ended)
    assert world.blobs.blobs == {}
    (record,) = world.recorder.records
    assert record.error is not None
    assert record.error.reason == reason


async def test_the_receipt_commits_to_the_consent(world: World) -> None:
    consent = await world.consent()
    await world.worker.work(await world.create())
    (record,) = world.recorder.records
    assert record.told["inputs"] == [bytes.fromhex(one) for one in (
        sha256(b"source"), sha256(b"target"), consent.sha256
    )]  # fmt: skip


async def test_where_the_operator_asks_for_none_a_named_one_still_counts(world: World, clock: Clock) -> None:
    consents = Consents(world.consent_store, clock, required=False)
    assert await consents.named("acme", "") is None
    await consents.check("acme", "", FACE)
    assert (await refusal(consents.check("acme", await _unknown(world), FACE))).reason == "CONSENT_MISSING"
    assert (await refusal(consents.check("acme", await _revoked(world), FACE))).reason == "CONSENT_REVOKED"
