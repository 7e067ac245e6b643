"""MLServer's runtime for the detector: the JPEG as one BYTES tensor, over V2 gRPC."""

import json
import os
from pathlib import Path

from handler import Detector
from mlserver import MLModel
from mlserver.grpc import dataplane_pb2
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Detect(MLModel):
    """A JPEG in, boxes out."""

    async def load(self) -> bool:
        """Opens the model."""
        self._detector = Detector()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Detects."""
        (photo,) = payload.inputs[0].data
        text = json.dumps(self._detector(photo)).encode()
        output = ResponseOutput(name="boxes", shape=[1], datatype="BYTES", data=[text])
        return InferenceResponse(model_name=self.name, outputs=[output])


def prepare(folder: Path, photo: Path, ports: list[int]) -> None:
    """Writes the server's settings, and the request that clients send, by MLServer's own classes."""
    http, rpc, metrics = ports
    workers = int(os.environ["PEER_WORKERS"])
    (folder / "settings.json").write_text(json.dumps({
        "host": "127.0.0.1", "http_port": http, "grpc_port": rpc, "metrics_port": metrics, "parallel_workers": workers,
        "debug": False,
    }))
    (folder / "model-settings.json").write_text(
        json.dumps({"name": "detect", "implementation": "serve_mlserver.Detect"})
    )
    tensor = dataplane_pb2.ModelInferRequest.InferInputTensor(
        name="image", datatype="BYTES", shape=[1],
        contents=dataplane_pb2.InferTensorContents(bytes_contents=[photo.read_bytes()]),
    )
    request = dataplane_pb2.ModelInferRequest(model_name="detect", inputs=[tensor])
    (folder / "request").write_bytes(request.SerializeToString())


if __name__ == "__main__":
    import sys

    prepare(Path(sys.argv[1]), Path(sys.argv[2]), [int(port) for port in sys.argv[3:]])
