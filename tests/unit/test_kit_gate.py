"""Between a caller who is known and the work: policies and limits, in the real guard over gRPC."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from tests.security.test_matrix import handlers

from facetmesh.auth.grants import Grant
from facetmesh.auth.plans import Limits
from facetmesh.auth.v1 import auth_pb2, limits_pb2, policy_pb2
from facetmesh.detection.v1 import detection_pb2, detection_pb2_grpc
from facetmesh.kit import audit, status
from facetmesh.kit.gate import Gate
from facetmesh.kit.places import Places
from facetmesh.kit.policy import Policies, PolicySet
from facetmesh.kit.profiles import Profile, Unlimited
from facetmesh.kit.rpc import Guard
from facetmesh.kit.signing import EventSigner
from facetmesh.kit.telemetry import Metrics
from facetmesh.kit.verifier import TokenVerifier

from .bus import Bus
from .conftest import AUDIENCE, ISSUER, new_issuer
from .limits_world import ACME, LimitsWorld

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from facetmesh.kit.errors import FacetmeshError


FACES = f"{ACME}/models/faces"
ALL = '@id("all") permit (principal, action, resource);\n'


class Door:
    """A guarded detection that answers whoever reaches it."""

    def __init__(self, world: LimitsWorld, log: Bus, stub: Any) -> None:
        """Built by `guarded`."""
        self.world = world
        self.log = log
        self.issuer = new_issuer(world.clock)
        self.stub = stub
        self.channel: Any = None

    async def detect(self, role: str = "caller", subject: str = f"{ACME}/keys/k1") -> FacetmeshError | None:
        """What a call is refused with."""
        metadata = (("authorization", f"Bearer {self.issuer.issue(Grant(subject, 'acme', (role,)))[0]}"),)
        request = detection_pb2.DetectRequest(model=FACES, image=b"x")
        try:
            await self.stub.Detect(request, metadata=metadata, timeout=30)
        except grpc.aio.AioRpcError as error:
            return status.from_rpc_error(error)
        return None


@asynccontextmanager
async def guarded(
    world: LimitsWorld, *, held_bytes: int = 1 << 30, **options: Any
) -> AsyncIterator[Door]:
    """A guard with a gate."""
    log, metrics = Bus(), Metrics.create()
    door = Door(world, log, None)
    recorder = audit.Recorder("test", EventSigner("detection", bytes(32)), log, metrics, clock=world.clock)
    verifier = TokenVerifier(door.issuer, issuer=ISSUER, audience=AUDIENCE, clock=world.clock)
    gate = Gate(region="local", clock=world.clock, **options)
    guard = Guard(verifier, recorder, metrics, places=Places(64, held_bytes, 1 << 20), gate=gate)
    server = grpc.aio.server(interceptors=[guard])
    server.add_generic_rpc_handlers(tuple(handlers([])))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        door.channel = channel
        door.stub = detection_pb2_grpc.DetectionServiceStub(channel)
        yield door
    await server.stop(0)
    await recorder.close()


def ruled(text: str) -> Policies:
    """Acme's own policies."""
    policies = Policies()
    policies.use(ACME, PolicySet(f"{ACME}/policies/1", ALL + text))
    return policies


@pytest.fixture
def world() -> LimitsWorld:
    return LimitsWorld()


async def test_a_policy_refuses_and_the_event_says_which(world: LimitsWorld) -> None:
    forbid = '@id("no") forbid (principal in Role::"caller", action in Action::"infers", resource);'
    async with guarded(world, policies=ruled(forbid)) as door:
        refused = await door.detect()
        assert refused is not None
        assert (refused.code, refused.reason) == ("PERMISSION_DENIED", "POLICY_DENIED")
        assert await door.detect("tenant-admin") is None
    denied, done = door.log.events
    assert (list(denied.deciding_policies), list(denied.roles)) == ([f"{ACME}/policies/1#no"], ["caller"])
    assert list(done.deciding_policies) == ["platform/policies/default#tenant-admins", f"{ACME}/policies/1#all"]


