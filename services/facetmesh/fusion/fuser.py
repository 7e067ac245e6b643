"""The pipeline, as the service calls it: in a runner of the tenant's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from facetmesh.kit.errors import Internal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from facetmesh.fusion.faces import Face
    from facetmesh.runners.tasks import Runners

MEDIA_TYPE = "image/png"
"""What results are: without loss, so that all but the face stays as it was."""
_TIMEOUT_S = 60.0
PNG = b"\x89PNG\r\n\x1a\n"
"""How its files begin."""


class Fuser:
    """Fuses faces.

    Args:
        runners: Where the pipeline runs.
        landmark_model: Says where FaceMesh's file is, or raises that it has not been fetched.
        sha256: Of that file, in hex.
    """

    def __init__(self, runners: Runners, landmark_model: Callable[[], Path], sha256: str) -> None:
        self._runners = runners
        self._landmark_model = landmark_model
        self._sha256 = sha256

    async def fuse(
        self, tenant_id: str, subject: str, source: bytes, source_face: Face, target: bytes, target_face: Face
    ) -> bytes:
        """The PNG file of the target with the source's face.

        Args:
            tenant_id: In whose process it is done.
            subject: What the process's deaths are held against.
            source: The file that gives the face.
            source_face: Which of its faces.
            target: The file that receives it.
            target_face: Which of its faces is replaced.

        Raises:
            FailedPrecondition: The landmark model is not there.
            InvalidArgument: The images or the faces are refused (`runners.images`, `pipeline.landmarks`).
            Unavailable: The process died; a repeat is safe.
            DeadlineExceeded: It took too long.
        """
        model = {"path": str(self._landmark_model()), "sha256": self._sha256}
        reply = await self._runners.call(
            domain=tenant_id,
            task="fuse",
            arguments={"model": model, "source": _arguments(source_face), "target": _arguments(target_face)},
            blobs=[source, target],
            subject=subject,
            timeout_s=_TIMEOUT_S,
        )
        match list(reply.blobs):
            case [image] if image.startswith(PNG):
                return image
        raise Internal("The pipeline's process gave no sensible answer.", reason="RUNNER_REPLY_INVALID")


def _arguments(face: Face) -> dict[str, Any]:
    eyes = [face.right_eye, face.left_eye] if face.right_eye and face.left_eye else None
    return {"box": face.box, "eyes": eyes}
