"""What it costs to know who calls and what he may do: `make bench-auth`.

Ratios are of one run: what is compared is measured in turns, and the best of several
rounds counts, since noise only ever adds.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from jwt.utils import base64url_decode

from bench.common import Machine, busy, seconds_each, write
from facetmesh.audit.v1 import audit_pb2, audit_pb2_grpc
from facetmesh.auth.exchange import Exchange
from facetmesh.auth.ext_authz import KEY_HEADER, checking
from facetmesh.auth.grants import Grant
from facetmesh.auth.keys import KeyHash
from facetmesh.auth.signing import SigningKeys
from facetmesh.auth.tokens import TokenIssuer
from facetmesh.auth.v1 import auth_pb2, auth_pb2_grpc
from facetmesh.client import ROLE_AUDITOR, ROLE_CALLER, AsyncClient, Endpoints
from facetmesh.envoy.service.auth.v3 import external_auth_pb2, external_auth_pb2_grpc
from facetmesh.fusion.v1 import fusion_pb2, fusion_pb2_grpc
from facetmesh.inference import inference_pb2, inference_pb2_grpc
from facetmesh.kit import apikeys, status
from facetmesh.kit.budgets import Amounts, Lease
from facetmesh.kit.budgets import Grant as BudgetGrant
from facetmesh.kit.leases import Leases
from facetmesh.kit.policy import Circumstances, Policies, PolicySet, Question, decide
from facetmesh.kit.verifier import TokenVerifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from facetmesh.kit.budgets import Report

_ISSUER, _AUDIENCE = "https://issuer.bench", "facetmesh"
_TENANT, _KEY = "tenants/acme", "tenants/acme/keys/k1"
_DETECT = "facetmesh.detection.v1.DetectionService/Detect"
_BURST, _BURSTS = 160, 150
_BATCH, _BATCHES = 10, 200
"""As these: short ones, and many, because on a machine that does other work too some are undisturbed."""
_IN_FLIGHT = 16
_LOAD_PER_S = {"auth": 50, "detection": 1150, "fusion": 50, "audit": 50}
"""Calls a second that callers try to make, for 1,000 together that are answered. Most go where a call costs little."""
_POLICIES = 30
_GRANT = Grant(_KEY, "acme", ("caller",))


def issuer() -> TokenIssuer:
    """Signs tokens."""
    key = generate_private_key(SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return TokenIssuer(
        SigningKeys(pem, time.time, lead_s=0), issuer=_ISSUER, audience=_AUDIENCE, lifetime_s=600, clock=time.time
    )


async def verification() -> dict[str, float]:
    """Verifying a token that was seen before, and one that was not against its bare signature."""
    made = issuer()
    tokens = [made.issue(_GRANT)[0] for _ in range(_BATCH)]
    verifier = TokenVerifier(made, issuer=_ISSUER, audience=_AUDIENCE)
    await verifier.verify(tokens[0])
    public = next(iter(verifier._keys.values())).key  # noqa: SLF001 - the same key, for the bare check
    signed = []
    for token in tokens:
        data, _, signature = token.rpartition(".")
        raw = base64url_decode(signature)
        r, s = int.from_bytes(raw[:32]), int.from_bytes(raw[32:])
        signed.append((encode_dss_signature(r, s), data.encode()))
    hit, miss, bare = [], [], []
    for _ in range(_BATCHES):
        start = time.perf_counter()
        for proof, said in signed:
            public.verify(proof, said, ECDSA(SHA256()))
        bare.append((time.perf_counter() - start) / _BATCH)
        verifier._verified.clear()  # noqa: SLF001 - tokens that were not seen
        start = time.perf_counter()
        for token in tokens:
            await verifier.verify(token)
        miss.append((time.perf_counter() - start) / _BATCH)
        start = time.perf_counter()
        for token in tokens:
            await verifier.verify(token)
        hit.append((time.perf_counter() - start) / _BATCH)
    return {
        "verify_hit_us": _us(min(hit)), "verify_miss_us": _us(min(miss)), "bare_signature_us": _us(min(bare)),
        "verify_miss_ratio": round(min(miss) / min(bare), 2),
    }  # fmt: skip


def policies() -> dict[str, float]:
    """Deciding by policy: evaluated, and remembered."""
    extra = "".join(
        f'@id("p{number}") forbid (principal, action == Action::"detection.Detect", resource)'
        f' when {{ context.hour < {number % 3} && context.region == "r{number}" }};\n'
        for number in range(_POLICIES)
    )
    own = PolicySet(f"{_TENANT}/policies/1", f'@id("all") permit (principal, action, resource);\n{extra}')
    in_force = Policies()
    in_force.use(_TENANT, own)
    question = Question(_KEY, _TENANT, frozenset({"caller"}), _DETECT, f"{_TENANT}/models/faces")
    now = Circumstances(time.time(), "local", "standard", "192.0.2.1")
    shipped = PolicySet.default("platform")
    return {
        "policy_evaluated_us": _us(_quick(lambda: decide(question, now, [shipped]))),
        f"policy_evaluated_{_POLICIES}_own_us": _us(_quick(lambda: decide(question, now, [shipped, own]))),
        "policy_remembered_us": _us(_quick(lambda: in_force.decide(question, now))),
    }


class _Budgets:
    """Grants so much that nothing is refused."""

    async def lease(self, report: Report) -> Lease:
        """The same for every account."""
        plenty = Amounts(1e9, 1e6, 1e12, 1e12)
        return Lease(tuple(BudgetGrant(one.account, plenty, plenty) for one in report.demands))

    async def hold(self, tenant: str, service: str, stored_bytes: int, models: int) -> None:
        """Takes it."""


async def admission() -> dict[str, float]:
    """Letting a call in: rate, day and concurrency of its tenant and its key."""
    leases = Leases(_Budgets(), "bench", Policies())
    await leases.introduce(_TENANT, _KEY)

    def admit() -> None:
        leases.admit(_TENANT, _KEY, infers=True)
        leases.enter(_TENANT, _KEY)()

    return {"admission_us": _us(_quick(admit))}


class _Empty(external_auth_pb2_grpc.AuthorizationServicer):
    async def Check(self, _: external_auth_pb2.CheckRequest, __: Any) -> external_auth_pb2.CheckResponse:  # noqa: N802
        """Answers nothing."""
        return external_auth_pb2.CheckResponse()


class _Keys:
    async def grant(self, text: str, tenant_id: str | None) -> Grant:
        """The same for every key."""
        del text, tenant_id
        return _GRANT


class _Recorder:
    """Records nothing: no exchange is measured but those that are remembered."""

    def offer(self, *_: object) -> None:
        """Nothing."""

    async def accept(self, *_: object) -> None:
        """Nothing."""


async def _account(_: Grant) -> None:
    pass


async def serve(what: str) -> None:
    """Serves ext_authz, or a handler that does nothing, until it is ended; says its port."""
    if what == "ext_authz":
        recorder: Any = _Recorder()
        exchange = Exchange(_Keys(), issuer(), KeyHash(b"pepper"), _account, time.time)
        async with checking(exchange, recorder, lambda server: server.add_insecure_port("127.0.0.1:0")) as port:
            print(port, flush=True)
            await asyncio.Event().wait()
    server = grpc.aio.server()
    external_auth_pb2_grpc.add_AuthorizationServicer_to_server(_Empty(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def served(what: str) -> AsyncIterator[Any]:
    """One of them, in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.auth", what, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None  # noqa: S101 - it was asked for
    try:
        port = int(await process.stdout.readline())
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield external_auth_pb2_grpc.AuthorizationStub(channel)
    finally:
        process.kill()
        await process.wait()


