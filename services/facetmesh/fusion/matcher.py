"""Whose a face is, and who it may be, as the service asks it: in a runner of the tenant's, where embeddings stay."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from facetmesh.fusion.faces import Guess, Sex
from facetmesh.fusion.fuser import TIMEOUT_S, face_arguments, model_arguments
from facetmesh.kit.errors import Internal, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from facetmesh.fusion.backends import ModelFile
    from facetmesh.fusion.faces import Face, Selection
    from facetmesh.runners.tasks import Runners


class Matcher:
    """Compares faces by InsightFace's embeddings, and guesses at them by its model of sex and age.

    Args:
        runners: Where the pipeline runs.
        matching: Says where the models' files are that compare, or raises that they are not there. Blocks.
        guessing: The same of those that guess.
    """

    def __init__(
        self,
        runners: Runners,
        matching: Callable[[], Sequence[ModelFile]],
        guessing: Callable[[], Sequence[ModelFile]],
    ) -> None:
        self._runners = runners
        self._matching = matching
        self._guessing = guessing

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
        told = await self._ask("resemble", self._matching, tenant_id, subject, [reference, image], faces)
        match told.get("similarities"):
            case [*similarities] if len(similarities) == len(faces) and all(map(_sensible, similarities)):
                return similarities
        raise _odd()

    async def guesses(
        self, tenant_id: str, subject: str, image: bytes, faces: Sequence[Face]
    ) -> list[Guess | None]:
        """Who faces may be.

        Args:
            tenant_id: In whose process it is done.
            subject: What the process's deaths are held against.
            image: The file in which to look.
            faces: Which of its faces come into question.

        Returns:
            For each face what the model takes it for; None where it finds no face there.

        Raises:
            FacetmeshError: As for `similarities`.
        """
        told = await self._ask("guess", self._guessing, tenant_id, subject, [image], faces)
        match told.get("guesses"):
            case [*guesses] if len(guesses) == len(faces):
                return [_guess(one) for one in guesses]
        raise _odd()

    async def _ask(
        self,
        task: str,
        weights: Callable[[], Sequence[ModelFile]],
        tenant_id: str,
        subject: str,
        images: list[bytes],
        faces: Sequence[Face],
    ) -> Mapping[str, Any]:
        files = await asyncio.to_thread(weights)
        reply = await self._runners.call(
            domain=tenant_id,
            task=task,
            arguments={"models": model_arguments(files), "faces": [face_arguments(face) for face in faces]},
            blobs=images,
            subject=subject,
            timeout_s=TIMEOUT_S,
        )
        return reply.values


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


def admitted(faces: Sequence[Face], guesses: Sequence[Guess | None], selection: Selection) -> list[Face]:
    """The faces that are of the sex and age that are meant.

    Args:
        faces: Those that come into question.
        guesses: As `Matcher.guesses` gives them.
        selection: Which are meant.

    Raises:
        InvalidArgument: FACE_NOT_MATCHED: there are faces, and none is.
    """
    found = [face for face, guess in zip(faces, guesses, strict=True) if selection.admits(guess)]
    if faces and not found:
        raise InvalidArgument(
            "No face of the target image is taken for one of that sex and age.", reason="FACE_NOT_MATCHED",
            metadata={"image": "target", "faces": str(len(faces))},
        )
    return found


def _guess(told: object) -> Guess | None:
    match told:
        case None:
            return None
        case ["female" | "male" as sex, int(age)] if not isinstance(age, bool):
            return Guess(Sex(sex), age)
    raise _odd()


def _odd() -> Internal:
    return Internal("The pipeline's process gave no sensible answer.", reason="RUNNER_REPLY_INVALID")


def _sensible(similarity: object) -> bool:
    return similarity is None or (isinstance(similarity, float | int) and -1.001 <= similarity <= 1.001)  # noqa: PLR2004 - a cosine, rounded
