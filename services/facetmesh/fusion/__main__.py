"""Runs the fusion service."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from facetmesh.fusion.accounting import Accounts
from facetmesh.fusion.backends import Backend, Backends, FaceFuser, FaceMatcher, Offer
from facetmesh.fusion.backlog import Backlog
from facetmesh.fusion.charging import ChargedFuser, ChargedMatcher, Meter
from facetmesh.fusion.checkpoints import Checkpoints
from facetmesh.fusion.consent_servicer import ConsentServicer
from facetmesh.fusion.consent_store import DaprConsentStore
from facetmesh.fusion.consents import Consents
from facetmesh.fusion.detection import DetectionFaces
from facetmesh.fusion.dispatcher import Dispatcher
from facetmesh.fusion.events import TOPIC, JobEvents
from facetmesh.fusion.fuser import Fuser
from facetmesh.fusion.fusions import Fusions
from facetmesh.fusion.image_servicer import ImageServicer
from facetmesh.fusion.images import Images
from facetmesh.fusion.line import Line
from facetmesh.fusion.link_keys import DaprLinkKeys
from facetmesh.fusion.links import Links
from facetmesh.fusion.lookups import Fingerprints, Lookups
from facetmesh.fusion.making import Maker, Stages
from facetmesh.fusion.marker import Marker
from facetmesh.fusion.matcher import Matcher
from facetmesh.fusion.metrics import BacklogMetrics
from facetmesh.fusion.moderation import LABELS, Moderation, Policy
from facetmesh.fusion.pictures import Pictures
from facetmesh.fusion.purge import purge
from facetmesh.fusion.registry import Registry
from facetmesh.fusion.retention import Sweeper, Terms
from facetmesh.fusion.scaler_servicer import scaling
from facetmesh.fusion.servicer import FusionServicer
from facetmesh.fusion.store import DaprStore
from facetmesh.fusion.upload_store import DaprUploadStore
from facetmesh.fusion.uploads import Uploads
from facetmesh.fusion.v1 import consent_pb2_grpc, fusion_pb2_grpc, image_pb2_grpc
from facetmesh.fusion.weights import GUESSING, MATCHING, NON_COMMERCIAL, SWAPPING, CatalogWeights, InsightFaceWeights
from facetmesh.fusion.worker import Worker
from facetmesh.kit import catalog, credentials, telemetry
from facetmesh.kit.blobs import Blobs, open_store
from facetmesh.kit.serve import open_mesh, run
from facetmesh.kit.settings import MEBIBYTE, Port, ServiceSettings, load
from facetmesh.kit.sweeping import keep_sweeping
from facetmesh.kit.tls import listen
from facetmesh.runners.pool import RunnerPool
from facetmesh.runners.probe import probe
from facetmesh.runners.settings import PoolLimits, RunnerLimits

if TYPE_CHECKING:
    import grpc

    from facetmesh.kit.leases import Leases
    from facetmesh.kit.profiles import Profile
    from facetmesh.kit.serve import Mesh

_log = logging.getLogger(__name__)


class FusionSettings(ServiceSettings):
    """What fusion is told from outside."""

    service: ClassVar[str] = "fusion"
    enforces_limits: ClassVar[bool] = True
    # Two images of 20 MB, and what is said of them.
    max_request_bytes: ClassVar[int] = 41 * MEBIBYTE

    detection_address: str = "127.0.0.1:7402"
    """host:port of the detection service."""
    blobs: str = ""
    """Where images are kept: a folder or a URL such as s3://bucket/prefix; a folder below home when empty."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Jobs at a time; 0 where other replicas do them."""
    scaler_host: str = "127.0.0.1"
    """The address on which KEDA asks how much work there is: one that few others reach. Encrypted as others are."""
    scaler_port: Port = 0
    """Its port; 0 asks the system."""
    runners: Annotated[int, Field(ge=1)] = 4
    """Runner processes at a time; each tenant that fuses has one."""
    runner_idle_s: Annotated[float, Field(gt=0)] = 300.0
    """A runner unused for so long is stopped, in seconds."""
    runner_deaths: Annotated[int, Field(ge=1)] = 3
    """A tenant whose work ends its runner so often within a minute has to wait for a while."""
    runner_memory_bytes: Annotated[int, Field(ge=256 * MEBIBYTE)] = 4096 * MEBIBYTE
    """Private memory that one runner may use."""
    result_days: Annotated[int, Field(ge=0, le=36_500)] = 30
    """For how many days results are kept where the tenant says nothing; for ever when 0."""
    tenant_result_days: dict[str, Annotated[int, Field(ge=0, le=36_500)]] = Field(default_factory=dict)
    """For how many days the results of single tenants are kept, in place of that, by the tenant's id."""
    provenance: bool = True
    """Whether results carry a signed C2PA manifest that says that a model made them."""
    tenant_credentials: frozenset[str] = frozenset()
    """The tenants, by id, whose manifests the secret provenance-credential-TENANT signs, and not the common one."""
    visible_label: Annotated[str, Field(pattern="^[ -~]{0,60}$")] = ""
    """Words that are put into the corner of each result; none when empty. Results without a manifest have none."""
    tenant_visible_label: dict[str, Annotated[str, Field(pattern="^[ -~]{0,60}$")]] = Field(default_factory=dict)
    """The same for single tenants, by their ids."""
    moderation: Literal["required", "available", "off"] = "required"
    """Whether pictures are moderated, before the work and after: "available" is where the tenant has a model for it."""
    tenant_moderation: dict[str, Literal["required", "available", "off"]] = Field(default_factory=dict)
    """The same for single tenants, by their ids."""
    moderation_labels: frozenset[str] = LABELS
    """What is refused."""
    moderation_min_confidence: Annotated[float, Field(ge=0.25, le=1)] = 0.4
    """How sure the model has to be; below 0.25 it is not asked."""
    backend: Literal["mesh", "insightface"] = "mesh"
    """What fuses where a request does not choose."""
    insightface_models: str = ""
    """The folder with InsightFace's weights: buffalo_l/ and inswapper_128.onnx. Not on offer when empty."""
    insightface_licence: Annotated[str, Field(min_length=1, max_length=128)] = NON_COMMERCIAL
    """The licence under which the operator has them, by SPDX: a tenant's own must allow it."""
    consent_required: bool = True
    """Whether a fusion must name the consent of whose face is taken. Turn it off only where no real person is shown."""

    @property
    def models_folders(self) -> list[Path]:
        """Where the pipeline's models are: the catalogue's and, where the operator has them, InsightFace's."""
        theirs = [Path(self.insightface_models).resolve()] if self.insightface_models else []
        return [catalog.models_folder(), *theirs]

    def days_of(self, tenant_id: str) -> int:
        """For how many days a tenant's results are kept; for ever when 0."""
        return self.tenant_result_days.get(tenant_id, self.result_days)

    def label(self, tenant_id: str) -> str:
        """The words in the corner of a tenant's results."""
        return self.tenant_visible_label.get(tenant_id, self.visible_label)

    def moderation_policy(self, tenant_id: str) -> Policy | None:
        """What a tenant's pictures have to pass; None for nothing."""
        mode = self.tenant_moderation.get(tenant_id, self.moderation)
        if mode == "off":
            return None
        return Policy(mode == "required", self.moderation_labels, self.moderation_min_confidence)


