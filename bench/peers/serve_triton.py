"""NVIDIA Triton, as PyTriton brings it: the detector as a model of its Python backend, over V2 gRPC."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from handler import Detector
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from tritonclient.grpc import service_pb2


class Detect:
    """A JPEG in, boxes out."""

    def __init__(self) -> None:
        self._detector = Detector()

    def __call__(self, requests: list[Any]) -> list[dict[str, Any]]:
        """Detects."""
        return [
            {"boxes": np.array([json.dumps(self._detector(request.data["image"][0])).encode()])} for request in requests
        ]


def prepare(folder: Path, photo: Path) -> None:
    """Writes the request that clients send, by Triton's own classes."""
    tensor = service_pb2.ModelInferRequest.InferInputTensor(
        name="image", datatype="BYTES", shape=[1],
        contents=service_pb2.InferTensorContents(bytes_contents=[photo.read_bytes()]),
    )  # fmt: skip
    request = service_pb2.ModelInferRequest(model_name="detect", inputs=[tensor])
    (folder / "request").write_bytes(request.SerializeToString())


def serve(http: int, metrics: int) -> None:
    """Serves until it is stopped."""
    config = TritonConfig(
        http_address="127.0.0.1", http_port=http, grpc_address="127.0.0.1", grpc_port=int(os.environ["PEER_PORT"]),
        metrics_port=metrics,
    )  # fmt: skip
    with Triton(config=config) as triton:
        triton.bind(
            model_name="detect", infer_func=[Detect() for _ in range(int(os.environ["PEER_WORKERS"]))],
            inputs=[Tensor(name="image", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="boxes", dtype=bytes, shape=(1,))], config=ModelConfig(batching=False),
        )  # fmt: skip
        triton.serve()


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        serve(*map(int, sys.argv[2:]))
