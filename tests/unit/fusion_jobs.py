"""What the tests of fusion's jobs share: the real store and worker, with stand-ins for what lies beyond the service."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from facetmesh.fusion.accounting import Accounts
from facetmesh.fusion.backends import Backend, Backends, FaceFuser, FaceMatcher, Model, Offer
from facetmesh.fusion.checkpoints import Checkpoints
from facetmesh.fusion.consent_store import DaprConsentStore
from facetmesh.fusion.consents import Consents, SourceFace, Terms
from facetmesh.fusion.dispatcher import Dispatcher
from facetmesh.fusion.faces import Face, Found, Guess, Seen
from facetmesh.fusion.fuser import Fused
from facetmesh.fusion.fusions import Fusions, Wish
from facetmesh.fusion.images import Images
from facetmesh.fusion.line import Line
from facetmesh.fusion.link_keys import DaprLinkKeys
from facetmesh.fusion.links import Links
from facetmesh.fusion.lookups import Lookups
from facetmesh.fusion.making import Maker, Stages
from facetmesh.fusion.moderation import Moderation, Moderator, Policy
from facetmesh.fusion.operations import Caller
from facetmesh.fusion.pictures import Pictures
from facetmesh.fusion.registry import Registry
from facetmesh.fusion.store import DaprStore
from facetmesh.fusion.upload_store import DaprUploadStore
from facetmesh.fusion.uploads import Uploads
from facetmesh.fusion.worker import Worker
from facetmesh.kit.errors import FacetmeshError, NotFound
from facetmesh.kit.keyring import Keyring
from facetmesh.kit.profiles import Profile
from facetmesh.kit.revocations import Revocations

from .conftest import Clock, MemoryState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from facetmesh.fusion.consents import Consent
    from facetmesh.fusion.line import Ticket
    from facetmesh.fusion.marker import Facts
    from facetmesh.fusion.operations import Operation
    from facetmesh.fusion.pipeline.rendering import Rendering

MODEL = "tenants/acme/models/faces"
NOBODY = Caller()
SMALL, LARGE = Face((0, 0, 10, 10)), Face((20, 0, 60, 50))
TURNED = Face((70, 0, 90, 20))
REFUSED = {TURNED: "FACE_PROFILE"}
"""What the pipeline does not fuse, and why."""


FACEMESH = Model("facemesh", "ab" * 32, "Apache-2.0")
RESEARCH = "LicenseRef-insightface-non-commercial"
"""What the other backend's models are under."""


@dataclass
class MemoryBlobs:
    """Blobs in a dict."""

    blobs: dict[tuple[str, str], bytes] = field(default_factory=dict)

    async def put(self, tenant: str, key: str, data: bytes) -> None:
        """Stores data."""
        self.blobs[tenant, key] = data

    async def get(self, tenant: str, key: str) -> bytes:
        """The data."""
        try:
            return self.blobs[tenant, key]
        except KeyError:
            raise NotFound("There is no such data.") from None

    async def delete(self, tenant: str, key: str) -> None:
        """Deletes data."""
        self.blobs.pop((tenant, key), None)

    async def delete_all(self, tenant: str) -> None:
        """Deletes all of a tenant's data."""
        self.blobs = {place: data for place, data in self.blobs.items() if place[0] != tenant}


