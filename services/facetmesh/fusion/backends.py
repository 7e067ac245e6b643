"""What faces are fused by, and for whom: backends, whose models may be under licences that not every tenant has."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from facetmesh.fusion.faces import Pick
from facetmesh.kit import licences
from facetmesh.kit.errors import FailedPrecondition, PermissionDenied, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from facetmesh.fusion.faces import Face, Guess
    from facetmesh.fusion.fuser import Fused
    from facetmesh.fusion.options import Options
    from facetmesh.fusion.pipeline.rendering import Rendering
    from facetmesh.kit.profiles import Profile

T = TypeVar("T")


class Backend(StrEnum):
    """What puts one face into another."""

    MESH = "mesh"
    """FaceMesh's points and a warp."""
    INSIGHTFACE = "insightface"
    """InsightFace's embedding and its swapper, where the operator has their weights."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that had a part in a fusion."""

    name: str
    """What it is called: the catalogue's id, or its path in the operator's folder."""
    sha256: str
    """Of its file, in hex."""
    licence: str
    """An SPDX expression."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """Such a model, where it lies."""

    model: Model
    path: Path


class FaceFuser(Protocol):
    """Fuses faces: `fuser.Fuser`."""

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
        """The target with the source's face."""
        ...


class FaceMatcher(Protocol):
    """Says whom faces look like, and who they may be: `matcher.Matcher`."""

    async def similarities(
        self, tenant_id: str, subject: str, reference: bytes, image: bytes, faces: Sequence[Face]
    ) -> Sequence[float | None]:
        """The cosine of each face's embedding and the reference's, -1 to 1; None where a face is none to the model."""
        ...

    async def guesses(
        self, tenant_id: str, subject: str, image: bytes, faces: Sequence[Face]
    ) -> Sequence[Guess | None]:
        """Each face's sex and age, as the model guesses them; None where a face is none to it."""
        ...


@dataclass(frozen=True, slots=True)
class Offer(Generic[T]):
    """What the operator offers, and under which licence."""

    tool: T
    licence: str
    """An SPDX expression: of the weights that it works with."""


class Backends:
    """The backends of this installation.

    Args:
        fusers: What fuses, by backend.
        matcher: What tells faces apart; None where no model for it is here.
        default: What fuses where a request does not choose.
        profile: What is known of a tenant, by its id.
    """

    def __init__(
        self,
        fusers: Mapping[Backend, Offer[FaceFuser]],
        matcher: Offer[FaceMatcher] | None,
        *,
        default: Backend,
        profile: Callable[[str], Awaitable[Profile]],
    ) -> None:
        self._fusers = fusers
        self._matcher = matcher
        self._default = default
        self._profile = profile

    async def check(self, tenant_id: str, options: Options) -> None:
        """Returns when a tenant may have what a request chose; raises as `fuser` and `matcher` do."""
        await self.fuser(tenant_id, options.backend)
        if options.targets.pick is Pick.REFERENCE or options.targets.guessed:
            await self.matcher(tenant_id)

    async def fuser(self, tenant_id: str, asked: Backend | None) -> FaceFuser:
        """What fuses for a tenant.

        Raises:
            FailedPrecondition: BACKEND_MISSING: it is not on offer here.
            PermissionDenied: LICENCE_NOT_ALLOWED.
            Unavailable: TENANT_UNKNOWN: what the tenant may have is not known now.
        """
        backend = asked or self._default
        return await self._allowed(tenant_id, self._fusers.get(backend), f"the backend {backend}")

    async def matcher(self, tenant_id: str) -> FaceMatcher:
        """What tells faces apart for a tenant; raises as `fuser` does."""
        return await self._allowed(tenant_id, self._matcher, "a model that tells faces apart")

    async def _allowed(self, tenant_id: str, offer: Offer[T] | None, what: str) -> T:
        if offer is None:
            raise FailedPrecondition(
                f"This installation does not offer {what}: its operator can, with facetmesh[insightface] and weights.",
                reason="BACKEND_MISSING",
            )
        if licences.classify(offer.licence) != "permissive":  # those ask for nothing
            profile = await self._profile(tenant_id)
            try:
                licences.check(offer.licence, profile.licence_classes, profile.licences)
            except PermissionDenied:
                if profile.plan:
                    raise
                # It may have it: nothing was heard of it since the start.
                raise Unavailable(
                    "Which licences the tenant may have is not known now.", reason="TENANT_UNKNOWN", retry_after_s=1
                ) from None
        return offer.tool
