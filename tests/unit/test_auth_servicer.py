"""auth's resources as callers see them: tenants with all that they are sold, keys, tokens that end early."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import grpc
import jwt
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from facetmesh.access.v1 import access_pb2
from facetmesh.auth.v1 import auth_pb2, auth_pb2_grpc
from facetmesh.kit.tls import TlsFiles, channel

from .auth_service import ACME_ADMIN, ACME_CALLER, ADMIN, GLOBEX_ADMIN, PLATFORM, Rig, refusal, served
from .certificates import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from facetmesh.auth.tokens import TokenIssuer

    from .conftest import Clock, MemoryState


@pytest.fixture
async def rig(state: MemoryState, issuer: TokenIssuer, clock: Clock) -> AsyncIterator[Rig]:
    """Auth on a port of its own."""
    async with served(state, issuer, clock) as made:
        yield made


def whole() -> auth_pb2.Tenant:
    """A tenant with all that it can have."""
    return auth_pb2.Tenant(
        display_name="Acme", plan="plans/trial", region="eu-central",
        limits=auth_pb2.Limits(requests_per_s=2.5, concurrency=3, images_per_day=4, compute_seconds_per_day=5.5,
                               stored_bytes=6, models=7),
        allowed_models=["faces", "yolo-*"],
        licence_policy=auth_pb2.LicencePolicy(
            classes=[auth_pb2.LICENCE_CLASS_PERMISSIVE, auth_pb2.LICENCE_CLASS_COPYLEFT], licences=["AGPL-3.0"]
        ),
        audit_policy=auth_pb2.AUDIT_POLICY_BEST_EFFORT, url_allowlist=["images.example", "*.cdn.example"],
        result_days=7,
    )  # fmt: skip


MUTABLE = [
    "display_name", "plan", "region", "limits", "allowed_models", "licence_policy", "audit_policy", "url_allowlist",
    "result_days",
]  # fmt: skip


async def create(rig: Rig, tenant: auth_pb2.Tenant | None = None) -> auth_pb2.Tenant:
    """The tenant acme."""
    request = auth_pb2.CreateTenantRequest(tenant_id="acme", tenant=tenant)
    made: auth_pb2.Tenant = await rig.stub.CreateTenant(request, metadata=rig.metadata(PLATFORM))
    return made


async def update(rig: Rig, tenant: auth_pb2.Tenant, *paths: str) -> Any:
    """A change of acme."""
    tenant.name = "tenants/acme"
    request = auth_pb2.UpdateTenantRequest(tenant=tenant, update_mask=FieldMask(paths=paths) if paths else None)
    return await rig.stub.UpdateTenant(request, metadata=rig.metadata(PLATFORM))


def of(tenant: auth_pb2.Tenant, *names: str) -> dict[str, Any]:
    """Some of a tenant's fields."""
    return {name: getattr(tenant, name) for name in names}


async def test_a_tenant_has_what_it_was_given(rig: Rig) -> None:
    await create(rig, whole())
    got = await rig.stub.GetTenant(auth_pb2.GetTenantRequest(name="tenants/acme"), metadata=rig.metadata(PLATFORM))
    assert of(got, *MUTABLE) == of(whole(), *MUTABLE)


async def test_a_tenant_that_names_no_plan_has_the_default(rig: Rig) -> None:
    assert (await create(rig)).plan == "plans/standard"
    plans = await rig.stub.ListPlans(auth_pb2.ListPlansRequest(), metadata=rig.metadata(PLATFORM))
    assert [plan.name for plan in plans.plans] == [
        "plans/dedicated", "plans/premium", "plans/standard", "plans/trial",
    ]
    assert plans.plans[3].limits.requests_per_s == 5


@pytest.mark.parametrize("name", MUTABLE)
async def test_a_mask_takes_its_field_and_no_other(rig: Rig, name: str) -> None:
    before = await create(rig)
    after = await update(rig, whole(), name)
    others = [other for other in MUTABLE if other != name]
    assert (of(after, name), of(after, *others)) == (of(whole(), name), of(before, *others))
    assert after.etag != before.etag
    # Named by the mask and not set: back to nothing.
    emptied = await update(rig, auth_pb2.Tenant(), name)
    assert of(emptied, name) == of(before, name)


async def test_without_a_mask_what_is_set_is_taken(rig: Rig) -> None:
    await create(rig, whole())
    changed = await update(rig, auth_pb2.Tenant(region="us", limits=auth_pb2.Limits(models=1)))
    others = [name for name in MUTABLE if name not in ("region", "limits")]
    assert (changed.region, changed.limits, of(changed, *others)) == (
        "us", auth_pb2.Limits(models=1), of(whole(), *others),
    )


