"""A version of 8 bits made of one of 32: smaller and faster, and as good, or it is refused.

Of the tenant's images every other one serves to find the ranges of the numbers
within the model (post-training quantization, Jacob et al., 2018); in the rest,
which the model of 8 bits has not been fitted to, it must see what the original sees.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from facetmesh.detection import agreement
from facetmesh.detection.hints import Hints
from facetmesh.detection.intake import write
from facetmesh.detection.versions import Quantization
from facetmesh.detection.workshop import UPLOAD
from facetmesh.kit.errors import FailedPrecondition, InvalidArgument, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from facetmesh.detection.intake import Intake, PolicyStore
    from facetmesh.detection.models import Models
    from facetmesh.detection.shelf import Shelf
    from facetmesh.detection.versions import Version
    from facetmesh.detection.workshop import Works

MIN_IMAGES = 20
"""Different ones."""
MIN_AGREEMENT = 0.9
"""The F1 score below which a version is refused, if nothing is asked."""
ENOUGH = 10
"""So many objects the original must see for a figure to mean something; a class with fewer is not judged by itself."""
_RETRY_S = 30.0
_NAMED = 10


class Quantizer:
    """Makes versions of 8 bits.

    Args:
        models: The tenants' models.
        intake: Takes what was made.
        shelf: Where versions' files are.
        workshop: Where the work is done.
        policies: What tenants ask of models.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        models: Models,
        intake: Intake,
        shelf: Shelf,
        *,
        workshop: Works,
        policies: PolicyStore,
        clock: Callable[[], float],
    ) -> None:
        self._models = models
        self._intake = intake
        self._shelf = shelf
        self._workshop = workshop
        self._policies = policies
        self._clock = clock
        self._busy: set[str] = set()

    async def quantize(
        self, version: Version, images: Sequence[bytes], min_agreement: float = MIN_AGREEMENT
    ) -> Version:
        """Makes a version of 8 bits; it answers nobody until it is named, like any new one.

        Args:
            version: The original.
            images: JPEG, PNG or WebP files such as the model will see.
            min_agreement: The least F1 score, 0 to 1, of what it sees against what
                the original sees: of all objects, and of each class with `ENOUGH`.

        Returns:
            The new version; the model's newest, if that was made of the same.

        Raises:
            InvalidArgument: TOO_FEW_IMAGES, or one is refused (`runners.images`).
            FailedPrecondition: QUANTIZATION_UNSUPPORTED: the original is no ONNX file, or was quantized already;
                QUANTIZATION_UNMEASURED: the original sees too little in the images; QUANTIZATION_INACCURATE: below
                `min_agreement`, with the figures; SIGNATURE_REQUIRED; as `Workshop.quantize` and `inspect` do.
            PermissionDenied: LICENCE_NOT_ALLOWED, MODEL_NOT_ALLOWED.
            ResourceExhausted: QUANTIZATION_RUNNING: one at a time for each tenant; the tenant may not have more.
        """
        if version.tenant_id in self._busy:
            raise ResourceExhausted(
                "Another model of the tenant's is being quantized.", reason="QUANTIZATION_RUNNING",
                retry_after_s=_RETRY_S,
            )  # fmt: skip
        self._busy.add(version.tenant_id)
        try:
            return await self._quantize(version, images, min_agreement)
        finally:
            self._busy.discard(version.tenant_id)

    async def _quantize(self, version: Version, images: Sequence[bytes], min_agreement: float) -> Version:
        self._intake.check_allowed(version.tenant_id, version.model_id, version.licence)
        if not version.signing_key_id:
            (await self._policies.policy(version.tenant_id)).signer(version.sha256, b"")
        original = await self._shelf.path(version)
        if original.suffix != ".onnx" or version.quantization is not None:
            raise FailedPrecondition(
                "Only ONNX models that have not been quantized yet can be.", reason="QUANTIZATION_UNSUPPORTED"
            )
        images, images_sha256 = await asyncio.to_thread(_different, images)
        if len(images) < MIN_IMAGES:
            raise InvalidArgument(
                f"images: {len(images)} different ones came; at least {MIN_IMAGES} are needed.",
                reason="TOO_FEW_IMAGES",
            )
        if (newest := await self._made_of(version, images_sha256, min_agreement)) is not None:
            return newest
        calibration, rest = images[::2], images[1::2]
        facts = version.facts
        hints = Hints(facts.labels, facts.task, facts.height, facts.width)
        with tempfile.TemporaryDirectory(prefix=UPLOAD, dir=self._shelf.folder) as folder:
            source, path = Path(folder) / "source.onnx", Path(folder) / "model.onnx"
            await asyncio.to_thread(shutil.copyfile, original, source)
            data = await self._workshop.quantize(source, version.sha256, hints, calibration)
            sha256 = await asyncio.to_thread(write, path, data)
            checked = await self._workshop.inspect(path, sha256, hints)
            seen = await self._workshop.detect(source, version.sha256, hints, rest)
            seen_now = await self._workshop.detect(path, sha256, hints, rest)
            quantization = Quantization(
                version.number, len(calibration), len(rest), images_sha256,
                agreement.by_class(zip(seen, seen_now, strict=True)),
            )  # fmt: skip
            check(quantization, min_agreement)
            fresh = replace(
                version, number=0, sha256=sha256, size_bytes=len(data), facts=checked, created_s=self._clock(),
                catalog_id="", blob="", parts=0, source_sha256=version.source_sha256 or version.sha256,
                quantization=quantization,
            )  # fmt: skip
            return await self._intake.keep(fresh, path)

    async def _made_of(self, version: Version, images_sha256: str, min_agreement: float) -> Version | None:
        """The model's newest version, if it was made of the same: a repeated call costs nothing."""
        model = await self._models.get(version.tenant_id, version.model_id)
        newest = await self._models.version(version.tenant_id, version.model_id, model.versions[-1])
        made = newest.quantization
        if made is None or (made.source, made.images_sha256) != (version.number, images_sha256):
            return None
        check(made, min_agreement)
        return newest


