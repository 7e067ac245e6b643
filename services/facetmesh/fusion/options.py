"""What a request may choose: which faces, and how they are put in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from facetmesh.fusion.backends import Backend
from facetmesh.fusion.faces import PLAIN as ANY
from facetmesh.fusion.faces import Pick, Selection
from facetmesh.fusion.pipeline.rendering import PLAIN as USUAL
from facetmesh.fusion.pipeline.rendering import Rendering

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Options:
    """What a request chose."""

    sole_source: bool = False
    """Whether the source must show one face only."""
    targets: Selection = ANY
    """Which of the target's faces are replaced."""
    rendering: Rendering = USUAL
    """How."""
    backend: Backend | None = None
    """By what; None for the operator's choice."""

    @property
    def sources(self) -> Selection:
        """Which of the source's faces is taken."""
        return Selection(Pick.SOLE if self.sole_source else Pick.INDEX)

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Options:
        """From its fields as JSON has them."""
        backend = fields.get("backend")  # records of before there was a choice have none
        return cls(
            fields["sole_source"], Selection.of(fields["targets"]), Rendering.of(fields["rendering"]),
            None if backend is None else Backend(backend),
        )


PLAIN = Options()
"""What a request gets that chooses nothing."""
