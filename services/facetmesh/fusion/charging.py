"""Work is charged to the tenant it was done for, and to the key whose call asked for it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from facetmesh.fusion.backends import FaceFuser, FaceMatcher
    from facetmesh.fusion.faces import Face, Guess
    from facetmesh.fusion.fuser import Fused
    from facetmesh.fusion.pipeline.rendering import Rendering
    from facetmesh.kit.profiles import Charges

_charged: ContextVar[str] = ContextVar("charged", default="services/fusion")


def charged() -> str:
    """The subject on whose behalf the current context works."""
    return _charged.get()


@contextmanager
def charged_to(subject: str) -> Iterator[None]:
    """What is done within, is done on behalf of this subject."""
    token = _charged.set(subject)
    try:
        yield
    finally:
        _charged.reset(token)


class Meter:
    """Charges the time that work takes. The images were charged where their faces were found.

    Args:
        charges: Who counts.
        clock: Seconds that never go back.
    """

    def __init__(self, charges: Charges, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._charges = charges
        self._clock = clock

    @contextmanager
    def running(self, tenant_id: str) -> Iterator[None]:
        """What is done within is charged to a tenant, however it ends."""
        began = self._clock()
        try:
            yield
        finally:
            self._charges.charge(f"tenants/{tenant_id}", charged(), compute_s=self._clock() - began)


class ChargedFuser:
    """Fuses faces, and charges for it.

    Args:
        fuser: Fuses them.
        meter: Charges.
    """

    def __init__(self, fuser: FaceFuser, meter: Meter) -> None:
        self._fuser = fuser
        self._meter = meter

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
        """The target with the source's face; raises what the fuser does."""
        with self._meter.running(tenant_id):
            return await self._fuser.fuse(
                tenant_id, subject, source, source_face, target, target_faces, rendering, leave_refused=leave_refused
            )


class ChargedMatcher:
    """Tells faces apart, and charges for it.

    Args:
        matcher: Tells them apart.
        meter: Charges.
    """

    def __init__(self, matcher: FaceMatcher, meter: Meter) -> None:
        self._matcher = matcher
        self._meter = meter

    async def similarities(
        self, tenant_id: str, subject: str, reference: bytes, image: bytes, faces: Sequence[Face]
    ) -> Sequence[float | None]:
        """How much faces look like that of a reference; raises what the matcher does."""
        with self._meter.running(tenant_id):
            return await self._matcher.similarities(tenant_id, subject, reference, image, faces)

    async def guesses(
        self, tenant_id: str, subject: str, image: bytes, faces: Sequence[Face]
    ) -> Sequence[Guess | None]:
        """Each face's sex and age, as the model guesses them; raises what the matcher does."""
        with self._meter.running(tenant_id):
            return await self._matcher.guesses(tenant_id, subject, image, faces)