async def test_a_stream_keeps_the_room_of_its_largest_message_for_as_long_as_it_is_open(
    world: LimitsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next may be as large, and how large it is, is known when it lies in memory."""
    monkeypatch.setattr("facetmesh.kit.places._PATIENCE_S", 0.1)
    async with guarded(world, held_bytes=2 << 20) as door:
        token, _ = door.issuer.issue(Grant(f"{ACME}/keys/k1", "acme", ("caller",)))
        stream = door.stub.DetectStream(metadata=(("authorization", f"Bearer {token}"),), timeout=30)
        await stream.write(detection_pb2.DetectStreamRequest(settings={"model": FACES}))
        await stream.write(detection_pb2.DetectStreamRequest(frame={"image": b"x"}))
        async with asyncio.timeout(30):
            while await door.detect() is not None:  # until the stream's first message has come
                pass
        await stream.write(detection_pb2.DetectStreamRequest(frame={"image": bytes(700_000)}))
        await stream.write(detection_pb2.DetectStreamRequest(frame={"image": b"x"}))
        async with asyncio.timeout(30):
            while (refused := await door.detect()) is None:  # until it has come
                pass
        assert refused.reason == "TOO_MANY_BYTES"
        await stream.done_writing()
        while await stream.read() is not grpc.aio.EOF:
            pass
        assert await door.detect() is None


@pytest.mark.parametrize("licence", ["AGPL-3.0", "MIT"])
async def test_what_only_the_service_knows_is_asked_where_policies_want_it(world: LimitsWorld, licence: str) -> None:
    asked: list[str] = []

    async def facts(name: str) -> Mapping[str, str]:
        asked.append(name)
        return {"licence": licence}

    forbid = (
        '@id("no") forbid (principal, action, resource is Model) '
        'when { resource has licence && resource.licence == "AGPL-3.0" };'
    )
    async with guarded(world, policies=ruled(forbid), facts=facts) as door:
        assert (await door.detect() is None) == (licence == "MIT")
        assert asked == [FACES]
    async with guarded(world, policies=ruled(""), facts=facts) as door:
        assert await door.detect() is None
        assert asked == [FACES]


async def test_limits_count_for_tenants_and_not_for_the_services_that_act_for_them(world: LimitsWorld) -> None:
    await world.tenant(Limits(requests_per_s=2))
    leases, _ = world.replica()
    async with guarded(world, limiter=leases) as door:
        outcomes = [await door.detect() for _ in range(10)]
        refused = [one for one in outcomes if one is not None]
        assert len(refused) >= 3
        assert {(one.code, one.reason) for one in refused} == {("RESOURCE_EXHAUSTED", "RATE_LIMITED")}
        assert all(one.retry_after_s for one in refused)
        assert await door.detect("service", "services/fusion") is None


async def test_places_are_given_back_whatever_becomes_of_a_call(world: LimitsWorld) -> None:
    await world.tenant(Limits(concurrency=2))
    leases, _ = world.replica()
    async with guarded(world, policies=ruled(""), limiter=leases) as door:
        for _ in range(5):
            assert await door.detect() is None
            door.log.away = True
            refused = await door.detect()
            assert refused is not None
            assert refused.code == "UNAVAILABLE"
            door.log.away = False


async def test_best_effort_does_not_wait_for_the_event_of_work_and_all_else_does(world: LimitsWorld) -> None:
    profiles = Unlimited(Profile(best_effort_audit=True))
    async with guarded(world, profiles=profiles) as door:
        door.log.away = True
        assert await door.detect() is None
    async with guarded(world, profiles=Unlimited(Profile())) as door:
        door.log.away = True
        refused = await door.detect()
        assert refused is not None
        assert refused.code == "UNAVAILABLE"


async def test_what_could_not_be_taken_back_is_beyond_policies(world: LimitsWorld) -> None:
    policies = Policies()
    policies.use("platform", PolicySet("platform/policies/1", '@id("stop") forbid (principal, action, resource);'))
    async with guarded(world, policies=policies) as door:
        refused = await door.detect()
        assert refused is not None
        assert refused.reason == "POLICY_DENIED"

        async def call(method: str, request: Any, grant: Grant) -> None:
            metadata = (("authorization", f"Bearer {door.issuer.issue(grant)[0]}"),)
            await door.channel.unary_unary(f"/facetmesh.auth.v1.{method}", lambda one: one.SerializeToString())(
                request, metadata=metadata, timeout=30
            )

        admin = Grant("platform/admin", None, ("platform-admin",))
        report = limits_pb2.LeaseBudgetsRequest(replica="0" * 16, number=1)
        await call("BudgetService/LeaseBudgets", report, Grant("services/fusion", None, ("service",)))
        default = policy_pb2.ActivatePolicyRequest(name="platform/policies/default")
        await call("PolicyService/ActivatePolicy", default, admin)
        with pytest.raises(grpc.aio.AioRpcError):
            await call("AuthService/ListTenants", auth_pb2.ListTenantsRequest(), admin)