@dataclass
class Script:
    """Detection and the pipeline: does what a test says, in the order it says it."""

    faces: list[Face] = field(default_factory=lambda: [SMALL, LARGE])
    seen: dict[bytes, Sequence[Seen]] = field(default_factory=dict)
    """What else is in an image."""
    moderates: str = MODEL
    """The model that does; none when empty."""
    errors: list[Exception] = field(default_factory=list)
    """Raised by the next calls of the pipeline, one each."""
    found_in: list[tuple[str, str, bytes]] = field(default_factory=list)
    fused: list[tuple[Face, Face]] = field(default_factory=list)
    renderings: list[Rendering] = field(default_factory=list)
    similarities: dict[Face, float] = field(default_factory=dict)
    """How much faces look like the reference's; that of others is not known."""
    compared: list[tuple[bytes, bytes]] = field(default_factory=list)
    taken_for: dict[Face, Guess] = field(default_factory=dict)
    """Who faces may be; who others may be is not known."""
    backend: Backend = Backend.MESH
    """Which it is."""
    copy: bytes = b""
    """A smaller copy of what is made."""
    began: asyncio.Event = field(default_factory=asyncio.Event)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    running: int = 0
    most_running: int = 0

    def __post_init__(self) -> None:
        """Lets the pipeline run through, unless a test says otherwise."""
        self.may_end.set()

    async def find(self, tenant_id: str, model: str, image: bytes, *, version: str = "") -> Found:
        """Finds the faces."""
        assert version in {"", f"{model}/versions/1"}
        self.found_in.append((tenant_id, model, image))
        return Found(self.faces, f"{model}/versions/1", self.seen.get(image, ()))

    async def moderator(self, tenant_id: str) -> Moderator | None:
        """The tenant's model that moderates."""
        return Moderator(self.moderates, f"{self.moderates}/versions/1") if self.moderates else None

    async def fuse(
        self,
        tenant_id: str,
        subject: str,
        source: bytes,
        source_face: Face,
        target: bytes,
        target_faces: Sequence[Face],
        rendering: Rendering,
        *,
        leave_refused: bool,
    ) -> Fused:
        """Fuses."""
        assert subject.startswith("operations/")
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            self.began.set()
            await self.may_end.wait()
            if self.errors:
                raise self.errors.pop(0)
            self.renderings.append(rendering)
            self.fused += [(source_face, face) for face in target_faces]
            refused = [REFUSED.get(face) if leave_refused else None for face in target_faces]
            made = b" ".join([source, b"into", target, b"for", tenant_id.encode()])
            return Fused(made, tuple(refused), self.backend, (FACEMESH,), self.copy)
        finally:
            self.running -= 1

    async def of(self, tenant_id: str, subject: str, image: bytes) -> str:
        """Says how an image looks: by its first word."""
        assert subject
        assert tenant_id
        return sha256(image.split()[0])[:16]

    async def mark(self, tenant_id: str, subject: str, image: bytes, facts: Facts) -> bytes:
        """Marks."""
        assert subject.startswith("operations/")
        assert facts.receipt.startswith(f"tenants/{tenant_id}/receipts/")
        return b" ".join([image, b"marked", facts.receipt.encode()])


@dataclass
class Record:
    """What was said of a piece of work."""

    tenant: str
    subject: str
    id: str
    told: dict[str, object] = field(default_factory=dict)
    error: FacetmeshError | None = None

    @property
    def receipt(self) -> str:
        """Its name."""
        return f"{self.tenant}/receipts/{self.id}"

    def describe(
        self, *, resource: str, model_version: str = "", inputs: Sequence[bytes] = (), output: bytes = b""
    ) -> None:
        """Adds what is known."""
        self.told = {
            "resource": resource, "model_version": model_version, "inputs": list(inputs), "output": output,
        }  # fmt: skip


@dataclass
class Recorder:
    """Keeps what was recorded."""

    records: list[Record] = field(default_factory=list)
    refuses: list[FacetmeshError] = field(default_factory=list)
    """Raised instead of accepting, one each."""

    @asynccontextmanager
    async def record(
        self, *, method: str, tenant: str, subject: str, event_id: str | None = None
    ) -> AsyncIterator[Record]:
        """Records what is done within."""
        assert method == "facetmesh.fusion/fuse"
        record = Record(tenant, subject, event_id or str(len(self.records)))
        try:
            yield record
        except FacetmeshError as error:
            record.error = error
            raise
        finally:
            if self.refuses:
                raise self.refuses.pop(0)
            self.records.append(record)


@dataclass
class Comparing:
    """What tells faces apart."""

    script: Script

    async def similarities(
        self, tenant_id: str, subject: str, reference: bytes, image: bytes, faces: Sequence[Face]
    ) -> Sequence[float | None]:
        """Compares faces."""
        assert (tenant_id, subject.startswith("operations/")) == ("acme", True)
        self.script.compared.append((reference, image))
        return [self.script.similarities.get(face) for face in faces]

    async def guesses(
        self, tenant_id: str, subject: str, image: bytes, faces: Sequence[Face]
    ) -> Sequence[Guess | None]:
        """Guesses at faces."""
        assert (tenant_id, subject.startswith("operations/"), image) == ("acme", True, b"target")
        return [self.script.taken_for.get(face) for face in faces]


