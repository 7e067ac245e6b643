"""LitServe."""

import os
from typing import Any

import litserve
from fastapi import Request
from handler import Detector


class Api(litserve.LitAPI):
    """A JPEG in, boxes out."""

    def setup(self, device: str) -> None:
        """Opens the model."""
        del device
        self._detector = Detector()

    def decode_request(self, request: Request) -> bytes:
        """The form's field."""
        return request["photo"].file.read()  # type: ignore[no-any-return,index]

    def predict(self, photo: bytes) -> list[list[float]]:
        """Detects."""
        return self._detector(photo)

    def encode_response(self, output: Any) -> Any:
        """JSON."""
        return output


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=int(os.environ["PEER_WORKERS"]))
    server.run(host="127.0.0.1", port=int(os.environ["PEER_PORT"]), generate_client_file=False, log_level="warning")
