"""Imprints in Dapr state: each in a bucket by its file's hash, and in one for each eighth of its fingerprint.

    tenants/{tenant}/imprints/{band}/{byte}/index/0    imprints that have that byte there

Pictures whose fingerprints differ in seven bits or fewer have at least one of the eight bytes in common.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from facetmesh.fusion.lookups import Imprint
from facetmesh.kit.index import Index

if TYPE_CHECKING:
    from collections.abc import Iterator

    from facetmesh.kit.dapr import State

_FILE = "file"
_BANDS = (*(str(band) for band in range(8)), _FILE)


class ImprintIndex:
    """The imprints of all tenants.

    Args:
        state: Dapr state of the app fusion.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    async def add(self, tenant_id: str, imprint: Imprint) -> None:
        """Keeps an imprint."""
        item = f"{imprint.operation_id}/{imprint.sha256}/{imprint.fingerprint}"
        places = _places(imprint.sha256, imprint.fingerprint)
        await asyncio.gather(*(self._bucket(tenant_id, band, byte).add(item) for band, byte in places))

    async def near(self, tenant_id: str, *, sha256: str = "", fingerprint: str = "") -> list[Imprint]:
        """All imprints that share a bucket with the hash or the fingerprint."""
        places = _places(sha256, fingerprint)
        found = await asyncio.gather(*(self._bucket(tenant_id, band, byte).ids() for band, byte in places))
        return [Imprint(*item.split("/")) for item in sorted({item for items in found for item in items})]

    async def clear(self, tenant_id: str) -> None:
        """Removes a tenant's imprints."""
        for band in _BANDS:
            buckets = (self._bucket(tenant_id, band, f"{byte:02x}") for byte in range(256))
            await asyncio.gather(*(bucket.clear() for bucket in buckets))

    def _bucket(self, tenant_id: str, band: str, byte: str) -> Index:
        return Index(self._state, f"tenants/{tenant_id}/imprints/{band}/{byte}")


def _places(sha256: str, fingerprint: str) -> Iterator[tuple[str, str]]:
    if sha256:
        yield _FILE, sha256[:2]
    for band in range(len(fingerprint) // 2):
        yield str(band), fingerprint[2 * band : 2 * band + 2]