class World:
    """The service's domain, put together."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.state = MemoryState()
        self.blobs = MemoryBlobs()
        self.images = Images(self.blobs)
        self.script = Script()
        self.policy: Policy | None = Policy()
        self.recorder = Recorder()
        self.store = DaprStore(self.state)
        self.registry = Registry(self.store, clock)
        self.woken: list[Ticket] = []
        self.consent_store = DaprConsentStore(self.state, Keyring(self.state, bytes(32)))
        self.consents = Consents(self.consent_store, clock)
        self.lookups = Lookups(self.store, self.script)
        self.profile = Profile(plan="free")
        offer: Offer[FaceFuser] = Offer(self.script, "Apache-2.0")
        self.other = Script(backend=Backend.INSIGHTFACE)
        """The other backend, under a licence that not every tenant has."""
        fusers = {Backend.MESH: offer, Backend.INSIGHTFACE: replace(offer, tool=self.other, licence=RESEARCH)}
        matcher: Offer[FaceMatcher] = Offer(Comparing(self.script), RESEARCH)
        self.backends = Backends(fusers, matcher, default=Backend.MESH, profile=self._profile)
        self.fusions = Fusions(self.registry, self.images, self.consents, self.backends, self._wake)
        self.uploads = Uploads(DaprUploadStore(self.state), self.images, clock)
        self.pictures = Pictures(self.uploads, self.fusions)
        self.revocations = Revocations()
        self.link_keys = DaprLinkKeys(self.state, Keyring(self.state, bytes(32)))
        self.links = Links(self.link_keys, self.revocations, clock)
        self.worker = self._worker("w1", self.registry)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns once the condition is true; fails when it does not become so."""
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.001)

    async def _profile(self, _: str) -> Profile:
        return self.profile

    async def _wake(self, ticket: Ticket) -> None:
        self.woken.append(ticket)

    def another_worker(self, owner: str) -> Worker:
        """A worker, as of another replica: it hears no news of this one."""
        return self._worker(owner, Registry(self.registry.store, self.clock))

    def _worker(self, owner: str, registry: Registry) -> Worker:
        accounts = Accounts(self.recorder)
        moderation = Moderation(self.script, lambda _: self.policy)
        stages = Stages(self.script, moderation, self.backends, self.script, self.script)
        checkpoints = Checkpoints(registry, self.images)
        maker = Maker(registry, self.images, checkpoints, self.consents, stages, accounts)
        return Worker(
            owner, registry=registry, images=self.images, checkpoints=checkpoints, maker=maker, accounts=accounts,
            trace=lambda *_: nullcontext(),
        )

    def dispatcher(self, concurrency: int = 2) -> Dispatcher:
        """A dispatcher of the first worker's jobs."""
        return Dispatcher(self.registry, self.worker, Line(lambda _: 1.0), concurrency)

    async def create(
        self, tenant_id: str = "acme", target: bytes = b"target", *, caller: Caller = NOBODY, request_id: str = "",
        **wishes: Any,
    ) -> Operation:
        """Asks for a fusion."""
        if "consent" not in wishes:
            wishes["consent"] = (await self.consent(tenant_id)).name
        wish = Wish(**{"face_model": MODEL, **wishes})
        return await self.fusions.create(tenant_id, b"source", target, wish, caller=caller, request_id=request_id)

    async def consent(self, tenant_id: str = "acme") -> Consent:
        """The consent of whom the source shows, for three of its faces; always the same one."""
        return await self.consents.create(tenant_id, terms(self.clock), "the one of all tests")


def terms(clock: Clock, **changes: Any) -> Terms:
    """What whom the source shows agreed to, for three of its faces, until an hour after the clock's first time."""
    faces = tuple(SourceFace(sha256(b"source"), index) for index in (0, 1, 7))
    agreed: dict[str, Any] = {
        "subject": "Ada", "purpose": "a poster", "faces": faces, "evidence_sha256": sha256(b"signed"),
        "expires_s": type(clock)().now + 3600, **changes,
    }  # fmt: skip
    return Terms(**agreed)


def sha256(data: bytes) -> str:
    """In hex."""
    return hashlib.sha256(data).hexdigest()
