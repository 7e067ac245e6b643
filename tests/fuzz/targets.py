"""What reads strangers' bytes. Each target takes any, and raises only what is a fault of ours.

A reader may refuse with its own error. Anything else that comes out of it is a
finding, as are a crash, a minute without an answer, and two gigabytes of memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tests.unit import onnx_models
from tests.unit.audit_world import World
from tests.unit.conftest import AUDIENCE, ISSUER, Clock, new_issuer
from tests.unit.runner_frames import feed
from tests.unit.test_runners_images import FILES

from facetmesh.auth.grants import Grant
from facetmesh.detection import onnx_rules
from facetmesh.detection.detector import read_result
from facetmesh.detection.heads import yolo
from facetmesh.detection.hints import NONE
from facetmesh.kit.errors import FailedPrecondition, Internal, InvalidArgument, Unauthenticated
from facetmesh.kit.verifier import TokenVerifier
from facetmesh.runners import frames, images
from facetmesh.runners.engines import file_kind
from facetmesh.runners.replies import outcome
from facetmesh.runners.tasks import Reply
from facetmesh.verify import VerificationError, load_receipt, open_checkpoint, verify_receipt
from facetmesh.verify.merkle import HASH_BYTES, verify_consistency, verify_inclusion

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_SMALL = images.ImageLimits(pixels=1_000_000)
_CHILD = {"max_header_bytes": 1 << 20, "max_blob_bytes": 1 << 20}


@dataclass(frozen=True, slots=True)
class Target:
    """Something that reads."""

    read: Callable[[bytes], object]
    """Takes any bytes."""
    refusals: tuple[type[Exception], ...]
    """What it may refuse with."""
    seeds: Callable[[], Sequence[bytes]]
    """What it is there for: the fuzzer starts from these."""

    def __call__(self, data: bytes) -> None:
        """Reads; raises what is no refusal."""
        with contextlib.suppress(*self.refusals):
            self.read(data)


def _onnx(data: bytes) -> None:
    graph = onnx_rules.check(data).graph
    onnx_rules.tensors(graph.input)
    onnx_rules.tensors(graph.output)


def _kind(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        file.write(data)
        file.flush()
        file_kind(Path(file.name))


def _metadata(data: bytes) -> None:
    """What a model's file says of itself, as text."""
    text = data.decode(errors="replace")
    metadata = {"names": text, "imgsz": text}
    graph: Any = SimpleNamespace(metadata=metadata, inputs={"images": (1, 3, None, None)})
    "".join(yolo.labels(graph, NONE, 2)).encode()
    yolo.size(graph, NONE)


def _note(data: bytes) -> None:
    open_checkpoint(data.decode(errors="replace"), _receipt()[1])


def _receipts(data: bytes) -> None:
    verify_receipt(load_receipt(data), _receipt()[1])


def _proof(data: bytes) -> None:
    """Sizes and places, then hashes."""
    sizes = [int.from_bytes(data[at : at + 8]) for at in (0, 8)]
    hashes = [data[at : at + HASH_BYTES] for at in range(16, len(data), HASH_BYTES)]
    root = hashes[0] if hashes else bytes(HASH_BYTES)
    with contextlib.suppress(VerificationError):
        verify_inclusion(leaf=root, index=sizes[0], size=sizes[1], proof=hashes[1:], root=root)
    verify_consistency(old_size=sizes[0], new_size=sizes[1], old_root=root, new_root=root, proof=hashes[1:])


def _token(data: bytes) -> None:
    _runner().run(_verifier()[0].verify(data.decode(errors="replace")))


def _frame(data: bytes) -> None:
    """What a runner's child sends, up to what its caller is told."""

    def take(header: Mapping[str, Any], blobs: list[bytes]) -> None:
        found = outcome(header, blobs)
        json.dumps(found.values if isinstance(found, Reply) else found.message, ensure_ascii=False).encode()

    async def read() -> None:
        receiver = frames.Receiver(**_CHILD)
        receiver.hand(take)
        feed(receiver, data)
        receiver.connection_lost(None)
        await receiver.over

    _runner().run(read())


def _result(data: bytes) -> None:
    """What a child says that it has found."""
    values = None
    with contextlib.suppress(ValueError, RecursionError):
        values = json.loads(data)
    if isinstance(values, dict):
        read_result(values, ("cat", "dog"))


@cache
def _runner() -> asyncio.Runner:
    return asyncio.Runner()


@cache
def _verifier() -> tuple[TokenVerifier, str]:
    clock = Clock()
    issuer = new_issuer(clock)
    token, _ = issuer.issue(Grant("tenants/acme/keys/k1", "acme", ("caller",)))
    return TokenVerifier(issuer, issuer=ISSUER, audience=AUDIENCE, clock=clock), token


@cache
def _receipt() -> tuple[Any, str]:
    """A receipt, and the key of its log."""

    async def issued(world: World) -> Any:
        async with world.log() as (log, _):
            event = world.event()
            await log.ingest([world.signed(), world.services["detection"].sign(event), world.signed("auth")])
            return await world.receipt(log, event)

    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder) / "audit.db")
        return _runner().run(issued(world)), world.verifier_key


def _receipt_files() -> list[bytes]:
    from facetmesh.verify import dump_receipt  # noqa: PLC0415 - only seeds are dumped

    receipt, _ = _receipt()
    return [receipt.SerializeToString(), dump_receipt(receipt).encode()]


def _framed(header: Mapping[str, Any], *blobs: bytes) -> bytes:
    return b"".join(frames.encode(header, blobs))


_FOUND = {
    "width": 64, "height": 48, "classes": [[0, 0.5]],
    "detections": [{
        "box": [1.0, 2.0, 30.5, 40.0], "class_id": 1, "confidence": 0.75, "keypoints": [["nose", 3, 4, 0.5]],
        "mask": "oO7", "rotated_box": [10, 10, 5.5, 5, 0.3],
    }],
}  # fmt: skip
_ERROR = {"code": "INVALID_ARGUMENT", "reason": "IMAGE_CORRUPT", "message": "The image is damaged.", "metadata": {}}

TARGETS: Mapping[str, Target] = {
    "onnx": Target(_onnx, (FailedPrecondition,), lambda: [onnx_models.detector((32, 32, 20, 10, 0, 0.9))]),
    "kind": Target(_kind, (), lambda: [b"PK\3\4", onnx_models.detector()]),
    "metadata": Target(
        _metadata, (FailedPrecondition,), lambda: [b"{0: 'cat', 1: 'dog'}", b"[640, 640]", b"['cat', 'dog']"]
    ),
    "image": Target(
        lambda data: images.decode_scaled(data, _SMALL, longer_side=32), (InvalidArgument,), lambda: [*FILES.values()]
    ),
    "token": Target(_token, (Unauthenticated,), lambda: [_verifier()[1].encode()]),
    "note": Target(_note, (VerificationError,), lambda: [_receipt()[0].checkpoint.encode()]),
    "receipt": Target(_receipts, (VerificationError,), _receipt_files),
    "proof": Target(_proof, (VerificationError,), lambda: [2 * (3).to_bytes(8) + bytes(HASH_BYTES)]),
    "frame": Target(
        _frame, (frames.FrameError,),
        lambda: [
            _framed({"id": 0, "values": _FOUND, "timings_ms": {"infer": 1.5}, "batch": 1, "gone": ["m"]}, b"blob"),
            _framed({"id": 0, "error": _ERROR}),
        ],
    ),
    "result": Target(_result, (Internal,), lambda: [json.dumps(_FOUND).encode()]),
}  # fmt: skip
"""All of them, by name."""
