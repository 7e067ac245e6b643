"""What is recorded of an image, and of a batch."""

from __future__ import annotations

import asyncio
import hashlib
from types import SimpleNamespace
from typing import Any, cast

import pytest

from facetmesh.detection.detector import Image, Result
from facetmesh.detection.servicer import DetectionServicer
from facetmesh.detection.v1 import detection_pb2 as pb
from facetmesh.kit import audit, errors

MODEL = "tenants/acme/models/faces"


class Answers:
    """Finds nothing."""

    async def choose(self, *_: object) -> Any:
        """The one version."""
        return SimpleNamespace(name=f"{MODEL}/versions/1", sha256="00")

    async def detect(self, *_: object) -> Result:
        """Nothing, in a picture of one pixel."""
        return Result((), 1, 1)


class Fetcher:
    """Has what is named slow only when all else has come, and what is named gone never."""

    def __init__(self) -> None:
        """Has given nothing."""
        self._given = asyncio.Event()

    async def fetch(self, _: str, uri: str) -> Image:
        """The name, as an image."""
        if "gone" in uri:
            raise errors.NotFound("There is nothing.", reason="IMAGE_NOT_FOUND")
        if "slow" in uri:
            await self._given.wait()
        self._given.set()
        return Image(uri.encode())


async def test_inputs_in_the_order_of_the_requests() -> None:
    """Whoever has the images finds them in the record, though the first was the last to come and one never came."""
    record = audit.Record("facetmesh.detection.v1.DetectionService/BatchDetect", "tenants/acme")
    audit.set_current(record)
    servicer = DetectionServicer(cast("Any", Answers()), cast("Any", Fetcher()), cast("Any", None))
    addresses = [f"https://pictures.example/{name}" for name in ("slow", "gone", "fast")]
    requests = [pb.DetectRequest(model=MODEL, image_uri=address) for address in addresses]
    batch = await servicer.BatchDetect(pb.BatchDetectRequest(model=MODEL, requests=requests), None)
    assert [result.WhichOneof("outcome") for result in batch.results] == ["response", "status", "response"]
    assert record.inputs == tuple(hashlib.sha256(addresses[i].encode()).digest() for i in (0, 2))


async def test_an_image_is_hashed_when_it_was_handed_on() -> None:
    """Nothing waits for that; and it is recorded of a call that fails, too."""

    class Busy(Answers):
        async def detect(self, _: object, image: Any, __: object) -> Result:
            assert "digest" not in vars(image)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert "digest" in vars(image)
            raise errors.Unavailable("The process died.", reason="RUNNER_DIED")

    record = audit.Record("facetmesh.detection.v1.DetectionService/Detect", "tenants/acme")
    audit.set_current(record)
    servicer = DetectionServicer(cast("Any", Busy()), cast("Any", None), cast("Any", None))
    with pytest.raises(errors.Unavailable):
        await servicer.Detect(pb.DetectRequest(model=MODEL, image=b"photo"), None)
    assert record.inputs == (hashlib.sha256(b"photo").digest(),)
