"""Which face is whose, as the service asks it: in a runner of the tenant's own, where the embeddings stay."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from facetmesh.fusion.fuser import TIMEOUT_S, face_arguments, model_arguments
from facetmesh.kit.errors import Internal, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from facetmesh.fusion.backends import ModelFile
    from facetmesh.fusion.faces import Face
    from facetmesh.runners.tasks import Runners


class Matcher:
    """Compares faces by InsightFace's embeddings.

    Args:
        runners: Where the pipeline runs.
        weights: Says where the models' files are, or raises that they are not there. Blocks.
    """

    def __init__(self, runners: Runners, weights: Callable[[], Sequence[ModelFile]]) -> None:
        self._runners = runners
        self._weights = weights

    async def similarities(
        self, tenant_id: str, subject: str, reference: bytes, image: bytes, faces: Sequence[Face]
    ) -> list[float | None]:
        """How much faces look like that of a reference.

        Args:
            tenant_id: In whose process it is done.
            subject: What the process's deaths are held against.
            reference: The file that shows whom to look for; its largest face counts.
            image: The file in which to look.
            faces: Which of its faces come into question.

        Returns:
            For each face the cosine of the embeddings, -1 to 1; None where the model finds no face there.

        Raises:
            FailedPrecondition: The models are not there.
            InvalidArgument: NO_FACE in the reference, or an image is refused (`runners.images`).
            Unavailable: The process died; a repeat is safe.
            DeadlineExceeded: It took too long.
        """
        files = await asyncio.to_thread(self._weights)
        reply = await self._runners.call(
            domain=tenant_id,
            task="resemble",
            arguments={"models": model_arguments(files), "faces": [face_arguments(face) for face in faces]},
            blobs=[reference, image],
            subject=subject,
            timeout_s=TIMEOUT_S,
        )
        match reply.values.get("similarities"):
            case [*similarities] if len(similarities) == len(faces) and all(map(_sensible, similarities)):
                return similarities
        raise Internal("The pipeline's process gave no sensible answer.", reason="RUNNER_REPLY_INVALID")


def likest(faces: Sequence[Face], similarities: Sequence[float | None], least: float) -> Face:
    """The face that looks most like the reference.

    Args:
        faces: Those that come into question.
        similarities: As `Matcher.similarities` gives them.
        least: How much it must.

    Raises:
        InvalidArgument: FACE_NOT_MATCHED: none does.
    """
    told = [(similarity, index) for index, similarity in enumerate(similarities) if similarity is not None]
    best = max(told, default=None)
    if best is None or best[0] < least:
        raise InvalidArgument(
            "No face of the target image looks like the reference's.", reason="FACE_NOT_MATCHED",
            metadata={"image": "target", "faces": str(len(faces))},
        )
    return faces[best[1]]


def _sensible(similarity: object) -> bool:
    return similarity is None or (isinstance(similarity, float | int) and -1.001 <= similarity <= 1.001)  # noqa: PLR2004 - a cosine, rounded
