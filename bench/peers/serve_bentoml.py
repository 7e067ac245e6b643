"""BentoML."""

from pathlib import Path

import bentoml
from handler import Detector


@bentoml.service(traffic={"timeout": 120})
class Detect:
    """A JPEG in, boxes out."""

    def __init__(self) -> None:
        self._detector = Detector()

    @bentoml.api(route="/detect")
    def detect(self, photo: Path) -> list[list[float]]:
        """Detects."""
        return self._detector(photo.read_bytes())
