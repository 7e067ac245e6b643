"""fusion's gRPC face: what goes in and out, and events that wake workers."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from facetmesh.event.v1 import event_pb2
from facetmesh.fusion import servicer as serving
from facetmesh.fusion.dispatcher import Standing
from facetmesh.fusion.events import EVENT_TYPE, TOPIC, JobEvents
from facetmesh.fusion.faces import Guess, Sex
from facetmesh.fusion.line import Priority, Ticket
from facetmesh.fusion.operations import Job, Operation, Ref
from facetmesh.fusion.servicer import FusionServicer
from facetmesh.fusion.v1 import fusion_pb2 as pb
from facetmesh.kit import audit, identity, status
from facetmesh.kit.dapr import Disposition, Event
from facetmesh.kit.errors import InvalidArgument, NotFound, Unavailable
from facetmesh.kit.profiles import Profile
from facetmesh.kit.validation import validate

from .fusion_jobs import FACEMESH, MODEL, SMALL, World

if TYPE_CHECKING:
    from google.longrunning import operations_pb2

    from .conftest import Clock

CONSENT = "tenants/acme/consents/ba864c9130dca97a53e7beffef4245e1"
REQUEST_ID = "2f9b6c1e-0000-4000-8000-000000000001"


@pytest.fixture
def world(clock: Clock) -> World:
    """A service without work."""
    return World(clock)


@pytest.fixture
def record() -> audit.Record:
    """The audit record of the call, which a caller of acme makes."""
    made = audit.Record("facetmesh.fusion.v1.FusionService/CreateFusion", "tenants/acme", "tenants/acme/keys/k1")
    audit.set_current(made)
    identity.set_current(identity.Principal("tenants/acme/keys/k1", "tenants/acme", frozenset({"caller"})))
    return made


@pytest.fixture
async def servicer(world: World, record: audit.Record) -> FusionServicer:
    """The servicer, and the consent that fusions name."""
    del record
    assert (await world.consent()).name == CONSENT
    return FusionServicer(world.fusions, world.pictures, world.links, world.lookups, lambda _: None)


def creation(**fields: object) -> pb.CreateFusionRequest:
    fusion = pb.Fusion(
        source_image=b"source", target_image=b"target", face_model=MODEL, target_face_index=1, consent=CONSENT
    )
    return pb.CreateFusionRequest(parent="tenants/acme", fusion=fusion, **fields)  # type: ignore[arg-type]


def metadata(operation: operations_pb2.Operation) -> pb.FusionMetadata:
    unpacked = pb.FusionMetadata()
    assert operation.metadata.Unpack(unpacked)
    return unpacked


def ref(operation: operations_pb2.Operation) -> Ref:
    _, tenant_id, _, operation_id = operation.name.split("/")
    return Ref(tenant_id, operation_id)


async def test_a_new_operation_is_queued_and_its_record_says_what_came(
    servicer: FusionServicer, world: World, record: audit.Record
) -> None:
    operation = await servicer.CreateFusion(creation(request_id=REQUEST_ID), None)
    about = metadata(operation)
    assert not operation.done
    assert (about.stage, about.percent, about.attempts) == (pb.FusionMetadata.STAGE_QUEUED, 0, 0)
    assert about.fusion == operation.name.replace("operations", "fusions") == record.resource
    consent = await world.consent()
    assert record.inputs == (
        hashlib.sha256(b"source").digest(), hashlib.sha256(b"target").digest(), bytes.fromhex(consent.sha256)
    )  # fmt: skip
    stored = await world.fusions.get(ref(operation))
    assert stored.caller.subject == "tenants/acme/keys/k1"
    assert stored.job.target_face_index == 1
    again = await servicer.CreateFusion(creation(request_id=REQUEST_ID), None)
    assert again.name == operation.name


async def test_a_finished_operation_holds_the_fusion(servicer: FusionServicer, world: World) -> None:
    created = await servicer.CreateFusion(creation(), None)
    await world.worker.work(await world.fusions.get(ref(created)))
    operation = await servicer.GetOperation(pb.GetOperationRequest(name=created.name), None)
    fusion = pb.Fusion()
    assert operation.done
    assert operation.response.Unpack(fusion)
    assert fusion.name == metadata(operation).fusion
    assert (fusion.face_model, fusion.target_face_index, fusion.media_type) == (MODEL, 1, "image/png")
    assert fusion.consent == CONSENT
    assert (fusion.target_face.x_min, fusion.target_face.y_max) == (0, 10)
    assert fusion.receipt
    assert fusion.create_time == metadata(operation).create_time
    assert metadata(operation).HasField("end_time")
    assert not fusion.source_image
    assert not fusion.target_image


async def test_what_fused_and_by_which_models_is_told(servicer: FusionServicer, world: World) -> None:
    world.profile = Profile(plan="free", licence_classes=frozenset({"non-commercial"}))
    world.script.similarities = {SMALL: 0.9}
    request = creation()
    request.fusion.backend = pb.BACKEND_INSIGHTFACE
    request.fusion.target_selection.mode = pb.FaceSelection.MODE_REFERENCE
    request.fusion.target_selection.reference_image = b"who"
    created = await servicer.CreateFusion(request, None)
    await world.worker.work(await world.fusions.get(ref(created)))
    operation = await servicer.GetOperation(pb.GetOperationRequest(name=created.name), None)
    fusion = pb.Fusion()
    assert operation.response.Unpack(fusion)
    assert fusion.backend == pb.BACKEND_INSIGHTFACE
    assert [(model.name, model.sha256, model.licence) for model in fusion.models] == [
        (FACEMESH.name, FACEMESH.sha256, FACEMESH.licence)
    ]
    assert fusion.target_selection.mode == pb.FaceSelection.MODE_REFERENCE
    assert fusion.target_selection.min_similarity == pytest.approx(0.4)
    assert not fusion.target_selection.reference_image
    assert world.script.compared == [(b"who", b"target")]


@pytest.mark.parametrize(
    ("chosen", "good"),
    [
        ({"sex": "SEX_MALE", "min_age": 18, "max_age": 18}, True), ({"min_age": 120}, True), ({"max_age": 0}, True),
        ({"min_age": 18, "max_age": 17}, False), ({"min_age": -1}, False), ({"max_age": 121}, False),
        ({"min_age": 1, "max_age": 0}, False), ({"sex": 3}, False),
    ],
)  # fmt: skip
async def test_ages_are_in_years_and_in_order(
    servicer: FusionServicer, world: World, chosen: dict[str, Any], *, good: bool
) -> None:
    world.profile = Profile(plan="free", licence_classes=frozenset({"non-commercial"}))
    request = creation()
    request.fusion.target_selection.CopyFrom(pb.FaceSelection(**chosen))
    if not good:
        with pytest.raises(InvalidArgument):
            validate(request)
        return
    validate(request)
    created = await servicer.CreateFusion(request, None)
    world.script.taken_for = dict.fromkeys(world.script.faces, Guess(Sex.MALE, chosen.get("max_age", 120)))
    await world.worker.work(await world.fusions.get(ref(created)))
    operation, fusion = await servicer.GetOperation(pb.GetOperationRequest(name=created.name), None), pb.Fusion()
    operation.response.Unpack(fusion)
    told = fusion.target_selection
    assert (told.sex, told.min_age) == (pb.FaceSelection(**chosen).sex, chosen.get("min_age", 0))
    assert (told.max_age if told.HasField("max_age") else None) == chosen.get("max_age")


@pytest.mark.parametrize(
    ("mode", "image", "good"),
    [
        (pb.FaceSelection.MODE_REFERENCE, b"who", True), (pb.FaceSelection.MODE_REFERENCE, b"", False),
        (pb.FaceSelection.MODE_ALL, b"who", True), (pb.FaceSelection.MODE_ALL, b"", True),
        (pb.FaceSelection.MODE_REFERENCE, bytes(1_000_001), False),
    ],
)  # fmt: skip
def test_a_reference_comes_where_it_is_asked_for(
    mode: pb.FaceSelection.Mode.ValueType, image: bytes, *, good: bool
) -> None:
    request = creation()
    request.fusion.target_selection.CopyFrom(pb.FaceSelection(mode=mode, reference_image=image))
    if good:
        validate(request)
        return
    with pytest.raises(InvalidArgument) as refusal:
        validate(request)
    (violation,) = refusal.value.violations
    assert violation.field.startswith("fusion.target_selection")


async def test_a_reference_that_nobody_looks_at_is_not_kept(servicer: FusionServicer, world: World) -> None:
    request = creation()
    request.fusion.target_selection.CopyFrom(
        pb.FaceSelection(mode=pb.FaceSelection.MODE_SOLE, reference_image=b"who")
    )
    created = await servicer.CreateFusion(request, None)
    assert b"who" not in world.blobs.blobs.values()
    assert not (await world.fusions.get(ref(created))).job.reference_sha256


async def test_a_failed_operation_holds_the_error(servicer: FusionServicer, world: World) -> None:
    world.script.faces = []
    created = await servicer.CreateFusion(creation(), None)
    await world.worker.work(await world.fusions.get(ref(created)))
    operation = await servicer.WaitOperation(pb.WaitOperationRequest(name=created.name), None)
    assert operation.done
    error = status.from_status(operation.error)
    assert isinstance(error, InvalidArgument)
    assert (error.reason, error.metadata["image"]) == ("NO_FACE", "source")


async def test_a_cancelled_operation_says_so(servicer: FusionServicer) -> None:
    created = await servicer.CreateFusion(creation(), None)
    cancelled = await servicer.CancelOperation(pb.CancelOperationRequest(name=created.name), None)
    assert cancelled.done
    assert status.from_status(cancelled.error).code == "CANCELLED"


async def test_waiting_takes_no_longer_than_asked(servicer: FusionServicer) -> None:
    created = await servicer.CreateFusion(creation(), None)
    request = pb.WaitOperationRequest(name=created.name)
    request.timeout.FromMilliseconds(10)
    assert not (await servicer.WaitOperation(request, None)).done


async def test_lists_are_paged_and_skip_what_is_only_in_the_index(
    servicer: FusionServicer, world: World, clock: Clock
) -> None:
    names = []
    for _ in range(3):
        names.append((await servicer.CreateFusion(creation(), None)).name)
        clock.now += 1
    await world.state.delete(f"tenants/acme/operations/{names[2].rpartition('/')[2]}")
    request = pb.ListOperationsRequest(parent="tenants/acme", page_size=2)
    first = await servicer.ListOperations(request, None)
    request.page_token = first.next_page_token
    second = await servicer.ListOperations(request, None)
    assert [one.name for page in (first, second) for one in page.operations] == [names[1], names[0]]
    assert not second.next_page_token


async def test_a_download_comes_in_chunks(
    servicer: FusionServicer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "CHUNK_BYTES", 10)
    created = await servicer.CreateFusion(creation(), None)
    ended = await world.worker.work(await world.fusions.get(ref(created)))
    request = pb.DownloadFusionRequest(name=ended.fusion_name)
    parts = [part async for part in servicer.DownloadFusion(request, None)]
    chunks = [part.data for part in parts]
    assert [part.content_type for part in parts] == ["image/png", *([""] * (len(parts) - 1))]
    assert ended.result is not None
    assert hashlib.sha256(b"".join(chunks)).hexdigest() == ended.result.sha256
    assert {len(chunk) for chunk in chunks[:-1]} == {10}


@pytest.mark.parametrize("name", ["x", "0" * 32, "z" * 64])
async def test_odd_names_are_not_found(servicer: FusionServicer, name: str) -> None:
    with pytest.raises(NotFound):
        await servicer.GetOperation(pb.GetOperationRequest(name=f"tenants/acme/operations/{name}"), None)


class Publisher:
    """Keeps what is published, or refuses it."""

    def __init__(self, *, down: bool = False) -> None:
        self.published: list[tuple[str, bytes, str]] = []
        self._down = down

    async def publish(self, topic: str, data: bytes, *, event_id: str, type: str) -> None:  # noqa: A002 - CloudEvents'
        """Publishes."""
        assert len(event_id) == 32
        if self._down:
            raise Unavailable("gone")
        self.published.append((topic, data, type))


async def test_who_waits_is_told_its_place(world: World, servicer: FusionServicer) -> None:
    waiting = FusionServicer(world.fusions, world.pictures, world.links, world.lookups, lambda _: Standing(3, 4.5))
    request = creation()
    request.fusion.priority = pb.PRIORITY_BATCH
    created = await waiting.CreateFusion(request, None)
    about = metadata(created)
    assert (about.queue_position, about.estimated_wait.ToMilliseconds()) == (3, 4500)
    assert [one.priority for one in await world.registry.store.announced()] == [Priority.BATCH]
    await world.worker.work(await world.fusions.get(ref(created)))
    done = await waiting.GetOperation(pb.GetOperationRequest(name=created.name), None)
    fusion = pb.Fusion()
    assert done.response.Unpack(fusion)
    assert fusion.priority == pb.PRIORITY_BATCH
    assert (metadata(done).queue_position, metadata(done).HasField("estimated_wait")) == (0, False)
    unheard = metadata(await servicer.CreateFusion(creation(), None))
    assert (unheard.queue_position, unheard.HasField("estimated_wait")) == (0, False)


async def found(ref: Ref) -> Operation:
    """The operation is there."""
    return Operation(ref.tenant_id, ref.id, Job("", "", "", 0, 0), 0.0)


def delivered(data: bytes, kind: str = EVENT_TYPE) -> Event:
    return Event("1", kind, "fusion", data, "", TOPIC)


async def test_a_job_that_is_announced_wakes_here_and_elsewhere(clock: Clock) -> None:
    here: list[Ticket] = []
    elsewhere: list[Ticket] = []
    publisher = Publisher()
    new = Ticket(Ref.new("acme", clock.now))
    await JobEvents(publisher, here.append, found).announce(new)  # type: ignore[arg-type]
    ((topic, data, kind),) = publisher.published
    assert here == [new]
    assert topic == TOPIC
    receiver = JobEvents(publisher, elsewhere.append, found)  # type: ignore[arg-type]
    assert await receiver.handle([delivered(data, kind)]) == [Disposition.OK]
    assert elsewhere == [new]


async def test_a_broker_that_is_down_does_not_fail_the_request(clock: Clock) -> None:
    here: list[Ticket] = []
    await JobEvents(Publisher(down=True), here.append, found).announce(Ticket(Ref.new("acme", clock.now)))  # type: ignore[arg-type]
    assert len(here) == 1


async def test_a_job_of_a_tenant_that_is_gone_is_a_dead_letter(clock: Clock) -> None:
    woken: list[Ticket] = []
    there, gone = Ref.new("acme", clock.now), Ref.new("gone", clock.now)

    async def find(ref: Ref) -> Operation:
        if ref == gone:
            raise NotFound("No such operation.", reason="NOT_FOUND")
        return await found(ref)

    events = JobEvents(Publisher(), woken.append, find)  # type: ignore[arg-type]
    jobs = [event_pb2.FusionJob(operation=f"tenants/{ref.tenant_id}/operations/{ref.id}") for ref in (gone, there)]
    answer = await events.handle([delivered(job.SerializeToString()) for job in jobs])
    assert answer == [Disposition.DROP, Disposition.OK]
    assert woken == [Ticket(there)]


@pytest.mark.parametrize(
    "event",
    [
        delivered(b"\xff\xff"), delivered(b""),
        delivered(event_pb2.FusionJob(operation="tenants/../operations/1").SerializeToString()),
        delivered(event_pb2.FusionJob(operation=f"tenants/acme/operations/{'0' * 32}").SerializeToString(), "other"),
    ],
)
async def test_what_is_no_job_is_a_dead_letter_and_the_next_is_heard(event: Event, clock: Clock) -> None:
    woken: list[Ticket] = []
    good = Ref.new("acme", clock.now)
    name = f"tenants/{good.tenant_id}/operations/{good.id}"
    events = JobEvents(Publisher(), woken.append, found)  # type: ignore[arg-type]
    answer = await events.handle([event, delivered(event_pb2.FusionJob(operation=name).SerializeToString())])
    assert answer == [Disposition.DROP, Disposition.OK]
    assert woken == [Ticket(good)]




async def test_what_was_made_here_is_known_again(servicer: FusionServicer, world: World) -> None:
    created = await servicer.CreateFusion(creation(), None)
    ended = await world.worker.work(await world.fusions.get(ref(created)))
    assert ended.result is not None
    request = pb.LookUpFusionRequest(parent="tenants/acme", sha256=ended.result.sha256)
    (match,) = (await servicer.LookUpFusion(request, None)).matches
    assert (match.kind, match.fusion.name) == (pb.FusionMatch.KIND_FILE, ended.fusion_name)
    alike = pb.LookUpFusionRequest(parent="tenants/acme", image=b"source of something else")
    (match,) = (await servicer.LookUpFusion(alike, None)).matches
    assert (match.kind, match.distance_bits) == (pb.FusionMatch.KIND_SIMILAR, 0)
    assert match.fusion.receipt == ended.result.receipt
