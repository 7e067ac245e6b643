"""What happens around every RPC, seen from the wire."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from facetmesh.auth.v1 import auth_pb2
from facetmesh.event.v1 import event_pb2
from facetmesh.kit import apikeys, handlers, status

from .auth_service import (
    ACME_ADMIN,
    ACME_CALLER,
    ADMIN,
    FUSION,
    GLOBEX_ADMIN,
    PLATFORM,
    Rig,
    refusal,
    served,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from facetmesh.auth.tokens import TokenIssuer

    from .conftest import Clock, MemoryState

@pytest.fixture
async def rig(state: MemoryState, issuer: TokenIssuer, clock: Clock) -> AsyncIterator[Rig]:
    """Auth on a port of its own."""
    async with served(state, issuer, clock) as made:
        yield made


async def test_from_the_admins_key_to_a_tenants_token(rig: Rig) -> None:
    admin = await rig.stub.IssueToken(auth_pb2.IssueTokenRequest(key=ADMIN))
    bearer = (("authorization", f"Bearer {admin.access_token}"),)
    tenant = await rig.stub.CreateTenant(auth_pb2.CreateTenantRequest(tenant_id="acme"), metadata=bearer)
    key = await rig.stub.CreateKey(auth_pb2.CreateKeyRequest(parent=tenant.name), metadata=bearer)
    token = await rig.stub.IssueToken(auth_pb2.IssueTokenRequest(key=key.secret))
    assert token.tenant == "tenants/acme"
    got = await rig.stub.GetTenant(
        auth_pb2.GetTenantRequest(name="tenants/acme"),
        metadata=(("authorization", f"Bearer {token.access_token}"),),
    )
    assert got == tenant
    assert [(e.method.rpartition("/")[2], e.tenant, e.code) for e in rig.bus.events] == [
        ("IssueToken", "", "OK"), ("CreateTenant", "tenants/acme", "OK"), ("CreateKey", "tenants/acme", "OK"),
        ("IssueToken", "tenants/acme", "OK"),
    ]  # fmt: skip


async def test_no_token(rig: Rig) -> None:
    call = rig.stub.GetTenant(auth_pb2.GetTenantRequest(name="tenants/acme"))
    assert (await refusal(call))[:2] == ("UNAUTHENTICATED", "TOKEN_MISSING")
    event = await rig.bus.last(1)
    assert (event.code, event.reason, event.outcome) == (
        "UNAUTHENTICATED", "TOKEN_MISSING", event_pb2.AuditEvent.OUTCOME_REFUSED,
    )
    assert event.source_address == "127.0.0.1"


async def test_a_refused_caller_cannot_make_us_read_its_megabytes(rig: Rig) -> None:
    request = auth_pb2.CreateTenantRequest(tenant=auth_pb2.Tenant(display_name="x" * 3_000_000))
    assert (await refusal(rig.stub.CreateTenant(request)))[:2] == ("UNAUTHENTICATED", "TOKEN_MISSING")


async def test_the_wrong_role(rig: Rig) -> None:
    call = rig.stub.CreateTenant(auth_pb2.CreateTenantRequest(tenant_id="x" * 99), metadata=rig.metadata(ACME_ADMIN))
    assert (await refusal(call))[:2] == ("PERMISSION_DENIED", "ROLE_MISSING")


async def test_another_tenants_resource_looks_the_same_whether_it_exists(rig: Rig) -> None:
    await rig.stub.CreateTenant(auth_pb2.CreateTenantRequest(tenant_id="acme"), metadata=rig.metadata(PLATFORM))
    answers = {
        await refusal(rig.stub.GetTenant(auth_pb2.GetTenantRequest(name=name), metadata=rig.metadata(GLOBEX_ADMIN)))
        for name in ("tenants/acme", "tenants/nobody", "tenants/globexx", "not a name")
    }
    assert len(answers) == 1
    assert next(iter(answers))[:2] == ("PERMISSION_DENIED", "TENANT_MISMATCH")
    await rig.bus.last(5)
    tried = {event.resource for event in rig.bus.events if event.reason == "TENANT_MISMATCH"}
    assert tried == {"tenants/acme", "tenants/nobody", "tenants/globexx", "not a name"}
    assert {event.tenant for event in rig.bus.events[1:]} == {"tenants/globex"}


async def test_invalid_fields_are_named(rig: Rig) -> None:
    call = rig.stub.CreateTenant(auth_pb2.CreateTenantRequest(tenant_id="No!"), metadata=rig.metadata(PLATFORM))
    code, reason, message = await refusal(call)
    assert (code, reason) == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert message.startswith("tenant_id")


async def test_a_message_of_too_many_fields_is_not_read(rig: Rig) -> None:
    request = auth_pb2.CreateTenantRequest(tenant=auth_pb2.Tenant(url_allowlist=[""] * 200_000))
    code, reason, message = await refusal(rig.stub.CreateTenant(request, metadata=rig.metadata(PLATFORM)))
    assert (code, reason) == ("INVALID_ARGUMENT", "MESSAGE_MALFORMED")
    assert "fields" in message


@pytest.mark.parametrize("tenant_id", ["platform", "services"])
async def test_reserved_ids(rig: Rig, tenant_id: str) -> None:
    call = rig.stub.CreateTenant(auth_pb2.CreateTenantRequest(tenant_id=tenant_id), metadata=rig.metadata(PLATFORM))
    assert (await refusal(call))[:2] == ("INVALID_ARGUMENT", "TENANT_ID_RESERVED")


async def test_a_repeated_request_returns_the_first_result_and_another_one_does_not(rig: Rig) -> None:
    request = auth_pb2.CreateTenantRequest(tenant_id="acme", request_id="0b5d3ad4-ee48-4f33-9d8b-5ed8d1a3a111")
    first = await rig.stub.CreateTenant(request, metadata=rig.metadata(PLATFORM))
    assert await rig.stub.CreateTenant(request, metadata=rig.metadata(PLATFORM)) == first
    call = rig.stub.CreateTenant(auth_pb2.CreateTenantRequest(tenant_id="acme"), metadata=rig.metadata(PLATFORM))
    assert (await refusal(call))[:2] == ("ALREADY_EXISTS", "TENANT_EXISTS")


async def test_nothing_unaccounted_leaves(rig: Rig) -> None:
    rig.bus.away = True
    call = rig.stub.CreateTenant(auth_pb2.CreateTenantRequest(tenant_id="acme"), metadata=rig.metadata(PLATFORM))
    assert (await refusal(call))[:2] == ("UNAVAILABLE", "AUDIT_UNAVAILABLE")
    rig.bus.away = False
    await rig.stub.GetTenant(auth_pb2.GetTenantRequest(name="tenants/acme"), metadata=rig.metadata(ACME_CALLER))


async def test_reads_that_are_not_recorded_need_no_bus(rig: Rig) -> None:
    await rig.stub.CreateTenant(auth_pb2.CreateTenantRequest(tenant_id="acme"), metadata=rig.metadata(PLATFORM))
    rig.bus.away = True
    await rig.stub.GetTenant(auth_pb2.GetTenantRequest(name="tenants/acme"), metadata=rig.metadata(ACME_CALLER))


def creations(rig: Rig, count: int, start: int = 0) -> list[asyncio.Task[str]]:
    """That many calls at once; each result is OK or what it was refused with."""
    return [
        asyncio.create_task(_ended(rig.stub.CreateTenant(
            auth_pb2.CreateTenantRequest(tenant_id=f"t-{n:03}"), metadata=rig.metadata(PLATFORM)
        )))
        for n in range(start, start + count)
    ]  # fmt: skip


async def test_calls_at_once_share_publishes(rig: Rig) -> None:
    rig.bus.gate.clear()
    calls = creations(rig, 1)
    async with asyncio.timeout(60):
        while not rig.bus.batches:
            await asyncio.sleep(0.01)
        calls += creations(rig, 59, start=1)
        while rig.pending() < 59:  # one is on its way, the others gather
            await asyncio.sleep(0.01)
        rig.bus.gate.set()
        assert await asyncio.gather(*calls) == ["OK"] * 60
    assert len(rig.bus.events) == 60
    assert rig.bus.batches == 2


async def test_beyond_the_limit_of_calls_in_progress(state: MemoryState, issuer: TokenIssuer, clock: Clock) -> None:
    async with served(state, issuer, clock, limit=5) as rig, asyncio.timeout(60):
        rig.bus.gate.clear()
        calls = creations(rig, 20)
        while sum(call.done() for call in calls) < 17:
            await asyncio.sleep(0.01)
        assert {call.result() for call in calls if call.done()} == {"RESOURCE_EXHAUSTED TOO_MANY_CALLS 1.0"}
        # Who has many leaves some for others.
        other = rig.stub.GetTenant(auth_pb2.GetTenantRequest(name="tenants/acme"), metadata=rig.metadata(ACME_CALLER))
        assert (await refusal(other))[0] == "NOT_FOUND"
        rig.bus.gate.set()
        assert (await asyncio.gather(*calls)).count("OK") == 3


def stalled(channel: grpc.aio.Channel, rig: Rig) -> Any:
    """A call whose message does not come."""
    return channel.stream_unary("/facetmesh.auth.v1.AuthService/CreateTenant")(metadata=rig.metadata(PLATFORM))


async def test_a_message_that_does_not_come_has_a_place_meanwhile(
    state: MemoryState, issuer: TokenIssuer, clock: Clock
) -> None:
    """Or a caller could have us keep the beginnings of as many as it likes."""
    async with (
        served(state, issuer, clock, limit=5) as rig, grpc.aio.insecure_channel(rig.address) as channel,
        asyncio.timeout(60),
    ):  # fmt: skip
        calls = [asyncio.create_task(_ended(stalled(channel, rig))) for _ in range(4)]
        done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert {call.result() for call in done} == {"RESOURCE_EXHAUSTED TOO_MANY_CALLS 1.0"}
        for call in waiting:
            call.cancel()


async def test_a_message_that_does_not_come_in_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "MESSAGE_S", 0.1)
    async with grpc.aio.insecure_channel(rig.address) as channel:
        assert (await refusal(stalled(channel, rig)))[:2] == ("DEADLINE_EXCEEDED", "MESSAGE_SLOW")


async def test_a_call_without_a_message(rig: Rig) -> None:
    async with grpc.aio.insecure_channel(rig.address) as channel:
        call = stalled(channel, rig)
        await call.done_writing()
        assert (await refusal(call))[:2] == ("INVALID_ARGUMENT", "REQUEST_MISSING")


async def _ended(call: Any) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        problem = status.from_rpc_error(error)
        return f"{problem.code} {problem.reason} {problem.retry_after_s}"
    return "OK"


async def test_our_own_fault_says_nothing_about_us(
    rig: Rig, state: MemoryState, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(key: str) -> None:
        raise RuntimeError(f"secret detail {key}")

    monkeypatch.setattr(state, "get", broken)
    call = rig.stub.GetTenant(auth_pb2.GetTenantRequest(name="tenants/acme"), metadata=rig.metadata(ACME_CALLER))
    assert await refusal(call) == ("INTERNAL", "INTERNAL", "An internal error. It has been logged.")


async def test_keys_that_do_not_hold_get_one_answer(rig: Rig) -> None:
    await rig.stub.CreateTenant(auth_pb2.CreateTenantRequest(tenant_id="acme"), metadata=rig.metadata(PLATFORM))
    key = await rig.stub.CreateKey(
        auth_pb2.CreateKeyRequest(parent="tenants/acme"), metadata=rig.metadata(ACME_ADMIN)
    )
    await rig.stub.RevokeKey(auth_pb2.RevokeKeyRequest(name=key.name), metadata=rig.metadata(ACME_ADMIN))
    texts = ["x", ADMIN[:-1] + "0", apikeys.new_key("acme", "none"), apikeys.new_key(apikeys.PLATFORM, "admin"),
             apikeys.new_key("acme", key.name.rpartition("/")[2]), key.secret]  # fmt: skip
    answers = {await refusal(rig.stub.IssueToken(auth_pb2.IssueTokenRequest(key=text))) for text in texts}
    assert answers == {("UNAUTHENTICATED", "KEY_INVALID", "The API key is not valid.")}
    listed = await rig.stub.ListKeys(
        auth_pb2.ListKeysRequest(parent="tenants/acme"), metadata=rig.metadata(ACME_ADMIN)
    )
    assert [(k.name, bool(k.secret), k.HasField("revoke_time")) for k in listed.keys] == [(key.name, False, True)]


async def test_services_act_for_any_tenant_and_tenants_for_their_own(rig: Rig) -> None:
    for tenant_id in ("acme", "globex"):
        await rig.stub.CreateTenant(
            auth_pb2.CreateTenantRequest(tenant_id=tenant_id), metadata=rig.metadata(PLATFORM)
        )
    token = await rig.stub.IssueToken(auth_pb2.IssueTokenRequest(key=FUSION, tenant="tenants/globex"))
    assert token.tenant == "tenants/globex"
    call = rig.stub.IssueToken(auth_pb2.IssueTokenRequest(key=FUSION, tenant="tenants/nobody"))
    assert (await refusal(call))[:2] == ("NOT_FOUND", "TENANT_NOT_FOUND")
    key = await rig.stub.CreateKey(
        auth_pb2.CreateKeyRequest(parent="tenants/acme"), metadata=rig.metadata(ACME_ADMIN)
    )
    call = rig.stub.IssueToken(auth_pb2.IssueTokenRequest(key=key.secret, tenant="tenants/globex"))
    assert (await refusal(call))[:2] == ("PERMISSION_DENIED", "TENANT_MISMATCH")


async def test_a_state_store_that_is_stolen_holds_no_key(rig: Rig, state: MemoryState) -> None:
    await rig.stub.CreateTenant(auth_pb2.CreateTenantRequest(tenant_id="acme"), metadata=rig.metadata(PLATFORM))
    key = await rig.stub.CreateKey(
        auth_pb2.CreateKeyRequest(parent="tenants/acme"), metadata=rig.metadata(ACME_ADMIN)
    )
    secret = key.secret.rpartition("_")[2].encode()
    assert not any(secret in entry.value for entry in state.entries.values())
    # Nor does anything that is in it open the door in the key's place.
    body = key.secret.rpartition("_")[0]
    words = {word for entry in state.entries.values() for word in re.findall(r"[0-9A-Za-z]{20,}", entry.value.decode())}
    assert words
    for word in words:
        for guess in (word, f"{body}_{word}", f"{body}_{word[:49]}", f"{body}_{word[:43]}{secret.decode()[-6:]}"):
            call = rig.stub.IssueToken(auth_pb2.IssueTokenRequest(key=guess[:256]))
            assert (await refusal(call))[:2] == ("UNAUTHENTICATED", "KEY_INVALID")


async def test_pages(rig: Rig) -> None:
    for n in range(5):
        await rig.stub.CreateTenant(
            auth_pb2.CreateTenantRequest(tenant_id=f"t-{n}"), metadata=rig.metadata(PLATFORM)
        )
    seen, token = [], ""
    while True:
        answer = await rig.stub.ListTenants(
            auth_pb2.ListTenantsRequest(page_size=2, page_token=token), metadata=rig.metadata(PLATFORM)
        )
        seen += [tenant.name for tenant in answer.tenants]
        token = answer.next_page_token
        if not token:
            break
    assert seen == [f"tenants/t-{n}" for n in range(5)]
    call = rig.stub.ListTenants(auth_pb2.ListTenantsRequest(page_token="x"), metadata=rig.metadata(PLATFORM))
    assert (await refusal(call))[:2] == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")
