"""Where the files of models are: in blobs, encrypted, and for runners to read, in a folder of their own.

Each tenant has a folder within that, which no other tenant's processes can read.
It is emptied when the service ends. By default it is in memory, so that
no model lies on a disk in clear.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from facetmesh.detection.uploads import PART_BYTES
from facetmesh.kit.errors import FailedPrecondition, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from facetmesh.detection.uploads import BlobStore
    from facetmesh.detection.versions import Version

_IN_USE_S = 60.0
"""A file that was asked for so lately may be about to be opened."""


class Catalog(Protocol):
    """The models that the operator has fetched."""

    def path(self, asset_id: str, /) -> Path:
        """An entry's file; raises FailedPrecondition when it has not been fetched."""
        ...


class Shelf:
    """Files of versions.

    Args:
        catalog: Files of the catalogue's models.
        blobs: Where uploaded ones are kept.
        incoming: The same for those that come, which are in no hurry.
        folder: Where those that are used lie in clear.
        max_bytes: How much may lie there.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        catalog: Catalog,
        blobs: BlobStore,
        folder: Path,
        *,
        incoming: BlobStore,
        max_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        """Where files lie in clear."""
        self._catalog = catalog
        self._blobs = blobs
        self._incoming = incoming
        self._max_bytes = max_bytes
        self._clock = clock
        self._used: OrderedDict[Path, tuple[float, int]] = OrderedDict()
        self._fetching: dict[Path, asyncio.Lock] = {}

    def readable(self, domain: str) -> Path:
        """The folder that an isolation domain's processes may read: a tenant's, or that of one upload's inspection."""
        folder = self.folder / domain
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    async def path(self, version: Version) -> Path:
        """A version's file, ready to be read.

        Raises:
            FailedPrecondition: MODEL_NOT_FETCHED: it is of the catalogue, and not on this machine;
                MODEL_CHANGED: it is not what was stored.
            NotFound: Its data was destroyed.
            ResourceExhausted: MODEL_CACHE_FULL: there is no room for it.
        """
        if not version.parts:
            return self._catalog.path(version.catalog_id)
        path = self._place(version)
        async with self._fetching.setdefault(path, asyncio.Lock()):
            if path not in self._used:
                await self._fetch(version, path)
            self._used[path] = (self._clock(), version.size_bytes)
            self._used.move_to_end(path)
        return path

    def placed(self, version: Version) -> Version:
        """The version with a place for its file."""
        return replace(version, blob=secrets.token_hex(16), parts=math.ceil(version.size_bytes / PART_BYTES))

    async def store(self, version: Version, path: Path) -> None:
        """Keeps the file of a version in the place that it has."""
        try:
            with path.open("rb") as file:
                for part in range(version.parts):
                    data = await asyncio.to_thread(file.read, PART_BYTES)
                    await self._incoming.put(version.tenant_id, _key(version.blob, part), data)
        except BaseException:  # who asked for it may have gone
            await self.discard(version.tenant_id, version.blob, version.parts)
            raise

    async def remove(self, version: Version) -> None:
        """Deletes the file of a version. Where another version is made of the same, that fetches it anew."""
        if version.parts:
            self._forget(self._place(version))
        await self.discard(version.tenant_id, version.blob, version.parts)

    async def discard(self, tenant_id: str, blob: str, parts: int) -> None:
        """Deletes what is kept in a place, which no version has."""
        for part in range(parts):
            await self._blobs.delete(tenant_id, _key(blob, part))

    def clear(self, tenant_id: str) -> None:
        """Deletes what lies in clear of a tenant's; other replicas' goes with their processes."""
        for path in [path for path in self._used if path.parent.name == tenant_id]:
            self._forget(path)

    def _place(self, version: Version) -> Path:
        return self.readable(version.tenant_id) / f"{version.sha256}.onnx"

    def _forget(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._used.pop(path, None)
        self._fetching.pop(path, None)

    async def _fetch(self, version: Version, path: Path) -> None:
        self._make_room(version.size_bytes)
        fresh = path.with_suffix(".new")
        try:
            keys = (_key(version.blob, part) for part in range(version.parts))
            if await self._blobs.assemble(version.tenant_id, keys, fresh) != version.sha256:
                raise FailedPrecondition("The model's file is not what was stored.", reason="MODEL_CHANGED")
            fresh.replace(path)
        except OSError as error:
            raise ResourceExhausted(
                "There is no room for the model's file.", reason="MODEL_CACHE_FULL", retry_after_s=_IN_USE_S
            ) from error
        finally:
            fresh.unlink(missing_ok=True)

    def _make_room(self, wanted_bytes: int) -> None:
        left = self._max_bytes - sum(size for _, size in self._used.values())
        for path, (used_s, size) in list(self._used.items()):
            if left >= wanted_bytes:
                return
            if self._clock() - used_s > _IN_USE_S:
                self._forget(path)
                left += size
        if left < wanted_bytes:
            raise ResourceExhausted(
                "There is no room for the model's file beside those in use.", reason="MODEL_CACHE_FULL",
                retry_after_s=_IN_USE_S,
            )  # fmt: skip


def _key(blob: str, part: int) -> str:
    return f"models/{blob}/{part:05}"