def _backends(settings: FusionSettings, pool: RunnerPool, leases: Leases) -> Backends:
    """What fuses here, and for whom."""
    meter, landmarks = Meter(leases), CatalogWeights()
    fusers: dict[Backend, Offer[FaceFuser]] = {
        Backend.MESH: Offer(ChargedFuser(Fuser(pool, landmarks.files), meter), landmarks.licence)
    }
    matcher: Offer[FaceMatcher] | None = None
    if settings.insightface_models:
        folder, licence = settings.models_folders[-1], settings.insightface_licence
        matching, guessing, swapping = (
            InsightFaceWeights(folder, names, licence).files for names in (MATCHING, GUESSING, SWAPPING)
        )
        theirs = Fuser(pool, lambda: [*landmarks.files(), *swapping()], Backend.INSIGHTFACE)
        fusers[Backend.INSIGHTFACE] = Offer(ChargedFuser(theirs, meter), licence)
        matcher = Offer(ChargedMatcher(Matcher(pool, matching, guessing), meter), licence)

    async def profile(tenant_id: str) -> Profile:
        # A worker has heard nothing of tenants for which nobody calls.
        await leases.introduce(f"tenants/{tenant_id}", "")
        return leases.profile(f"tenants/{tenant_id}")

    return Backends(fusers, matcher, default=Backend(settings.backend), profile=profile)


