"""What the log is made of: an entry and what is kept beside it, before and after it is stored; and the log's head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

PLATFORM = "platform"
"""Under whose key the events of no tenant are encrypted; auth lets no tenant have this name."""


@dataclass(frozen=True, slots=True)
class Row:
    """An entry and what is kept beside it, ready to be stored."""

    id: str
    """The event's id."""
    tenant: str
    """The tenant's id; empty for the platform."""
    time_us: int
    """When the use ended, in microseconds since the epoch."""
    digest: bytes
    """SHA-256 of the signed event."""
    entry: bytes
    """What goes into the tree."""
    sealed: bytes
    """Salt and signed event, encrypted under the tenant's key."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What is kept of an entry's event."""

    index: int
    """The entry's place in the log, from 0."""
    id: str
    tenant: str
    time_us: int
    digest: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """The log at one moment."""

    size: int
    """How many entries it has."""
    root: bytes
    """Its root hash."""


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of rows that were appended."""

    head: Head
    """The log after the commit."""
    reused: frozenset[bytes]
    """Digests of the rows whose ids stand for other events. They were left out, and so were repeats."""


class Sealer(Protocol):
    """Encrypts under the tenants' keys."""

    async def encrypt(self, tenant: str, plaintext: bytes, aad: bytes = b"") -> bytes:
        """The ciphertext."""
        ...

    async def decrypt(self, tenant: str, sealed: bytes, aad: bytes = b"") -> bytes:
        """The plaintext. Raises NotFound when the tenant's key was destroyed."""
        ...