async def test_a_mask_may_name_one_limit_of_several(rig: Rig) -> None:
    await create(rig, whole())
    wanted = auth_pb2.Tenant(limits=auth_pb2.Limits(models=70, concurrency=30))
    changed = await update(rig, wanted, "limits.models")
    expected = whole().limits
    expected.models = 70
    assert changed.limits == expected


async def test_a_star_takes_all(rig: Rig) -> None:
    await create(rig, whole())
    emptied = await update(rig, auth_pb2.Tenant(), "*")
    assert emptied.plan == "plans/standard"
    assert not emptied.display_name
    assert not emptied.url_allowlist


@pytest.mark.parametrize(
    "path", ["name", "etag", "state", "purge_time", "limits.foo", "display_name.x", "", "plan,region"]
)
async def test_other_masks_are_refused(rig: Rig, path: str) -> None:
    await create(rig)
    assert (await refusal(update(rig, whole(), path)))[:2] == ("INVALID_ARGUMENT", "FIELD_INVALID")


@pytest.mark.parametrize(
    ("tenant", "reason"),
    [
        (auth_pb2.Tenant(plan="plans/none"), "PLAN_UNKNOWN"),
        (auth_pb2.Tenant(plan="trial"), "FIELD_INVALID"),
        (auth_pb2.Tenant(region="EU"), "FIELD_INVALID"),
        (auth_pb2.Tenant(limits=auth_pb2.Limits(requests_per_s=-1)), "FIELD_INVALID"),
        (auth_pb2.Tenant(limits=auth_pb2.Limits(requests_per_s=float("nan"))), "FIELD_INVALID"),
        (auth_pb2.Tenant(limits=auth_pb2.Limits(compute_seconds_per_day=float("inf"))), "FIELD_INVALID"),
        (auth_pb2.Tenant(limits=auth_pb2.Limits(stored_bytes=-1)), "FIELD_INVALID"),
        (auth_pb2.Tenant(allowed_models=["a b"]), "FIELD_INVALID"),
        (auth_pb2.Tenant(allowed_models=["a", "a"]), "FIELD_INVALID"),
        (auth_pb2.Tenant(allowed_models=[f"m{n}" for n in range(65)]), "FIELD_INVALID"),
        (auth_pb2.Tenant(licence_policy=auth_pb2.LicencePolicy(classes=[0])), "FIELD_INVALID"),
        (auth_pb2.Tenant(result_days=-1), "FIELD_INVALID"),
        (auth_pb2.Tenant(result_days=36_501), "FIELD_INVALID"),
        (auth_pb2.Tenant(audit_policy=9), "FIELD_INVALID"),  # type: ignore[arg-type]
        *(
            (auth_pb2.Tenant(url_allowlist=[host]), "FIELD_INVALID")
            for host in ("localhost", "*", "*.", "http://a.example", "a.example:80", "A.b", "a..b", "*.*.a", "-a.b")
        ),
    ],
)  # fmt: skip
async def test_what_no_tenant_can_be_is_refused(rig: Rig, tenant: auth_pb2.Tenant, reason: str) -> None:
    assert (await refusal(create(rig, tenant)))[:2] == ("INVALID_ARGUMENT", reason)
    await create(rig)
    assert (await refusal(update(rig, tenant)))[:2] == ("INVALID_ARGUMENT", reason)


async def test_a_key_is_changed_by_its_tenants_admin_only_in_name_and_limits(rig: Rig) -> None:
    await create(rig)
    key = await rig.stub.CreateKey(
        auth_pb2.CreateKeyRequest(parent="tenants/acme", key=auth_pb2.Key(limits=auth_pb2.Limits(concurrency=2))),
        metadata=rig.metadata(ACME_ADMIN),
    )
    assert key.limits.concurrency == 2
    wanted = auth_pb2.Key(
        name=key.name, display_name="CI", roles=[access_pb2.ROLE_TENANT_ADMIN], limits=auth_pb2.Limits(models=1),
        etag=key.etag,
    )
    request = auth_pb2.UpdateKeyRequest(key=wanted)
    changed = await rig.stub.UpdateKey(request, metadata=rig.metadata(ACME_ADMIN))
    assert (changed.display_name, changed.limits, list(changed.roles)) == (
        "CI", auth_pb2.Limits(models=1), [access_pb2.ROLE_CALLER],
    )
    assert changed.secret == ""
    got = await rig.stub.GetKey(auth_pb2.GetKeyRequest(name=key.name), metadata=rig.metadata(ACME_ADMIN))
    assert got == changed
    assert (await refusal(rig.stub.UpdateKey(request, metadata=rig.metadata(ACME_ADMIN))))[:2] == (
        "ABORTED", "ETAG_MISMATCH",
    )
    call = rig.stub.UpdateKey(request, metadata=rig.metadata(GLOBEX_ADMIN))
    assert (await refusal(call))[:2] == ("PERMISSION_DENIED", "TENANT_MISMATCH")
    request.update_mask.paths.append("roles")
    call = rig.stub.UpdateKey(request, metadata=rig.metadata(ACME_ADMIN))
    assert (await refusal(call))[:2] == ("INVALID_ARGUMENT", "FIELD_INVALID")


