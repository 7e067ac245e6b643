"""mosec."""

import json
import os

from handler import Detector
from mosec import Server, Worker


class Detect(Worker):
    """A JPEG in, boxes out."""

    def __init__(self) -> None:
        super().__init__()
        self._detector = Detector()

    def deserialize(self, data: bytes) -> bytes:
        """The body."""
        return data

    def forward(self, data: bytes) -> list[list[float]]:
        """Detects."""
        return self._detector(data)

    def serialize(self, data: list[list[float]]) -> bytes:
        """JSON."""
        return json.dumps(data).encode()


if __name__ == "__main__":
    server = Server()
    server.append_worker(Detect, num=int(os.environ["PEER_WORKERS"]))
    server.run()