def check(quantization: Quantization, min_agreement: float) -> None:
    """Refuses what sees too little of what the original sees.

    Args:
        quantization: What was measured.
        min_agreement: The least F1 score, of all objects and of each class with `ENOUGH`.

    Raises:
        FailedPrecondition: QUANTIZATION_UNMEASURED, QUANTIZATION_INACCURATE.
    """
    total = quantization.total
    if total.reference < ENOUGH:
        raise FailedPrecondition(
            f"The original sees {total.reference} objects in the {quantization.measured} images kept for "
            f"measuring; at least {ENOUGH} are needed to compare.",
            reason="QUANTIZATION_UNMEASURED",
        )
    judged = [total, *(one for one in quantization.classes if one.reference >= ENOUGH)]
    below = sorted((one for one in judged if one.f1 < min_agreement), key=lambda one: one.f1)
    if below:
        figures = ", ".join(f"{one.label} {one.f1:.3f} ({one.matched} of {one.reference})" for one in below[:_NAMED])
        raise FailedPrecondition(
            f"With 8 bits the model does not see what the original sees: an agreement of {min_agreement:.3f} (F1 at "
            f"an intersection over union of {agreement.IOU}) is asked; measured were {figures}.",
            reason="QUANTIZATION_INACCURATE",
            metadata={"agreement": f"{total.f1:.4f}", "min_agreement": f"{min_agreement:.4f}"},
        )


def _different(images: Sequence[bytes]) -> tuple[list[bytes], str]:
    """The images without repetitions, and the SHA-256 of their sorted digests, in hex."""
    by_digest = {hashlib.sha256(data).digest(): data for data in images}
    return list(by_digest.values()), hashlib.sha256(b"".join(sorted(by_digest))).hexdigest()