def onboarding(request_id: str | None = None, **key: Any) -> auth_pb2.OnboardTenantRequest:
    """A request for acme and its first key."""
    return auth_pb2.OnboardTenantRequest(
        tenant_id="acme", tenant=whole(), key=auth_pb2.Key(**key), request_id=request_id or str(uuid.uuid4())
    )


async def test_one_call_and_a_tenants_key_works(rig: Rig) -> None:
    made = await rig.stub.OnboardTenant(onboarding(), metadata=rig.metadata(PLATFORM))
    assert of(made.tenant, *MUTABLE) == of(whole(), *MUTABLE)
    token = await rig.stub.IssueToken(auth_pb2.IssueTokenRequest(key=made.key.secret))
    assert set(token.roles) == {access_pb2.ROLE_TENANT_ADMIN, access_pb2.ROLE_CALLER, access_pb2.ROLE_AUDITOR}
    assert jwt.decode(token.access_token, options={"verify_signature": False})["region"] == "eu-central"


async def test_a_repeat_gives_the_same_key_a_new_secret_until_it_was_used(rig: Rig) -> None:
    request = onboarding()
    first = await rig.stub.OnboardTenant(request, metadata=rig.metadata(PLATFORM))
    second = await rig.stub.OnboardTenant(request, metadata=rig.metadata(PLATFORM))
    assert (second.tenant, second.key.name) == (first.tenant, first.key.name)
    assert second.key.secret not in ("", first.key.secret)
    call = rig.stub.IssueToken(auth_pb2.IssueTokenRequest(key=first.key.secret))
    assert (await refusal(call))[:2] == ("UNAUTHENTICATED", "KEY_INVALID")
    await rig.stub.IssueToken(auth_pb2.IssueTokenRequest(key=second.key.secret))
    third = await rig.stub.OnboardTenant(request, metadata=rig.metadata(PLATFORM))
    assert (third.key.name, third.key.secret) == (first.key.name, "")
    await rig.stub.IssueToken(auth_pb2.IssueTokenRequest(key=second.key.secret))


async def test_what_was_cut_short_is_taken_up(rig: Rig) -> None:
    request = onboarding()
    await rig.stub.CreateTenant(
        auth_pb2.CreateTenantRequest(tenant_id="acme", tenant=whole(), request_id=request.request_id),
        metadata=rig.metadata(PLATFORM),
    )
    made = await rig.stub.OnboardTenant(request, metadata=rig.metadata(PLATFORM))
    await rig.stub.IssueToken(auth_pb2.IssueTokenRequest(key=made.key.secret))
    call = rig.stub.OnboardTenant(onboarding(), metadata=rig.metadata(PLATFORM))
    assert (await refusal(call))[:2] == ("ALREADY_EXISTS", "TENANT_EXISTS")


async def test_a_key_that_cannot_be_leaves_no_tenant_behind(rig: Rig) -> None:
    request = onboarding(roles=[access_pb2.ROLE_TENANT_ADMIN], methods=["facetmesh.auth.v1.AuthService/*"])
    call = rig.stub.OnboardTenant(request, metadata=rig.metadata(PLATFORM))
    assert (await refusal(call))[:2] == ("INVALID_ARGUMENT", "ADMIN_NOT_LIMITED")
    call = rig.stub.GetTenant(auth_pb2.GetTenantRequest(name="tenants/acme"), metadata=rig.metadata(PLATFORM))
    assert (await refusal(call))[0] == "NOT_FOUND"


async def tokens(rig: Rig) -> tuple[auth_pb2.IssueTokenResponse, auth_pb2.IssueTokenResponse]:
    """Two tokens of one key of acme's."""
    made = await rig.stub.OnboardTenant(onboarding(roles=[access_pb2.ROLE_CALLER]), metadata=rig.metadata(PLATFORM))
    request = auth_pb2.IssueTokenRequest(key=made.key.secret)
    return await rig.stub.IssueToken(request), await rig.stub.IssueToken(request)


def bearer(token: auth_pb2.IssueTokenResponse) -> tuple[tuple[str, str]]:
    """The metadata of who has the token."""
    return (("authorization", f"Bearer {token.access_token}"),)


async def works(rig: Rig, token: auth_pb2.IssueTokenResponse) -> bool:
    """Whether a token lets its holder in."""
    try:
        await rig.stub.GetTenant(auth_pb2.GetTenantRequest(name="tenants/acme"), metadata=bearer(token))
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED  # noqa: PT017 - nothing else means refused
        return False
    return True


