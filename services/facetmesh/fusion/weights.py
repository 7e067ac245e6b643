"""Where the files of the backends' models are, and which files they are."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from typing import TYPE_CHECKING

from facetmesh.fusion.backends import Model, ModelFile
from facetmesh.kit import catalog
from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LANDMARKS = "facemesh"
"""The catalogue's id of the model that finds a face's points."""
DETECTOR, RECOGNIZER = "buffalo_l/det_10g.onnx", "buffalo_l/w600k_r50.onnx"
"""InsightFace's models that find faces and tell them apart, in a folder as InsightFace unpacks them."""
SWAPPER = "inswapper_128.onnx"
"""The one that draws a face as another's."""
GUESSER = "buffalo_l/genderage.onnx"
"""The one that guesses sex and age."""
MATCHING = (DETECTOR, RECOGNIZER)
"""What tells faces apart."""
GUESSING = (*MATCHING, GUESSER)
"""What guesses at them: the detector's boxes are what the guesser was trained on."""
SWAPPING = (*MATCHING, SWAPPER)
"""What fuses."""
NON_COMMERCIAL = "LicenseRef-insightface-non-commercial"
"""What InsightFace's models are under, unless the operator has bought another licence: for research only."""


class CatalogWeights:
    """One model of the catalogue.

    Args:
        asset_id: Which.
    """

    def __init__(self, asset_id: str = LANDMARKS) -> None:
        self._asset_id = asset_id

    @property
    def licence(self) -> str:
        """What the catalogue says."""
        return catalog.asset(self._asset_id).licence

    def files(self) -> Sequence[ModelFile]:
        """Its file; raises FailedPrecondition with MODEL_NOT_FETCHED."""
        path, asset = catalog.path(self._asset_id), catalog.asset(self._asset_id)
        return [ModelFile(Model(asset.id, asset.sha256, asset.licence), path)]


class InsightFaceWeights:
    """InsightFace's models, as the operator has put them into a folder: nobody may pass them on.

    Args:
        folder: Where they are, as below ~/.insightface/models.
        names: Which of them are needed, such as SWAPPING.
        licence: Under which the operator has them.
    """

    def __init__(self, folder: Path, names: Sequence[str], licence: str = NON_COMMERCIAL) -> None:
        self._folder = folder
        self._names = names
        self._licence = licence

    def files(self) -> Sequence[ModelFile]:
        """Those that are needed. Blocks: the first time they are read to the last byte.

        Raises:
            FailedPrecondition: INSIGHTFACE_MISSING: the library is not installed; WEIGHTS_MISSING.
        """
        if importlib.util.find_spec("insightface") is None:
            raise FailedPrecondition(
                "This installation has no InsightFace: the operator can install facetmesh[insightface].",
                reason="INSIGHTFACE_MISSING",
            )
        missing = [name for name in self._names if not (self._folder / name).is_file()]
        if missing:
            raise FailedPrecondition(
                f"InsightFace's weights are not complete here: the operator's folder has no {missing[0]}.",
                reason="WEIGHTS_MISSING", metadata={"file": missing[0]},
            )
        return [self._file(name) for name in self._names]

    def _file(self, name: str) -> ModelFile:
        path = self._folder / name
        seen = path.stat()
        return ModelFile(Model(name, _digest(path, seen.st_mtime_ns, seen.st_ino), self._licence), path)


@functools.lru_cache(maxsize=64)
def _digest(file: Path, _modified_ns: int, _inode: int) -> str:
    """SHA-256 of a file, computed again only after the file was touched."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
