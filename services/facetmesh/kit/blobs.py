"""Encrypted blobs: inputs and results of slow work, a prefix for each tenant.

A folder by default; S3 and its kin by URL (obstore reads their usual
environment variables).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

from facetmesh.kit import holds
from facetmesh.kit.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from obstore.store import ObjectStore

    from facetmesh.kit.keyring import Keyring

_MUCH_BYTES = 1 << 20


def open_store(location: str) -> ObjectStore:
    """The object store at a folder's path, which is made, or at a URL such as s3://bucket/prefix."""
    if "://" in location:
        return from_url(location)
    folder = Path(location)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return LocalStore(prefix=folder)


class Blobs:
    """Blobs by tenant and key, encrypted under the tenant's data key.

    Args:
        store: Where the ciphertext lies.
        keyring: The tenants' keys.
        pace: Returns when more than a mebibyte of a tenant's may be worked on, part by part; at once when None.
    """

    def __init__(
        self, store: ObjectStore, keyring: Keyring, pace: Callable[[str], Awaitable[None]] | None = None
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._pace = pace
        self._folder = store.prefix if isinstance(store, LocalStore) else None

    async def put(self, tenant: str, key: str, data: bytes) -> None:
        """Stores data. Once this returns, it survives a crash of the process.

        Raises:
            Unavailable: The store refused it, for instance because the disk is full.
        """
        if self._pace is not None and len(data) > _MUCH_BYTES:
            await self._pace(tenant)
        sealed = await self._keyring.encrypt(tenant, data, key.encode())
        try:
            await obstore.put_async(self._store, _path(tenant, key), sealed)
            if self._folder is not None and len(sealed) > _MUCH_BYTES:
                await asyncio.to_thread(_flush, Path(self._folder, _path(tenant, key)))
        except (BaseError, OSError) as error:
            raise Unavailable("The blob store refused the data.", reason="BLOB_STORE", retry_after_s=5) from error

    async def get(self, tenant: str, key: str) -> bytes:
        """The data.

        Raises:
            NotFound: There is none, or its key was destroyed.
            Unavailable: The store did not answer.
        """
        try:
            result = await obstore.get_async(self._store, _path(tenant, key))
            sealed = bytes(await result.bytes_async())
        except FileNotFoundError:
            raise NotFound("There is no such data.") from None
        except (BaseError, OSError) as error:
            raise Unavailable("The blob store did not answer.", reason="BLOB_STORE", retry_after_s=5) from error
        return await self._keyring.decrypt(tenant, sealed, key.encode())

    async def assemble(self, tenant: str, keys: Iterable[str], path: Path) -> str:
        """Writes the data under several keys into a file, one after the other; returns the file's SHA-256 in hex.

        Raises:
            OSError: The file could not be written.
            FacetmeshError: What `get` raises.
        """
        digest = hashlib.sha256()
        with path.open("wb") as file:

            def take(data: bytes) -> None:
                digest.update(data)
                file.write(data)

            for key in keys:
                if self._pace is not None:
                    await self._pace(tenant)
                await asyncio.to_thread(take, await self.get(tenant, key))
        return digest.hexdigest()

    async def delete(self, tenant: str, key: str) -> None:
        """Deletes data; nothing happens when there is none.

        Raises:
            Unavailable: The store did not answer, or a backup is being taken.
        """
        try:
            async with holds.deleting(self._folder) if self._folder else nullcontext():
                await obstore.delete_async(self._store, _path(tenant, key))
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise Unavailable("The blob store did not answer.", reason="BLOB_STORE", retry_after_s=5) from error

    async def delete_all(self, tenant: str) -> None:
        """Deletes all of a tenant's data.

        Raises:
            Unavailable: Something may be left: try again.
        """
        try:
            async for found in obstore.list(self._store, prefix=f"{tenant}/"):
                await obstore.delete_async(self._store, [one["path"] for one in found])
        except (BaseError, OSError) as error:  # FileNotFoundError too: another replica is at it
            raise Unavailable("The blob store did not answer.", reason="BLOB_STORE", retry_after_s=5) from error


def _flush(path: Path) -> None:
    """Has the kernel write a file now.

    It would write all that came within seconds at once, and whoever must have a few bytes on the same disk, such as an
    audit event, would wait for that.
    """
    with suppress(FileNotFoundError), path.open("rb") as file:  # it may have been deleted at once
        os.fdatasync(file.fileno())


def _path(tenant: str, key: str) -> str:
    return f"{tenant}/{key}"
