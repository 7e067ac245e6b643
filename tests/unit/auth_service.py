"""auth as it is served, over a state in memory and with real tokens."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from facetmesh.auth.grants import Grant
from facetmesh.auth.onboarding import Onboarding
from facetmesh.auth.orders import Orders
from facetmesh.auth.revocations import RevocationLog
from facetmesh.auth.servicer import Auth, AuthServicer
from facetmesh.auth.store import DaprStore
from facetmesh.auth.v1 import auth_pb2_grpc
from facetmesh.kit import apikeys, audit, status, telemetry
from facetmesh.kit.places import Places
from facetmesh.kit.revocations import follow
from facetmesh.kit.rpc import Guard
from facetmesh.kit.signing import EventSigner
from facetmesh.kit.telemetry import Metrics
from facetmesh.kit.tls import TlsFiles, channel, listen
from facetmesh.kit.verifier import TokenVerifier
from facetmesh.verify.event import ServiceKey, open_event

from .auth_world import PLANS, world_over
from .bus import Bus
from .conftest import AUDIENCE, ISSUER, Clock, MemoryState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from facetmesh.auth.tokens import TokenIssuer
    from facetmesh.event.v1 import event_pb2
    from facetmesh.kit.dapr import Outgoing
    from facetmesh.kit.revocations import Revocation

SEED = bytes(range(32))
ADMIN = apikeys.new_key(apikeys.PLATFORM, "admin")
FUSION = apikeys.new_key(apikeys.SERVICES, "fusion")


@dataclass
class Gated(Bus):
    """Takes events that are auth's, once the gate is open."""

    batches: int = 0
    some: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """Opens the gate."""
        self.gate.set()

    async def publish_many(self, topic: str, events: Sequence[Outgoing], *, type: str) -> list[str]:  # noqa: A002
        """Verifies and keeps audit events."""
        assert (topic, type) == (audit.TOPIC, audit.EVENT_TYPE)
        self.batches += 1
        await self.gate.wait()
        public = Ed25519PrivateKey.from_private_bytes(SEED).public_key()
        for event_id, data, _ in events:
            key = ServiceKey("auth", public.public_bytes(Encoding.Raw, PublicFormat.Raw))
            assert open_event(data, {key.id: key}).id == event_id
        failed = await super().publish_many(topic, events, type=type)
        self.some.set()
        return failed

    async def last(self, count: int) -> event_pb2.AuditEvent:
        """The last event, once there are count."""
        async with asyncio.timeout(60):
            while len(self.events) < count:
                self.some.clear()
                await self.some.wait()
        return self.events[-1]


@dataclass
class Rig:
    """A served auth."""

    stub: Any
    bus: Gated
    issuer: TokenIssuer
    metrics: Metrics
    address: str = ""

    def pending(self) -> int:
        """How many events wait."""
        return int(self.metrics.audit_pending._value.get())

    def metadata(self, grant: Grant, **more: str) -> tuple[tuple[str, str], ...]:
        """The metadata of a caller with this grant."""
        return ("authorization", f"Bearer {self.issuer.issue(grant)[0]}"), *more.items()


@asynccontextmanager
async def served(
    state: MemoryState, issuer: TokenIssuer, clock: Clock, limit: int = 128, files: TlsFiles | None = None
) -> AsyncIterator[Rig]:
    """Auth on a port of its own."""
    files = files or TlsFiles()
    bus, metrics = Gated(), Metrics.create()
    recorder = audit.Recorder("test", EventSigner("auth", SEED), bus, metrics, clock=clock)
    verifier = TokenVerifier(issuer, issuer=ISSUER, audience=AUDIENCE, clock=clock)
    guard = Guard(verifier, recorder, metrics, places=Places(limit, 1 << 30, 1 << 20))
    server = grpc.aio.server(interceptors=[telemetry.server_interceptor(), guard])
    store: Any = DaprStore(state)  # type: ignore[arg-type]

    async def announce(_: Revocation) -> None:
        """Nobody listens."""

    revocations = RevocationLog(store, announce, clock, asyncio.Event())
    own = {parsed: text for text in (ADMIN, FUSION) if (parsed := apikeys.parse(text))}
    world = world_over(store, clock, revocations.add, own)
    onboarding = Onboarding(world.tenants, world.keys)
    orders = Orders(store, ("fusion",), clock)
    servicer = AuthServicer(
        Auth(PLANS, world.tenants, world.keys, onboarding, world.grants, issuer, revocations, orders)
    )
    auth_pb2_grpc.add_AuthServiceServicer_to_server(servicer, server)
    port = listen(server, "127.0.0.1", 0, files)
    await server.start()
    following = asyncio.create_task(follow(revocations, verifier.hear))
    async with channel(f"127.0.0.1:{port}", files) as opened:
        yield Rig(auth_pb2_grpc.AuthServiceStub(opened), bus, issuer, metrics, f"127.0.0.1:{port}")
    following.cancel()
    await server.stop(0)
    await recorder.close()


PLATFORM = Grant("platform/admin", None, ("platform-admin",))
ACME_ADMIN = Grant("tenants/acme/keys/a", "acme", ("tenant-admin",))
ACME_CALLER = Grant("tenants/acme/keys/c", "acme", ("caller",))
GLOBEX_ADMIN = Grant("tenants/globex/keys/a", "globex", ("tenant-admin",))


async def refusal(call: Any) -> tuple[str, str, str]:
    """Code, reason and message of a call that fails, which must carry an ErrorInfo of ours."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    trailing = dict(raised.value.trailing_metadata() or ())
    assert status.DETAILS_KEY in trailing
    error = status.from_rpc_error(raised.value)
    return raised.value.code().name, error.reason, error.message
