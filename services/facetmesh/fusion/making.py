"""Makes a fusion: what a job's images go through, one stage after the other."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from facetmesh.fusion.checkpoints import Checkpoints, Progress
from facetmesh.fusion.consents import SourceFace
from facetmesh.fusion.faces import Pick, select
from facetmesh.fusion.fuser import MEDIA_TYPE
from facetmesh.fusion.lookups import Imprint
from facetmesh.fusion.marker import Facts
from facetmesh.fusion.matcher import admitted, likest
from facetmesh.fusion.operations import MAX_INTERRUPTIONS, Fusion, LeftFace, Operation, Stage
from facetmesh.fusion.retention import day_of
from facetmesh.kit.errors import Cancelled, FacetmeshError, Unavailable
from facetmesh.kit.eventids import new_event_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facetmesh.fusion.accounting import Accounts
    from facetmesh.fusion.backends import Backends
    from facetmesh.fusion.consents import Consents
    from facetmesh.fusion.faces import Face, FaceFinder, Found
    from facetmesh.fusion.fuser import Fused
    from facetmesh.fusion.images import Images
    from facetmesh.fusion.lookups import Looks
    from facetmesh.fusion.moderation import Moderation
    from facetmesh.fusion.operations import Box
    from facetmesh.fusion.registry import Registry


class ResultMarker(Protocol):
    """Marks results: `marker.Marker`."""

    async def mark(self, tenant_id: str, subject: str, image: bytes, facts: Facts) -> bytes:
        """The file with its manifest."""
        ...


@dataclass(frozen=True, slots=True)
class Stages:
    """What a job's images go through, in this order."""

    finder: FaceFinder
    """Finds faces."""
    moderation: Moderation
    """Refuses what is not to be fused, and what was made."""
    backends: Backends
    """Fuse them."""
    fingerprints: Looks
    """Say how what was made looks."""
    marker: ResultMarker | None
    """Marks what was made; None where results are not marked."""


