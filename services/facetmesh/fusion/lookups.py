"""Was this made here? By the file's hash, or, for a copy that was saved anew, by how the picture looks."""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from facetmesh.fusion.operations import Ref
from facetmesh.kit.errors import Internal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facetmesh.fusion.operations import Operation
    from facetmesh.runners.tasks import Runners

FARTHEST = 7
"""Pictures that differ in more of the 64 bits are not alike. Below the number of bands: alike pictures share a band."""
MOST = 10
"""How many fusions a look-up names at most."""
_TIMEOUT_S = 30.0
_FINGERPRINT = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Imprint:
    """What is kept of a result, to know it again."""

    operation_id: str
    sha256: str
    """Of the file, in hex."""
    fingerprint: str
    """64 bits of how it looks, in hex."""

    def distance(self, fingerprint: str) -> int:
        """In how many of the 64 bits it looks different."""
        return (int(self.fingerprint, 16) ^ int(fingerprint, 16)).bit_count()


@dataclass(frozen=True, slots=True)
class Match:
    """A fusion that may be meant."""

    operation: Operation
    distance: int | None
    """In how many of 64 bits it looks different; None for the file itself."""


class Store(Protocol):
    """Where imprints and operations are kept."""

    async def get(self, ref: Ref) -> Operation | None:
        """The operation; None when there is none."""
        ...

    async def imprint(self, tenant_id: str, imprint: Imprint) -> None:
        """Keeps an imprint."""
        ...

    async def imprints(self, tenant_id: str, *, sha256: str = "", fingerprint: str = "") -> list[Imprint]:
        """Those of the file, and those that share one of the bands of bits with the fingerprint, and others."""
        ...


class Looks(Protocol):
    """How pictures look: `Fingerprints`."""

    async def of(self, tenant_id: str, subject: str, image: bytes) -> str:
        """64 bits in hex."""
        ...


class Fingerprints:
    """How pictures look.

    Args:
        runners: Where the pipeline runs.
    """

    def __init__(self, runners: Runners) -> None:
        self._runners = runners

    async def of(self, tenant_id: str, subject: str, image: bytes) -> str:
        """64 bits in hex.

        Args:
            tenant_id: In whose process it is done.
            subject: What the process's deaths are held against.
            image: A JPEG, PNG or WebP file.

        Raises:
            InvalidArgument: It is refused (`runners.images`).
            Unavailable: The process died; a repeat is safe.
        """
        reply = await self._runners.call(
            domain=tenant_id, task="fingerprint", arguments={}, blobs=[image], subject=subject, timeout_s=_TIMEOUT_S
        )
        found = reply.values.get("fingerprint")
        if not isinstance(found, str) or not _FINGERPRINT.fullmatch(found):
            raise Internal("The pipeline's process gave no sensible answer.", reason="RUNNER_REPLY_INVALID")
        return found


class Lookups:
    """Finds fusions by what was made.

    Args:
        store: Where imprints are kept.
        fingerprints: How pictures look.
    """

    def __init__(self, store: Store, fingerprints: Looks) -> None:
        self._store = store
        self._fingerprints = fingerprints

    async def find(self, tenant_id: str, *, sha256: str = "", image: bytes = b"") -> Sequence[Match]:
        """The tenant's fusions that a file may be, the likeliest first; at most MOST.

        Args:
            tenant_id: Whose.
            sha256: Of the file, in hex; for the file itself only.
            image: The file, in place of its hash: for copies too.
        """
        fingerprint = ""
        if image:
            sha256 = hashlib.sha256(image).hexdigest()
            fingerprint = await self._fingerprints.of(tenant_id, f"lookups/{sha256}", image)
        near = {}
        for imprint in await self._store.imprints(tenant_id, sha256=sha256, fingerprint=fingerprint):
            if imprint.sha256 == sha256:
                near[imprint] = -1
            elif fingerprint and (distance := imprint.distance(fingerprint)) <= FARTHEST:
                near[imprint] = distance
        likeliest = sorted(near, key=lambda imprint: (near[imprint], imprint.operation_id))[:MOST]
        found = await asyncio.gather(*(self._store.get(Ref(tenant_id, imprint.operation_id)) for imprint in likeliest))
        return [
            Match(operation, None if near[imprint] < 0 else near[imprint])
            for imprint, operation in zip(likeliest, found, strict=True)
            # The index is a hint: an attempt may have left an imprint and no result.
            if operation is not None and operation.result is not None and operation.result.sha256 == imprint.sha256
        ]
