"""What attempts have got done is kept, so that the next one goes on after the last stage that was finished.

It lies in the blob store beside the job's inputs, encrypted under the tenant's key
as they are, and goes with them when the job ends. The operation's record says
which attempt kept what: what another keeps that has lost its lease is never used.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from facetmesh.fusion.backends import Backend, Model
from facetmesh.fusion.faces import Face
from facetmesh.fusion.fuser import Fused
from facetmesh.fusion.operations import Checkpoint, Stage
from facetmesh.kit.errors import NotFound

if TYPE_CHECKING:
    from facetmesh.fusion.images import Images
    from facetmesh.fusion.operations import Operation
    from facetmesh.fusion.registry import Registry

_LENGTH_BYTES = 4
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """What has been made of a job so far."""

    source: Face
    """Whose face is taken."""
    targets: tuple[Face, ...]
    """Which faces are replaced."""
    model_version: str
    """What found them."""
    fused: Fused | None = None
    """The picture, moderated but not marked, once there is one."""

    @property
    def finished(self) -> Stage:
        """The last stage that is behind it."""
        return Stage.DETECTING if self.fused is None else Stage.FUSING

    def dump(self) -> bytes:
        """The length of what follows in four bytes, all but the picture as JSON, and the picture."""
        facts: dict[str, Any] = {
            "source": asdict(self.source),
            "targets": [asdict(face) for face in self.targets],
            "model_version": self.model_version,
            "fused": None if self.fused is None else {**asdict(self.fused), "image": None, "copy": None},
        }
        text = json.dumps(facts).encode()
        return len(text).to_bytes(_LENGTH_BYTES, "big") + text + (self.fused.image if self.fused else b"")

    @classmethod
    def load(cls, data: bytes) -> Progress:
        """From what `dump` wrote; raises ValueError, KeyError or TypeError where another version wrote it."""
        end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "big")
        facts = json.loads(data[_LENGTH_BYTES:end])
        return cls(
            source=_face(facts["source"]),
            targets=tuple(_face(fields) for fields in facts["targets"]),
            model_version=facts["model_version"],
            fused=None if facts["fused"] is None else _fused(data[end:], facts["fused"]),
        )


class Checkpoints:
    """What attempts have got done.

    Args:
        registry: The operations.
        images: Where it lies.
    """

    def __init__(self, registry: Registry, images: Images) -> None:
        self._registry = registry
        self._images = images

    async def keep(self, attempt: Operation, progress: Progress) -> None:
        """Keeps what an attempt has got done, and notes that it did.

        Raises:
            Aborted: LEASE_LOST: the job was taken away.
        """
        checkpoint = Checkpoint(progress.finished, attempt.attempts)
        await self._images.put_progress(attempt.ref, checkpoint, progress.dump())
        await self._registry.change(
            attempt.ref, lambda found: found.reach(attempt, self._registry.clock(), progress.finished)
        )

    async def last(self, attempt: Operation) -> Progress | None:
        """What earlier attempts have got done; None where this one has to begin anew."""
        if (checkpoint := attempt.checkpoint) is None:
            return None
        try:
            return Progress.load(await self._images.progress(attempt.ref, checkpoint))
        except (NotFound, ValueError, KeyError, TypeError) as error:
            _log.warning(
                "a job begins anew", extra={"operation": attempt.name, "reason": type(error).__name__}
            )
            return None

    async def discard(self, attempt: Operation) -> None:
        """Removes what an attempt that lost its lease kept, but for what the next one goes on from."""
        found = await self._registry.store.get(attempt.ref)
        needed = found.checkpoint if found is not None else None
        for stage in (Stage.DETECTING, Stage.FUSING):
            if (checkpoint := Checkpoint(stage, attempt.attempts)) != needed:
                await self._images.delete_progress(attempt.ref, checkpoint)

    async def clear(self, operation: Operation) -> None:
        """Removes what all attempts of a job kept that has ended."""
        for number in range(1, operation.attempts + 1):
            for stage in (Stage.DETECTING, Stage.FUSING):
                await self._images.delete_progress(operation.ref, Checkpoint(stage, number))


def _fused(image: bytes, fields: dict[str, Any]) -> Fused:
    models = tuple(Model(**model) for model in fields["models"])
    return Fused(image, tuple(fields["refused"]), Backend(fields["backend"]), models)


def _face(fields: dict[str, Any]) -> Face:
    def point(name: str) -> tuple[float, float] | None:
        return None if fields[name] is None else tuple(fields[name])

    return Face(tuple(fields["box"]), point("right_eye"), point("left_eye"), fields["label"])