async def ext_authz() -> dict[str, float]:
    """Checks of a key that is known, a second, against a handler that does nothing."""
    request = external_auth_pb2.CheckRequest()
    request.attributes.request.http.headers[KEY_HEADER] = apikeys.new_key("acme", "k1")

    async def rate(stub: Any) -> float:
        async def caller() -> None:
            for _ in range(_BURST // _IN_FLIGHT):
                await stub.Check(request)

        start = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(_IN_FLIGHT)))
        return _BURST / (time.perf_counter() - start)

    checks, nothing = [], []
    async with served("ext_authz") as real, served("empty") as empty:
        await rate(real)
        await rate(empty)
        for _ in range(_BURSTS):
            checks.append(await rate(real))
            nothing.append(await rate(empty))
    return {
        "ext_authz_per_s": round(max(checks)), "empty_handler_per_s": round(max(nothing)),
        "ext_authz_ratio": round(max(checks) / max(nothing), 2),
    }  # fmt: skip


async def revocation() -> dict[str, float]:
    """How long after the call that revokes a key each service refuses its token, under load."""
    with tempfile.TemporaryDirectory(prefix="facetmesh-bench-") as folder:
        home = Path(folder) / "home"
        command = [sys.executable, "-m", "facetmesh.cli", f"--home={home}", "up", "--port-base", "0"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: ASYNC220 - it outlasts the loop's work
        try:
            while not (home / "endpoints.json").exists():
                if process.poll() is not None:
                    raise SystemExit("the mesh did not start")
                await asyncio.sleep(0.2)
            return await _revoked_within(Endpoints.read(home / "endpoints.json"), (home / "admin.key").read_text())
        finally:
            process.terminate()
            process.wait(60)


async def _revoked_within(where: Endpoints, admin_key: str) -> dict[str, float]:
    async with AsyncClient(admin_key.strip(), where) as admin, contextlib.AsyncExitStack() as stack:
        await admin.create_tenant("acme")
        plan = auth_pb2.UpdateTenantRequest(tenant=auth_pb2.Tenant(name=_TENANT, plan="plans/dedicated"))
        await admin._auth.UpdateTenant(plan)  # noqa: SLF001 - the client has no method for it
        key = await admin.create_key(tenant="acme", roles=[ROLE_CALLER, ROLE_AUDITOR])
        async with AsyncClient(key.secret, where) as client:
            metadata = (("authorization", f"Bearer {(await client.token()).access_token}"),)
        calls: dict[str, Callable[[], Any]] = {}
        for name, stub, method, request in (
            ("auth", auth_pb2_grpc.AuthServiceStub, "GetTenant", auth_pb2.GetTenantRequest(name=_TENANT)),
            ("detection", inference_pb2_grpc.GRPCInferenceServiceStub, "ServerMetadata",
             inference_pb2.ServerMetadataRequest()),
            ("fusion", fusion_pb2_grpc.FusionServiceStub, "ListOperations",
             fusion_pb2.ListOperationsRequest(parent=_TENANT)),
            ("audit", audit_pb2_grpc.AuditServiceStub, "ListEvents",
             audit_pb2.ListEventsRequest(parent=_TENANT, page_size=1)),
        ):  # fmt: skip
            make: Any = stub
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(getattr(where, name)))
            call = getattr(make(channel), method)
            calls[name] = functools.partial(call, request, metadata=metadata, timeout=30)
        return await _under_load(calls, lambda: admin.revoke_key(key.name))


