"""Ray Serve."""

import os
import time

import ray
from handler import Detector
from ray import serve
from starlette.requests import Request


@serve.deployment(
    num_replicas=int(os.environ["PEER_WORKERS"]), ray_actor_options={"num_cpus": 0}, max_ongoing_requests=16
)
class Detect:
    """A JPEG in, boxes out."""

    def __init__(self) -> None:
        self._detector = Detector()

    async def __call__(self, request: Request) -> list[list[float]]:
        """Detects."""
        return self._detector(await request.body())


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PEER_PORT"])})
    serve.run(Detect.bind(), route_prefix="/detect")
    while True:
        time.sleep(60)
