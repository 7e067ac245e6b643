"""How urgent a call is, from what it says to the scheduler."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from facetmesh.detection import kserve_messages, priorities
from facetmesh.detection.detector import Result
from facetmesh.detection.servicer import DetectionServicer
from facetmesh.detection.v1 import detection_pb2 as pb
from facetmesh.inference import inference_pb2
from facetmesh.kit import audit, errors
from facetmesh.kit.signing import EventSigner
from facetmesh.kit.telemetry import Metrics

from .bus import Bus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MODEL = "tenants/acme/models/faces"


class Answers:
    """Finds nothing, and notes how urgent each call was."""

    def __init__(self) -> None:
        """Has seen none."""
        self.seen: dict[bytes, int] = {}

    async def choose(self, *_: object) -> Any:
        """The one version."""
        return SimpleNamespace(name=f"{MODEL}/versions/1", sha256="00")

    async def detect(self, _: object, image: Any, __: object) -> Result:
        """Notes the priority by the image."""
        self.seen[image.data] = priorities.current()
        return Result((), 1, 1)


def test_who_does_not_say_is_in_the_middle() -> None:
    """And what is said holds for what is done within."""
    assert priorities.current() == priorities.DEFAULT
    for said, meant in ((priorities.UNSAID, priorities.DEFAULT), (priorities.HIGHEST, 1), (priorities.LOWEST, 9)):
        with priorities.at(said):
            assert priorities.current() == meant
    assert priorities.current() == priorities.DEFAULT


@pytest.mark.parametrize("said", [-1, 10, 1 << 63])
def test_there_are_no_others(said: int) -> None:
    """The reason says which there are."""
    with pytest.raises(errors.InvalidArgument, match="1 goes first, 9 last") as caught, priorities.at(said):
        pass
    assert caught.value.reason == "FIELD_INVALID"


@pytest.mark.parametrize("kind", ["int64_param", "uint64_param"])
def test_kserves_parameter(kind: str) -> None:
    """As Triton's clients send it, and as they sent it before."""
    request = inference_pb2.ModelInferRequest()
    assert kserve_messages.priority(request) == 0
    setattr(request.parameters["priority"], kind, 2)
    assert kserve_messages.priority(request) == 2
    request.parameters["priority"].string_param = "2"
    with pytest.raises(errors.InvalidArgument) as caught:
        kserve_messages.priority(request)
    assert caught.value.reason == "FIELD_INVALID"


async def test_each_way_to_ask_has_it() -> None:
    """One image, each of a batch its own, and the frames of a video."""
    audit.set_current(audit.Record("facetmesh.detection.v1.DetectionService/Detect", "tenants/acme"))
    answers = Answers()
    recorder = audit.Recorder("test", EventSigner("detection", bytes(32)), cast("Any", Bus()), Metrics.create())
    servicer = DetectionServicer(cast("Any", answers), cast("Any", None), recorder)

    async def video() -> AsyncIterator[pb.DetectStreamRequest]:
        yield pb.DetectStreamRequest(settings=pb.StreamSettings(model=MODEL, priority=3))
        yield pb.DetectStreamRequest(frame=pb.Frame(image=b"frame"))

    await servicer.Detect(pb.DetectRequest(model=MODEL, image=b"one", priority=1), None)
    await servicer.Detect(pb.DetectRequest(model=MODEL, image=b"unsaid"), None)
    several = [pb.DetectRequest(model=MODEL, image=bytes([level]), priority=level) for level in (1, 9)]
    await servicer.BatchDetect(pb.BatchDetectRequest(model=MODEL, requests=several), None)
    frames = [answer async for answer in servicer.DetectStream(video(), None)]
    assert [frame.HasField("response") for frame in frames] == [True]
    assert answers.seen == {b"one": 1, b"unsaid": 5, bytes([1]): 1, bytes([9]): 9, b"frame": 3}
    await recorder.close()