class Maker:
    """Makes fusions.

    Args:
        registry: The operations.
        images: What goes in and what comes out.
        checkpoints: What earlier attempts have got done.
        consents: Who agreed to what.
        stages: What a job's images go through.
        accounts: Account for what is made.
    """

    def __init__(
        self,
        registry: Registry,
        images: Images,
        checkpoints: Checkpoints,
        consents: Consents,
        stages: Stages,
        accounts: Accounts,
    ) -> None:
        self._registry = registry
        self._clock = registry.clock
        self._images = images
        self._checkpoints = checkpoints
        self._consents = consents
        self._stages = stages
        self._accounts = accounts

    async def make(self, attempt: Operation) -> Fusion:
        """Makes what is asked for, keeps it and has it recorded; what earlier attempts got done is not done again.

        Raises:
            FacetmeshError: Why nothing was made; LEASE_LOST where the job was taken away.
        """
        if attempt.cancelling:
            raise Cancelled("It was cancelled.", reason="OPERATION_CANCELLED")
        if attempt.interruptions > MAX_INTERRUPTIONS:
            raise Unavailable("The work was interrupted too often.", reason="ATTEMPTS_EXHAUSTED")
        await self._check_consent(attempt)
        progress = await self._checkpoints.last(attempt)
        fused = progress.fused if progress is not None else None
        if progress is None or fused is None:
            source, target = await self._images.inputs(attempt)
            if progress is None:
                progress = await self._choose(attempt, source, target)
                await self._checkpoints.keep(attempt, progress)
            fused = await self._fuse(attempt, progress, source, target)
            await self._checkpoints.keep(attempt, replace(progress, fused=fused))
        return await self._finish(attempt, progress, fused)

    async def _choose(self, attempt: Operation, source: bytes, target: bytes) -> Progress:
        """Finds the faces that are meant, in pictures that may be worked on."""
        tenant_id, job = attempt.tenant_id, attempt.job
        await self._stages.backends.check(tenant_id, job.options)
        in_source, in_target = await asyncio.gather(
            self._find(attempt, source, "source"), self._find(attempt, target, "target")
        )
        for which, image, found in (("source", source, in_source), ("target", target, in_target)):
            await self._stages.moderation.check(tenant_id, which, image, found)
        options = job.options
        (source_face,) = select(in_source.faces, job.source_face_index, "source", options.sources)
        faces = in_target.faces
        if options.targets.guessed:
            faces = await self._admitted(attempt, target, faces)
        targets = select(faces, job.target_face_index, "target", options.targets)
        if options.targets.pick is Pick.REFERENCE:
            targets = [await self._resembling(attempt, target, targets)]
        return Progress(source_face, tuple(targets), in_target.model_version)

    async def _fuse(self, attempt: Operation, progress: Progress, source: bytes, target: bytes) -> Fused:
        """Fuses them, into a picture that may be shown."""
        options = attempt.job.options
        fuser = await self._stages.backends.fuser(attempt.tenant_id, options.backend)
        fused = await fuser.fuse(
            attempt.tenant_id, _subject(attempt), source, progress.source, target, progress.targets, options.rendering,
            leave_refused=options.targets.pick is Pick.ALL,
        )
        await self._stages.moderation.check(attempt.tenant_id, "result", fused.shown)
        return fused

    async def _finish(self, attempt: Operation, progress: Progress, fused: Fused) -> Fusion:
        """Marks what was made, keeps it and has it recorded: in a retry under another receipt."""
        tenant_id, job, subject = attempt.tenant_id, attempt.job, _subject(attempt)
        image, event_id = fused.image, new_event_id()
        if (marker := self._stages.marker) is not None:
            facts = Facts(f"tenants/{tenant_id}/receipts/{event_id}", job.source_sha256, job.target_sha256)
            image = await marker.mark(tenant_id, subject, image, facts)
        # From here on it cannot be cancelled: what the log says was made is what there is.
        await self._advance(attempt, Stage.STORING)
        await self._check_consent(attempt)  # it may have been revoked meanwhile
        await self._registry.store.note_result(attempt.ref, day_of(self._clock()))
        await self._images.put_result(attempt, image)
        digest = hashlib.sha256(image)
        fingerprint = await self._stages.fingerprints.of(tenant_id, subject, image)
        await self._registry.store.imprint(tenant_id, Imprint(attempt.id, digest.hexdigest(), fingerprint))
        receipt = await self._accounts.made(
            attempt, model_version=progress.model_version, output=digest.digest(), event_id=event_id
        )
        replaced, left = _sorted_out(progress.targets, fused)
        return Fusion(
            progress.source.box, replaced[0], MEDIA_TYPE, len(image), digest.hexdigest(), receipt, replaced[1:], left,
            fused.backend, fused.models,
        )

    async def _resembling(self, attempt: Operation, target: bytes, faces: Sequence[Face]) -> Face:
        matcher = await self._stages.backends.matcher(attempt.tenant_id)
        reference = await self._images.reference(attempt)
        similarities = await matcher.similarities(attempt.tenant_id, _subject(attempt), reference, target, faces)
        return likest(faces, similarities, attempt.job.options.targets.min_similarity)

    async def _admitted(self, attempt: Operation, target: bytes, faces: Sequence[Face]) -> Sequence[Face]:
        matcher = await self._stages.backends.matcher(attempt.tenant_id)
        guesses = await matcher.guesses(attempt.tenant_id, _subject(attempt), target, faces)
        return admitted(faces, guesses, attempt.job.options.targets)

    async def _check_consent(self, attempt: Operation) -> None:
        job = attempt.job
        await self._consents.check(
            attempt.tenant_id, job.consent, SourceFace(job.source_sha256, job.source_face_index)
        )

    async def _find(self, attempt: Operation, image: bytes, which: str) -> Found:
        try:
            return await self._stages.finder.find(attempt.tenant_id, attempt.job.face_model, image)
        except FacetmeshError as error:
            raise type(error)(
                f"Finding faces in the {which} image: {error.message}",
                reason=error.reason, metadata={**error.metadata, "image": which}, retry_after_s=error.retry_after_s,
            ) from error

    async def _advance(self, attempt: Operation, stage: Stage) -> None:
        await self._registry.change(attempt.ref, lambda found: found.advance(attempt, self._clock(), stage))


def _subject(attempt: Operation) -> str:
    """What deaths of runners are held against: this attempt, for the record counts those of the job."""
    return f"operations/{attempt.id}/{attempt.attempts}"


def _sorted_out(targets: Sequence[Face], fused: Fused) -> tuple[tuple[Box, ...], tuple[LeftFace, ...]]:
    """Where the face was put, and which faces were left."""
    told = list(zip(targets, fused.refused, strict=True))
    return (
        tuple(face.box for face, reason in told if reason is None),
        tuple(LeftFace(face.box, reason) for face, reason in told if reason is not None),
    )
