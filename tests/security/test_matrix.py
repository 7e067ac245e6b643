"""Every RPC against everybody who must not get in, generated from the descriptors.

Behind the real guard stand servicers that answer whatever they are asked: what
reaches one of them without a right is a leak.
"""

from __future__ import annotations

import asyncio
import collections
import functools
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from hypothesis import Phase, find, settings
from tests.security.api import METHODS, kind, multicallable, path, references, refusal, valid
from tests.unit.bus import Bus
from tests.unit.conftest import AUDIENCE, ISSUER, Clock, new_issuer

from facetmesh.auth.grants import Grant
from facetmesh.kit import access, audit
from facetmesh.kit.gate import Gate
from facetmesh.kit.identity import ROLE_NAMES
from facetmesh.kit.places import Places
from facetmesh.kit.policy import PLATFORM_DEFAULT, Policies, PolicySet, vocabulary
from facetmesh.kit.revocations import Revocation
from facetmesh.kit.rpc import Guard
from facetmesh.kit.signing import EventSigner
from facetmesh.kit.telemetry import Metrics
from facetmesh.kit.verifier import CLOCK_SKEW_S, TokenVerifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.message import Message

    from facetmesh.auth.tokens import TokenIssuer

LIFETIME_S = 600
_ASKED_AGAIN = 10
Cell = tuple[str, str, str]
"""The status code, the reason and the message of a refusal; all empty where the servicer was reached."""


@dataclass
class Api:
    """All services behind one guard."""

    channel: grpc.aio.Channel
    clock: Clock
    issuer: TokenIssuer
    verifier: TokenVerifier
    policies: Policies
    reached: list[str] = field(default_factory=list)

    def token(self, role: str, *, methods: Sequence[str] = (), models: Sequence[str] = ()) -> str:
        """A token as auth would issue it to a key of acme, or to the platform admin."""
        if role == "platform-admin":
            grant = Grant("platform/admin", None, (role,), tuple(methods), tuple(models))
        else:
            grant = Grant("tenants/acme/keys/k1", "acme", (role,), tuple(methods), tuple(models))
        return self.issuer.issue(grant)[0]

    async def call(self, method: MethodDescriptor, request: Message, token: str | None) -> Cell:
        """What becomes of a call.

        Where a call is refused while it sends, grpc.aio may take its own failed write for the answer: it asks again.
        """
        for _ in range(_ASKED_AGAIN):
            told = await self._once(method, request, token)
            if not (method.client_streaming and told[0] == "INTERNAL"):
                break
        return told

    async def _once(self, method: MethodDescriptor, request: Message, token: str | None) -> Cell:
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        reached = len(self.reached)
        try:
            call = multicallable(self.channel, method)(request, metadata=metadata, timeout=60)
            if method.server_streaming:
                async for _ in call:
                    pass
            else:
                await call
        except grpc.aio.AioRpcError as error:
            told = refusal(error)
            assert len(self.reached) == reached, f"{path(method)} was refused after it was done"
            return told.code, told.reason, told.message
        assert len(self.reached) == reached + 1
        return "", "", ""


def handlers(reached: list[str]) -> list[grpc.GenericRpcHandler[Any, Any]]:
    """A servicer of each service that answers everybody."""
    services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = collections.defaultdict(dict)
    for method in METHODS:

        async def unary(request: Any, __: Any, method: MethodDescriptor = method) -> Message:
            await everything(request, method)
            reached.append(path(method))
            return kind(method.output_type)()

        async def stream(request: Any, __: Any, method: MethodDescriptor = method) -> AsyncIterator[Message]:
            await everything(request, method)
            reached.append(path(method))
            yield kind(method.output_type)()

        shape = tuple("stream" if yes else "unary" for yes in (method.client_streaming, method.server_streaming))
        make = getattr(grpc, "_".join(shape) + "_rpc_method_handler")
        services[method.containing_service.full_name][method.name] = make(
            stream if method.server_streaming else unary,
            kind(method.input_type).FromString, lambda message: message.SerializeToString(),
        )  # fmt: skip
    return [grpc.method_handlers_generic_handler(name, methods) for name, methods in services.items()]


async def everything(request: Any, method: MethodDescriptor) -> None:
    """Reads a stream of requests to its end."""
    if method.client_streaming:
        async for _ in request:
            pass


@asynccontextmanager
async def served() -> AsyncIterator[Api]:
    """The API on a port of its own."""
    clock = Clock()
    issuer = new_issuer(clock)
    metrics = Metrics.create()
    recorder = audit.Recorder("test", EventSigner("auth", bytes(32)), Bus(), metrics, clock=clock)
    verifier = TokenVerifier(issuer, issuer=ISSUER, audience=AUDIENCE, clock=clock)
    policies = Policies()
    guard = Guard(verifier, recorder, metrics, places=Places(64, 1 << 30, 1 << 20), gate=Gate(policies))
    server = grpc.aio.server(interceptors=[guard])
    reached: list[str] = []
    server.add_generic_rpc_handlers(tuple(handlers(reached)))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Api(channel, clock, issuer, verifier, policies, reached)
    await server.stop(0)
    await recorder.close()


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """The API on a port of its own."""
    async with served() as made:
        yield made


@functools.cache
def request_of(method: MethodDescriptor, tenant: str) -> Message:
    """The simplest request that keeps the rules."""
    return find(
        valid(method.input_type, tenant), lambda _: True,
        settings=settings(phases=[Phase.generate], database=None, max_examples=1),
    )  # fmt: skip


