"""What unit tests share: small stand-ins for our own Protocols, and tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from facetmesh.auth.grants import Grant
from facetmesh.auth.signing import SigningKeys
from facetmesh.auth.tokens import TokenIssuer
from facetmesh.kit.errors import Aborted

from .audit_postgres import postgres_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .audit_postgres import PostgresServer
    from .audit_world import World

ISSUER = "https://issuer.test"
AUDIENCE = "facetmesh"


@dataclass
class Clock:
    """A clock that tests set."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        """Seconds since the epoch."""
        return self.now


@dataclass(frozen=True)
class Entry:
    """A value and its etag."""

    value: bytes
    etag: str


@dataclass
class MemoryState:
    """The Protocol of kit's stores over a dict. The contract suite holds the real ones to the same rules."""

    entries: dict[str, Entry] = field(default_factory=dict)
    writes: int = 0

    async def get(self, key: str) -> Entry | None:
        """The entry."""
        return self.entries.get(key)

    async def get_many(self, keys: Sequence[str]) -> dict[str, Entry]:
        """The entries that there are."""
        return {key: self.entries[key] for key in keys if key in self.entries}

    async def put(
        self, key: str, value: bytes, *, etag: str | None = None, create: bool = False, ttl_s: int | None = None
    ) -> None:
        """Stores value, first-write wins."""
        del ttl_s
        existing = self.entries.get(key)
        if (create and existing) or (etag is not None and (existing is None or existing.etag != etag)):
            raise Aborted("changed")
        self.writes += 1
        self.entries[key] = Entry(value, str(self.writes))

    async def delete(self, key: str, etag: str | None = None) -> None:
        """Deletes key; with an etag, only that version."""
        if etag is not None and (key not in self.entries or self.entries[key].etag != etag):
            raise Aborted("changed")
        self.entries.pop(key, None)


@dataclass
class Revoked:
    """Takes in what is revoked."""

    names: list[tuple[str, float]] = field(default_factory=list)

    async def __call__(self, name: str, until_s: float) -> None:
        """Takes it in."""
        self.names.append((name, until_s))


def pem() -> str:
    """A new P-256 key."""
    return generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def new_issuer(clock: Clock, issuer: str = ISSUER, audience: str = AUDIENCE) -> TokenIssuer:
    """Signs tokens of ten minutes with a key of its own."""
    keys = SigningKeys(pem(), clock, lead_s=90)
    return TokenIssuer(keys, issuer=issuer, audience=audience, lifetime_s=600, clock=clock)


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def revoked() -> Revoked:
    """Nothing revoked yet."""
    return Revoked()


@pytest.fixture
def state() -> MemoryState:
    """An empty state."""
    return MemoryState()


@pytest.fixture
def issuer(clock: Clock) -> TokenIssuer:
    """Signs tokens of ten minutes."""
    return new_issuer(clock)


@pytest.fixture
def acme_caller() -> Grant:
    """What a caller's key of the tenant acme gives right to."""
    return Grant("tenants/acme/keys/k1", "acme", ("caller",))


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of the tests' own."""
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def audit_world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """An audit log and services that use it, on each of the stores."""
    from .audit_world import World  # noqa: PLC0415 - it needs this module

    if request.param == "sqlite":
        return World.at(str(tmp_path / "audit.db"))
    return World.at(request.getfixturevalue("postgres").new_database())