async def main() -> None:
    """Builds the service and serves it."""
    settings = load(FusionSettings)
    async with open_mesh(settings) as mesh, contextlib.AsyncExitStack() as stack:
        setting = (await asyncio.to_thread(probe, catalog.cache_folder())).chosen()
        limits = PoolLimits(
            runners=settings.runners,
            idle_s=settings.runner_idle_s,
            deaths=settings.runner_deaths,
            runner=RunnerLimits(memory_bytes=settings.runner_memory_bytes),
        )
        pool = await stack.enter_async_context(
            RunnerPool(
                "facetmesh.fusion.program",
                setting=setting,
                limits=limits,
                readable=settings.models_folders,
            )
        )
        finder = DetectionFaces(settings.detection_address, settings.tls, mesh.auth.token, mesh.auth.forget)
        stack.push_async_callback(finder.close)
        state = mesh.dapr.state()
        keyring = await mesh.keyring()
        blobs = Blobs(open_store(settings.blobs or str(settings.home / "blobs")), keyring)
        store = DaprStore(state)
        consent_store = DaprConsentStore(state, keyring)
        upload_store, link_keys = DaprUploadStore(state), DaprLinkKeys(state, keyring)
        consents = Consents(consent_store, settings.now, required=settings.consent_required)
        mesh.purge = functools.partial(purge, store, blobs, [consent_store, upload_store, link_keys])
        registry = Registry(store, settings.now)
        backends = _backends(settings, pool, mesh.leases)
        fingerprints = Fingerprints(pool)
        marker = await _marker(settings, mesh, pool)
        images, accounts = Images(blobs), Accounts(mesh.recorder)
        checkpoints = Checkpoints(registry, images)
        stages = Stages(finder, Moderation(finder, settings.moderation_policy), backends, fingerprints, marker)
        worker = Worker(
            secrets.token_hex(8),
            registry=registry,
            images=images,
            checkpoints=checkpoints,
            maker=Maker(registry, images, checkpoints, consents, stages, accounts),
            accounts=accounts,
            trace=telemetry.continued,
        )
        backlog = Backlog(settings.now)
        mesh.telemetry.metrics.registry.register(BacklogMetrics(backlog))
        line = Line(lambda tenant_id: mesh.leases.profile(f"tenants/{tenant_id}").weight)
        dispatcher = Dispatcher(registry, worker, line, settings.workers, backlog.see)
        events = JobEvents(mesh.dapr.publisher(), dispatcher.wake, registry.get)
        fusions = Fusions(registry, images, consents, backends, events.announce)
        uploads = Uploads(upload_store, images, settings.now)
        servicer = FusionServicer(
            fusions, Pictures(uploads, fusions), Links(link_keys, mesh.revocations, settings.now),
            Lookups(store, fingerprints), dispatcher.standing,
        )  # fmt: skip
        consent_servicer = ConsentServicer(consents, settings.now)
        image_servicer = ImageServicer(uploads)

        def add(server: grpc.aio.Server) -> None:
            fusion_pb2_grpc.add_FusionServiceServicer_to_server(servicer, server)
            consent_pb2_grpc.add_ConsentServiceServicer_to_server(consent_servicer, server)
            image_pb2_grpc.add_ImageServiceServicer_to_server(image_servicer, server)

        for_keda = functools.partial(
            listen, host=settings.scaler_host, port=settings.scaler_port, files=settings.tls,
            plaintext=settings.allow_plaintext,
        )  # fmt: skip
        scaler_port = await stack.enter_async_context(scaling(backlog, for_keda))
        _log.info("serving KEDA", extra={"scaler_port": scaler_port})
        sweeper = Sweeper(store, images, Terms(mesh.leases, settings.days_of).days, settings.now)
        tasks = [asyncio.create_task(one) for one in (dispatcher.run(), keep_sweeping(sweeper.sweep, uploads.sweep))]
        try:
            await mesh.serve(
                add,
                services=[f"facetmesh.fusion.v1.{name}Service" for name in ("Fusion", "Consent", "Image")],
                ready={},
                handlers={TOPIC: events.handle},
            )
        finally:
            for task in tasks:
                task.cancel()
            await dispatcher.close(settings.drain_s)


async def _marker(settings: FusionSettings, mesh: Mesh, pool: RunnerPool) -> Marker | None:
    """Marks results with the tenants' credentials; None where results are not marked."""
    if not settings.provenance:
        return None
    read = mesh.dapr.secrets().get
    names = {tenant_id: f"{credentials.SECRET}-{tenant_id}" for tenant_id in settings.tenant_credentials}
    common = credentials.Credential.read(await read(credentials.SECRET))
    own = {tenant_id: credentials.Credential.read(await read(name)) for tenant_id, name in names.items()}
    return Marker(pool, lambda tenant_id: own.get(tenant_id, common), settings.label)


if __name__ == "__main__":
    run(main)
