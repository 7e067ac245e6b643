"""What a backup holds, file by file, so that what is restored is what was saved.

`manifest.json` lies beside the files:

    format      1
    facetmesh   the version that wrote it
    taken       when, ISO 8601 in UTC
    checkpoint  the log's newest checkpoint at that time, a signed note; "" when the mesh did not serve
    files       {path: {"sha256": hex, "size": bytes}}, all but itself and the sealed secrets

Who can write a backup can write its manifest too: the digests guard against damage. Against
forgery there are the sealed secrets, which open only beside the manifest they were sealed with.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from facetmesh.cli.backup.contents import BLOBS, JOURNALS, LOG, PUBLIC, REDIS_STATE, STATE
from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAME = "manifest.json"
FORMAT = 1
MAX_BYTES = 256 << 20
"""The largest manifest that is read: about two million files."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_BLOB = re.compile(rf"({'|'.join(BLOBS)})(/[A-Za-z0-9_-][A-Za-z0-9._-]{{0,254}}){{2,8}}")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """One file."""

    sha256: str
    """Of its content, in hex."""
    size: int
    """In bytes."""

    @classmethod
    def of(cls, path: Path) -> Self:
        """That of the file at path."""
        digest = hashlib.sha256()
        size = 0
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
        return cls(digest.hexdigest(), size)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds."""

    facetmesh: str
    """The version that wrote it."""
    taken: str
    """When, ISO 8601 in UTC."""
    checkpoint: str
    """The log's newest checkpoint then, a signed note; "" when the mesh did not serve."""
    files: Mapping[str, Entry]
    """By path, with slashes, relative to the backup."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())

    def dump(self) -> bytes:
        """As it is written."""
        files = {path: {"sha256": entry.sha256, "size": entry.size} for path, entry in sorted(self.files.items())}
        content = {
            "format": FORMAT, "facetmesh": self.facetmesh, "taken": self.taken, "checkpoint": self.checkpoint,
            "files": files,
        }  # fmt: skip
        return json.dumps(content, indent=1).encode() + b"\n"

    @classmethod
    def load(cls, data: bytes) -> Self:
        """What was written.

        Raises:
            FailedPrecondition: BACKUP_TOO_NEW; MANIFEST_INVALID, also when it names a file that no backup holds.
        """
        try:
            content = json.loads(data)
            if content["format"] != FORMAT:
                raise FailedPrecondition(
                    f"The backup has format {content['format']}, and this version reads {FORMAT}.",
                    reason="BACKUP_TOO_NEW",
                )
            files = {path: _entry(path, one) for path, one in content["files"].items()}
            made = cls(
                facetmesh=str(content["facetmesh"]), taken=str(content["taken"]),
                checkpoint=str(content["checkpoint"]), files=files,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FailedPrecondition(
                f"The backup's manifest is damaged: {error}.", reason="MANIFEST_INVALID",
            ) from error
        if len({STATE, REDIS_STATE} & files.keys()) != 1:
            raise FailedPrecondition("The backup's manifest names no state, or two.", reason="MANIFEST_INVALID")
        if missing := set(PUBLIC) - files.keys():
            raise FailedPrecondition(
                f"The backup's manifest names no {min(missing)}.", reason="MANIFEST_INVALID",
            )
        return made


def _entry(path: str, one: Mapping[str, object]) -> Entry:
    # A path becomes a file below the new state folder: only what a backup writes is taken.
    if path not in {STATE, REDIS_STATE, LOG, *JOURNALS, *PUBLIC} and not _BLOB.fullmatch(path):
        raise ValueError(f"it names {path!r}, which no backup holds")
    digest, size = one["sha256"], one["size"]
    if not isinstance(digest, str) or not _SHA256.fullmatch(digest) or type(size) is not int or size < 0:
        raise ValueError(f"what it says of {path} is no digest and size")
    return Entry(digest, size)
