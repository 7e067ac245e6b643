"""The pipeline, as the service calls it: in a runner of the tenant's own."""

from __future__ import annotations

import asyncio
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from facetmesh.fusion.backends import Backend
from facetmesh.fusion.pipeline.rendering import PLAIN
from facetmesh.kit.errors import Internal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from facetmesh.fusion.backends import Model, ModelFile
    from facetmesh.fusion.faces import Face
    from facetmesh.fusion.pipeline.rendering import Rendering
    from facetmesh.runners.tasks import Runners

MEDIA_TYPE = "image/png"
"""What results are: without loss, so that all but the face stays as it was."""
TIMEOUT_S = 60.0
"""How long a task of the pipeline may take, its models' loading included."""
_REASON = re.compile(r"[A-Z][A-Z_]{1,63}").fullmatch
PNG = b"\x89PNG\r\n\x1a\n"
"""How its files begin."""


@dataclass(frozen=True, slots=True)
class Fused:
    """What came of a fusion."""

    image: bytes
    """The PNG file."""
    refused: tuple[str | None, ...]
    """For each target face the reason why it was left as it is; None where it was replaced."""
    backend: Backend = Backend.MESH
    """What fused."""
    models: tuple[Model, ...] = ()
    """By which models."""
    copy: bytes = b""
    """A smaller JPEG of it, where the file is larger than detection takes; else empty."""

    @property
    def shown(self) -> bytes:
        """What detection is shown of it."""
        return self.copy or self.image


class Fuser:
    """Fuses faces by one backend.

    Args:
        runners: Where the pipeline runs.
        weights: Says where the backend's files are, or raises that they are not there. Blocks.
        backend: Which it is.
    """

    def __init__(
        self, runners: Runners, weights: Callable[[], Sequence[ModelFile]], backend: Backend = Backend.MESH
    ) -> None:
        self._runners = runners
        self._weights = weights
        self._backend = backend

    async def fuse(
        self,
        tenant_id: str,
        subject: str,
        source: bytes,
        source_face: Face,
        target: bytes,
        target_faces: Sequence[Face],
        rendering: Rendering = PLAIN,
        *,
        leave_refused: bool = False,
    ) -> Fused:
        """The target with the source's face.

        Args:
            tenant_id: In whose process it is done.
            subject: What the process's deaths are held against.
            source: The file that gives the face.
            source_face: Which of its faces.
            target: The file that receives it.
            target_faces: Which of its faces are replaced, at least one.
            rendering: How.
            leave_refused: Whether target faces that will not do are left as they are, as long as one does.

        Raises:
            FailedPrecondition: The backend's models are not there.
            InvalidArgument: The images or the faces are refused (`runners.images`, `pipeline.backends`).
            Unavailable: The process died; a repeat is safe.
            DeadlineExceeded: It took too long.
        """
        files = await asyncio.to_thread(self._weights)
        reply = await self._runners.call(
            domain=tenant_id,
            task="fuse",
            arguments={
                "backend": self._backend,
                "models": model_arguments(files),
                "source": face_arguments(source_face),
                "targets": [face_arguments(face) for face in target_faces],
                "rendering": asdict(rendering),
                "leave_refused": leave_refused,
            },
            blobs=[source, target],
            subject=subject,
            timeout_s=TIMEOUT_S,
        )
        match list(reply.blobs), reply.values.get("refused"):
            case [image, *copies], [*refused] if (
                image.startswith(PNG) and len(copies) <= 1 and _sensible(refused, len(target_faces))
            ):
                models = tuple(file.model for file in files)
                return Fused(image, tuple(refused), self._backend, models, b"".join(copies))
        raise Internal("The pipeline's process gave no sensible answer.", reason="RUNNER_REPLY_INVALID")


def _sensible(refused: list[Any], count: int) -> bool:
    """Whether there is for each face a reason, or none, and at least one face has none."""
    reasons = [one for one in refused if one is not None]
    return len(refused) == count > len(reasons) and all(isinstance(one, str) and _REASON(one) for one in reasons)


def model_arguments(files: Sequence[ModelFile]) -> dict[str, dict[str, str]]:
    """Models, as tasks take them: path and hash by name."""
    return {file.model.name: {"path": str(file.path), "sha256": file.model.sha256} for file in files}


def face_arguments(face: Face) -> dict[str, Any]:
    """A face, as tasks take it."""
    eyes = [face.right_eye, face.left_eye] if face.right_eye and face.left_eye else None
    return {"box": face.box, "eyes": eyes}
