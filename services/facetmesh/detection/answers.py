"""Answers: the version that is asked, what it finds, and what is learned from that about versions."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, TypeVar

from facetmesh.detection import priorities
from facetmesh.detection.agreement import agreement
from facetmesh.detection.charging import copying
from facetmesh.kit.errors import FacetmeshError, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from facetmesh.detection.detector import Detector, Image, Options, Result
    from facetmesh.detection.models import Models
    from facetmesh.detection.statistics import Statistics
    from facetmesh.detection.tensors import Array, TensorRunner
    from facetmesh.detection.versions import Version

_Outcome = TypeVar("_Outcome")
_SHADOWS = 4
"""Copies that are worked on at a time; a further one is left out, because shadows must not cost the answers."""


class Answers:
    """Finds objects with the tenants' models.

    Args:
        models: The tenants' models.
        detector: Runs them on images.
        tensors: Runs them on tensors.
        statistics: What became of each version's calls.
    """

    def __init__(
        self, models: Models, detector: Detector, tensors: TensorRunner, statistics: Statistics
    ) -> None:
        self._models = models
        self._detector = detector
        self._tensors = tensors
        self._statistics = statistics
        self._shadows: set[asyncio.Task[None]] = set()

    async def choose(
        self, tenant_id: str, model_id: str, version: str, caller: str, digest: Callable[[], bytes] = bytes
    ) -> Version:
        """The version that answers a call.

        Args:
            tenant_id: Whose model.
            model_id: Its id.
            version: A version's number or an alias; by the model's traffic when empty.
            caller: Who asks, or what else keeps calls together.
            digest: Says the SHA-256 of the image; nothing where there are several.

        Raises:
            NotFound: MODEL_NOT_FOUND, VERSION_NOT_FOUND.
        """
        traffic = await self._models.traffic(tenant_id, model_id)
        match traffic.stickiness:
            case "caller":
                key = caller
            case "input":
                key = digest().hex()
            case "none":
                key = ""
        return await self._models.choose(tenant_id, model_id, version, key=key)

    async def detect(self, version: Version, image: Image, options: Options) -> Result:
        """Finds objects in an image; raises what `Detector.detect` does."""
        result = await self._counted(version, self._detector.detect(version, image, options))
        self._statistics.found(version, result)
        with contextlib.suppress(FacetmeshError):  # a shadow never spoils an answer
            shadow = await self._models.shadow(version)
            if shadow is not None and len(self._shadows) < _SHADOWS:
                task = asyncio.create_task(self._mirror(shadow, image, options, result))
                self._shadows.add(task)
                task.add_done_callback(self._shadows.discard)
        return result

    async def infer(self, version: Version, given: Array, wanted: Sequence[str]) -> list[Array]:
        """A model's raw outputs; raises what `TensorRunner.infer` does."""
        return await self._counted(version, self._tensors.infer(version, given, wanted))

    async def load(self, version: Version) -> None:
        """Loads a version, so that its first `infer` does not wait; raises what that does."""
        await self._tensors.load(version)

    async def unload(self, version: Version) -> None:
        """Gives a version's memory back; its next call loads it again."""
        await self._tensors.unload(version)

    async def settled(self) -> None:
        """Returns once no shadow is worked on."""
        await asyncio.gather(*self._shadows, return_exceptions=True)

    async def close(self) -> None:
        """Gives up the shadows that are worked on."""
        for task in self._shadows:
            task.cancel()
        await asyncio.gather(*self._shadows, return_exceptions=True)

    async def _counted(self, version: Version, work: Awaitable[_Outcome]) -> _Outcome:
        began = time.perf_counter()
        try:
            result = await work
        except InvalidArgument:
            raise  # the image's fault says nothing about the version
        except FacetmeshError:
            self._statistics.ended(version, time.perf_counter() - began, ok=False)
            raise
        self._statistics.ended(version, time.perf_counter() - began, ok=True)
        return result

    async def _mirror(self, shadow: Version, image: Image, options: Options, result: Result) -> None:
        with contextlib.suppress(FacetmeshError), copying(), priorities.at(priorities.LOWEST):
            copy = await self._counted(shadow, self._detector.detect(shadow, image, options))
            self._statistics.found(shadow, copy)
            self._statistics.compared(shadow, agreement(result, copy))
            return
        self._statistics.compared(shadow, 0.0)
