"""Moderation: pictures that are not to be worked on, and results that are not to leave.

What finds such content is a model of the catalogue that the operator trusts, served by detection to the tenant like any
other: under a licence that the tenant accepted. An upload of the tenant's own does not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    from facetmesh.fusion.faces import Found

CATALOG_IDS = frozenset({"nudenet-320n"})
"""The catalogue's models that moderate."""
LABELS = frozenset({
    "ANUS_EXPOSED", "BUTTOCKS_EXPOSED", "FEMALE_BREAST_EXPOSED", "FEMALE_GENITALIA_EXPOSED", "MALE_GENITALIA_EXPOSED",
})  # fmt: skip
"""What is refused, in NudeNet's words."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What an operator asks for."""

    required: bool = True
    """Whether nothing is fused where no model moderates."""
    labels: frozenset[str] = LABELS
    """What is refused."""
    min_confidence: float = 0.4
    """How sure the model has to be, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Moderator:
    """A version of a tenant's model that moderates."""

    model: str
    """tenants/{tenant}/models/{model}."""
    version: str
    """tenants/{tenant}/models/{model}/versions/{version}."""


class Inspector(Protocol):
    """Looks at pictures: `detection.DetectionFaces`."""

    async def moderator(self, tenant_id: str) -> Moderator | None:
        """The tenant's model that moderates; None when it has none."""
        ...

    async def find(self, tenant_id: str, model: str, image: bytes, *, version: str = "") -> Found:
        """What a model of the tenant's finds in an image."""
        ...


class Moderation:
    """Refuses pictures.

    Args:
        inspector: Looks at them.
        policy: What the operator asks for of a tenant, by its id; None for nothing.
    """

    def __init__(self, inspector: Inspector, policy: Callable[[str], Policy | None]) -> None:
        self._inspector = inspector
        self._policy = policy

    async def check(self, tenant_id: str, which: str, image: bytes, found: Found | None = None) -> None:
        """Returns when a picture may be worked on, or leave.

        Args:
            tenant_id: Whose it is.
            which: What to call it in a refusal: source, target or result.
            image: The picture.
            found: What some model has found in it already; it counts where that was the one that moderates.

        Raises:
            FailedPrecondition: MODERATION_MISSING: the tenant has no model that moderates.
            InvalidArgument: CONTENT_REFUSED.
            Unavailable: Detection does not answer.
        """
        if (policy := self._policy(tenant_id)) is None:
            return
        if (moderator := await self._inspector.moderator(tenant_id)) is None:
            if policy.required:
                raise FailedPrecondition(
                    f"Nothing is fused unmoderated: add the catalogue's {', '.join(sorted(CATALOG_IDS))}.",
                    reason="MODERATION_MISSING",
                )
            return
        if found is None or found.model_version != moderator.version:
            found = await self._inspector.find(tenant_id, moderator.model, image, version=moderator.version)
        refused = {one.label for one in found.seen if one.confidence >= policy.min_confidence} & policy.labels
        if refused:
            raise InvalidArgument(
                f"The {which} image shows what is not to be fused.", reason="CONTENT_REFUSED",
                metadata={"image": which, "labels": ",".join(sorted(refused))},
            )