async def gone(rig: Rig, token: auth_pb2.IssueTokenResponse) -> None:
    """Returns when the token is refused."""
    async with asyncio.timeout(60):
        while await works(rig, token):
            await asyncio.sleep(0.02)


async def test_a_holder_gives_up_its_token_and_the_keys_others_go_on(rig: Rig) -> None:
    one, other = await tokens(rig)
    request = auth_pb2.RevokeTokenRequest(name=one.name)
    assert await works(rig, one)
    assert (await rig.stub.RevokeToken(request, metadata=bearer(one))).name == one.name
    await gone(rig, one)
    assert await works(rig, other)


async def test_admins_revoke_tokens_of_their_tenant_and_nobody_else_does(rig: Rig) -> None:
    one, other = await tokens(rig)
    request = auth_pb2.RevokeTokenRequest(name=one.name)
    for who, reason in (
        (bearer(other), "TOKEN_NOT_YOURS"), (rig.metadata(ACME_CALLER), "TOKEN_NOT_YOURS"),
        (rig.metadata(GLOBEX_ADMIN), "TENANT_MISMATCH"),
    ):  # fmt: skip
        assert (await refusal(rig.stub.RevokeToken(request, metadata=who)))[:2] == ("PERMISSION_DENIED", reason)
    await rig.stub.RevokeToken(request, metadata=rig.metadata(ACME_ADMIN))
    await gone(rig, one)
    await rig.stub.RevokeToken(auth_pb2.RevokeTokenRequest(name=other.name), metadata=rig.metadata(PLATFORM))
    await gone(rig, other)


async def test_the_platforms_own_tokens_can_be_revoked(rig: Rig) -> None:
    admin = await rig.stub.IssueToken(auth_pb2.IssueTokenRequest(key=ADMIN))
    assert admin.name.startswith("tenants/platform/tokens/")
    await create(rig)
    request = auth_pb2.RevokeTokenRequest(name=admin.name)
    call = rig.stub.RevokeToken(request, metadata=rig.metadata(ACME_ADMIN))
    assert (await refusal(call))[:2] == ("PERMISSION_DENIED", "TENANT_MISMATCH")
    await rig.stub.RevokeToken(request, metadata=bearer(admin))
    await gone(rig, admin)


async def test_one_tenant_cannot_fill_the_list_of_revocations(rig: Rig) -> None:
    await create(rig)
    for number in range(100):
        name = f"tenants/acme/tokens/{number:032x}"
        await rig.stub.RevokeToken(auth_pb2.RevokeTokenRequest(name=name), metadata=rig.metadata(ACME_ADMIN))
    request = auth_pb2.RevokeTokenRequest(name=f"tenants/acme/tokens/{100:032x}")
    call = rig.stub.RevokeToken(request, metadata=rig.metadata(ACME_ADMIN))
    assert (await refusal(call))[:2] == ("RESOURCE_EXHAUSTED", "TOO_MANY_REVOKED")
    request.name = f"tenants/acme/tokens/{0:032x}"  # a repeat
    await rig.stub.RevokeToken(request, metadata=rig.metadata(ACME_ADMIN))
    request.name = f"tenants/globex/tokens/{0:032x}"
    await rig.stub.RevokeToken(request, metadata=rig.metadata(GLOBEX_ADMIN))


async def test_a_token_that_was_had_with_a_certificate_is_worth_nothing_without_it(
    state: MemoryState, issuer: TokenIssuer, clock: Clock, tmp_path: Path
) -> None:
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    own, other = (
        TlsFiles(*authority.leaf(name).write(tmp_path, name), tmp_path / "ca.pem", tmp_path / "ca.pem")
        for name in ("own", "other")
    )
    async with served(state, issuer, clock, files=own) as rig:
        token, _ = await tokens(rig)
        claims = jwt.decode(token.access_token, options={"verify_signature": False})
        assert list(claims["cnf"]) == ["x5t#S256"]
        assert await works(rig, token)
        async with channel(rig.address, other) as stolen:
            stub: Any = auth_pb2_grpc.AuthServiceStub(stolen)
            call = stub.GetTenant(auth_pb2.GetTenantRequest(name="tenants/acme"), metadata=bearer(token))
            assert (await refusal(call))[:2] == ("UNAUTHENTICATED", "TOKEN_BOUND")
            # What says whose word it is counts for nothing where nobody is set up as the gateway.
            forged = (*bearer(token), ("x-forwarded-client-cert", "Hash=" + "0" * 64))
            call = stub.GetTenant(auth_pb2.GetTenantRequest(name="tenants/acme"), metadata=forged)
            assert (await refusal(call))[:2] == ("UNAUTHENTICATED", "TOKEN_BOUND")
    async with served(state, issuer, clock) as rig:
        assert not await works(rig, token)
