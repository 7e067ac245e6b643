"""What the tests of the audit log and of receipts share: real keys, a real log in a file, events of real services."""

from __future__ import annotations

import base64
import functools
import hashlib
import secrets
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from facetmesh.audit.announcements import announcement, in_order
from facetmesh.audit.database import LogDatabase
from facetmesh.audit.fsck import fsck
from facetmesh.audit.intake import Intake
from facetmesh.audit.log import Log
from facetmesh.audit.merkle import Tree
from facetmesh.audit.note import LogSigner
from facetmesh.audit.postgres import PostgresConnection
from facetmesh.audit.receipts import Receipts
from facetmesh.audit.servicer import receipt_message
from facetmesh.audit.sqlite import SqliteConnection
from facetmesh.audit.store import Store
from facetmesh.event.v1.event_pb2 import AuditEvent
from facetmesh.kit.eventids import new_event_id
from facetmesh.kit.keyring import Keyring
from facetmesh.kit.signing import EventSigner
from facetmesh.verify.event import ServiceKey

from .conftest import Clock, MemoryState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from facetmesh.audit.connection import Connection
    from facetmesh.audit.fsck import Problem
    from facetmesh.audit.v1 import audit_pb2

ORIGIN = "log.test/audit"


class Leaves:
    """Tiles over given leaf hashes, built in steps as a log would."""

    def __init__(self, hashes: list[bytes], step: int = 37) -> None:
        """Builds them."""
        self.hashes = hashes
        self.tiles: dict[tuple[int, int], bytes] = {}
        for start in range(0, len(hashes), step):
            self.tiles.update(Tree(self, start).extended(hashes[start : start + step]))

        self.root = functools.cache(lambda size: Tree(self, size).root())

    def tile(self, level: int, number: int) -> bytes:
        """A tile."""
        return self.tiles.get((level, number), b"")


def seed(name: str) -> bytes:
    """A private key for tests."""
    return hashlib.sha256(f"seed of {name}".encode()).digest()


def service_key(service: str) -> ServiceKey:
    """The public half of a service's event key."""
    private = Ed25519PrivateKey.from_private_bytes(seed(service))
    return ServiceKey(service, private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


@dataclass
class World:
    """A log, and services that use it."""

    path: Path
    """The SQLite file, where `connection` does not lead elsewhere."""
    connection: Callable[[], Connection] | None = None
    address: str = ""
    """What `at` takes, where the world is needed by another process."""
    state: MemoryState = field(default_factory=MemoryState)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        """Makes the keys."""
        self.signer = LogSigner(ORIGIN, seed("log"))
        self.verifier_key = str(self.signer.verifier)
        self.services = {name: EventSigner(name, seed(name)) for name in ("audit", "auth", "detection")}
        self.keys = [service_key(name) for name in ("auth", "audit", "detection")]
        self.keyring = Keyring(self.state, seed("kek"))
        self.intake = Intake(self.keys, self.clock)

    @classmethod
    def at(cls, address: str) -> World:
        """The world whose log is at an address: a file's path or PostgreSQL's URL."""
        if address.startswith("postgresql:"):
            return cls(Path("none.db"), lambda: PostgresConnection(address), address)
        return cls(Path(address), address=address)

    def connect(self) -> Connection:
        """A connection with the log's database."""
        return self.connection() if self.connection else SqliteConnection(self.path)

    def store(self) -> AbstractAsyncContextManager[Store]:
        """The log's store."""
        return Store.open(self.connect)

    @asynccontextmanager
    async def log(self) -> AsyncIterator[tuple[Log, Store]]:
        """The log as the service opens it: with its services' keys announced."""
        async with self.store() as store:
            log = await Log.open(store, self.keyring, self.signer, self.intake)
            for key in in_order(self.keys):
                await log.announce(announcement(key, self.services["audit"], now_s=self.clock(), region="test"))
            yield log, store

    def event(self, service: str = "detection", **fields: Any) -> AuditEvent:
        """An event of a service; fields replace what it says."""
        salt = secrets.token_bytes(16)
        event = AuditEvent(
            id=new_event_id(), service=service, method=f"facetmesh.{service}.v1.X/Y", tenant="tenants/acme",
            subject="tenants/acme/keys/k1", outcome=AuditEvent.OUTCOME_OK, code="OK", content_salt=salt,
            input_hashes=[hashlib.sha256(salt + hashlib.sha256(b"a photo").digest()).digest()],
            output_hash=hashlib.sha256(salt + hashlib.sha256(b"a result").digest()).digest(),
        )
        event.time.FromMicroseconds(int(self.clock() * 1e6))
        for name, value in fields.items():
            setattr(event, name, value)
        return event

    def signed(self, service: str = "detection", **fields: Any) -> bytes:
        """A signed event of a service."""
        return self.services[service].sign(self.event(service, **fields))

    async def fill(self, count: int = 300) -> None:
        """Puts events into the log."""
        async with self.log() as (log, _):
            await log.ingest([self.signed() for _ in range(count)])

    async def problems(self) -> list[Problem]:
        """What fsck says of the log."""
        with closing(self.connect()) as connection:
            return await fsck(LogDatabase(connection), self.keyring)

    def alter(self, statement: str, *values: object) -> None:
        """Changes a row of the store behind the log's back."""
        with closing(self.connect()) as connection, connection.writing():
            assert len(connection.query(f"{statement} RETURNING 1", *values)) == 1

    def value(self, query: str) -> bytes:
        """A value in the store."""
        with closing(self.connect()) as connection:
            ((value,),) = connection.query(query)
        return bytes(value)

    async def receipt(self, log: Log, event: AuditEvent) -> audit_pb2.Receipt:
        """The receipt of an event, as the API gives it."""
        made = await Receipts(log, self.keyring).get(event.tenant.removeprefix("tenants/"), event.id, wait_s=0)
        return receipt_message(f"{event.tenant}/receipts/{event.id}", made)


def b64(value: bytes) -> str:
    """Base64."""
    return base64.b64encode(value).decode()