def with_one_name_of(method: MethodDescriptor, tenant: str, at: tuple[str, ...]) -> Message:
    """A request of acme in which one field names what is another tenant's."""
    request = kind(method.input_type)()
    request.CopyFrom(request_of(method, "acme"))
    *parents, last = at
    holder, other = request, request_of(method, tenant)
    for parent in parents:
        holder, other = getattr(holder, parent), getattr(other, parent)
    value = getattr(other, last)
    if isinstance(value, str):
        # The request has nothing there where it chose another field of a oneof.
        setattr(holder, last, value or f"tenants/{tenant}/models/faces")
    else:
        getattr(holder, last).append(f"tenants/{tenant}/models/faces")
    return request


async def attacks(api: Api, method: MethodDescriptor) -> AsyncIterator[tuple[str, Cell, tuple[str, str]]]:
    """What was tried, what became of it, and what should."""
    rule = access.rule(path(method))
    own = request_of(method, "acme")
    role = min(rule.roles)
    yield "no token", await api.call(method, own, None), ("UNAUTHENTICATED", "TOKEN_MISSING")
    for token in ("", "x", "a.b.c", "x" * 5000, api.token(role)[:-6] + "AAAAAA"):
        yield "garbage", await api.call(method, own, token), ("UNAUTHENTICATED", "TOKEN_INVALID")
    forger = new_issuer(api.clock)
    token = forger.issue(Grant("platform/admin", None, tuple(ROLE_NAMES.values())))[0]
    yield "forged", await api.call(method, own, token), ("UNAUTHENTICATED", "TOKEN_INVALID")
    token = api.token(role)
    api.clock.now += LIFETIME_S + CLOCK_SKEW_S
    yield "expired", await api.call(method, own, token), ("UNAUTHENTICATED", "TOKEN_EXPIRED")
    for name in ["platform/admin"] if role == "platform-admin" else ["tenants/acme/keys/k1", "tenants/acme"]:
        token = api.token(role)
        api.verifier.hear([Revocation(name, api.clock.now)])
        yield "revoked", await api.call(method, own, token), ("UNAUTHENTICATED", "TOKEN_REVOKED")
        api.clock.now += 1
    for wrong in set(ROLE_NAMES.values()) - rule.roles:
        yield "wrong role", await api.call(method, own, api.token(wrong)), ("PERMISSION_DENIED", "ROLE_MISSING")
    limited = ("PERMISSION_DENIED", "SCOPE_MISSING")
    token = api.token(role, methods=["facetmesh.other.v1.OtherService/*", f"{path(method)}Not"])
    yield "out of scope", await api.call(method, own, token), limited
    if access.models(None, own):
        token = api.token(role, models=["tenants/acme/models/other"])
        yield "out of scope", await api.call(method, own, token), limited
    if role != "platform-admin" or "PolicyService" not in path(method):  # that could not be taken back
        owner = "platform" if role == "platform-admin" else "tenants/acme"
        forbid = f'@id("no") forbid (principal, action == Action::"{vocabulary.action(path(method)).id}", resource);'
        api.policies.use(owner, PolicySet(f"{owner}/policies/1", f"{PLATFORM_DEFAULT}\n{forbid}"))
        yield "policy forbids", await api.call(method, own, api.token(role)), ("PERMISSION_DENIED", "POLICY_DENIED")
        api.policies.use(owner, None)
    for role in rule.roles - {"platform-admin"}:
        for at in references(method.input_type):
            for tenant in ("globex", "nobody"):
                request = with_one_name_of(method, tenant, at)
                denied = ("PERMISSION_DENIED", "TENANT_MISMATCH")
                yield "other tenant's", await api.call(method, request, api.token(role)), denied


async def test_nobody_gets_in_who_should_not(api: Api, capsys: pytest.CaptureFixture[str]) -> None:
    counts: dict[str, collections.Counter[str]] = {}
    leaks: list[str] = []
    told: dict[str, set[str]] = collections.defaultdict(set)
    for method in METHODS:
        if access.rule(path(method)).public:
            continue
        counts[path(method)] = collections.Counter()
        async for attack, (code, reason, message), expected in attacks(api, method):
            counts[path(method)][attack] += 1
            told[f"{expected[1]}"].add(message)
            if (code, reason) != expected:
                leaks.append(f"{path(method)}: {attack}: {code or 'let in'} {reason}, expected {expected}")
    columns = list(dict.fromkeys(attack for row in counts.values() for attack in row))
    with capsys.disabled():
        print(f"\n{'refused, of all that was tried':62}" + "".join(f"{column:>16}" for column in columns))  # noqa: T201
        for name, row in counts.items():
            print(f"{name:62}" + "".join(f"{row[column]:16}" for column in columns))  # noqa: T201
        total = sum(row.total() for row in counts.values())
        print(f"{len(counts)} RPCs, {total} attempts, {len(leaks)} leaks")  # noqa: T201
    assert leaks == []
    assert api.reached == []
    # What exists and what does not, and whose it is, sound the same.
    assert len(told["TENANT_MISMATCH"]) == len(told["ROLE_MISSING"]) == 1
    assert len(told["SCOPE_MISSING"]) == 2  # methods, models


async def test_who_has_the_right_gets_in(api: Api) -> None:
    for method in METHODS:
        rule = access.rule(path(method))
        tokens: list[str | None] = [None] if rule.public else [api.token(role) for role in rule.roles]
        for role in rule.roles:
            models = list(access.models(None, request_of(method, "acme")))
            service = method.containing_service.full_name
            tokens += [api.token(role, methods=[name], models=models) for name in (path(method), f"{service}/*")]
        async with asyncio.timeout(120):
            for token in tokens:
                assert await api.call(method, request_of(method, "acme"), token) == ("", "", ""), path(method)