async def _under_load(calls: dict[str, Callable[[], Any]], revoke: Callable[[], Any]) -> dict[str, float]:
    refused: dict[str, float] = {}
    done = 0

    async def caller(name: str, pause_s: float) -> None:
        nonlocal done
        while name not in refused:
            due = time.perf_counter() + pause_s
            try:
                await calls[name]()
                done += 1
            except grpc.aio.AioRpcError as error:
                if status.from_rpc_error(error).reason != "TOKEN_REVOKED":
                    raise
                refused[name] = time.perf_counter()
            await asyncio.sleep(max(0.0, due - time.perf_counter()))

    tasks = [
        asyncio.create_task(caller(name, _IN_FLIGHT / _LOAD_PER_S[name]))
        for name in calls for _ in range(_IN_FLIGHT)
    ]  # fmt: skip
    await asyncio.sleep(3)
    start, before = time.perf_counter(), done
    await asyncio.sleep(3)
    rate = (done - before) / (time.perf_counter() - start)
    asked = time.perf_counter()
    await revoke()
    await asyncio.wait_for(asyncio.gather(*tasks), 60)
    return {
        "revocation_load_per_s": round(rate),
        "revocation_seen_by_all_s": round(max(refused.values()) - asked, 3),
        "revocation_seen_first_s": round(min(refused.values()) - asked, 3),
    }


def _quick(work: Callable[[], object]) -> float:
    return seconds_each(work, at_least_s=0.005, rounds=_BATCHES)


def _us(seconds: float) -> float:
    return round(1e6 * seconds, 2)


async def main() -> None:
    """Measures all, and writes it down."""
    machine = Machine.here("grpcio", "cryptography", "PyJWT", "cedarpy")
    disturbed = busy()
    figures = {**await verification(), **policies(), **await admission(), **await ext_authz(), **await revocation()}
    disturbed |= busy()
    path = write("auth", machine, {"targets": _TARGETS, **figures}, busy=disturbed)
    print(json.dumps(figures, indent=2))
    print(f"written to {path}")


_TARGETS = {
    "verify_hit_us": "< 20", "verify_miss_ratio": "<= 1.5", "ext_authz_ratio": ">= 0.8",
    "revocation_seen_by_all_s": "< 1",
}  # fmt: skip


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]) if len(sys.argv) > 1 else main())
