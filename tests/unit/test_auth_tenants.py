"""A tenant's life, and who gets a token in it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from facetmesh.auth.keys import KeySpec
from facetmesh.auth.store import DaprStore
from facetmesh.auth.tenants import Tenant, TenantSpec, TenantState
from facetmesh.kit import apikeys
from facetmesh.kit.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)

from .auth_world import GRACE_S, AuthWorld, auth_world, world_over

if TYPE_CHECKING:
    from collections.abc import Callable

    from facetmesh.auth.grants import Grants
    from facetmesh.auth.keys import Keys
    from facetmesh.auth.tenants import Tenants

    from .conftest import Clock, MemoryState, Revoked

FUSION = apikeys.new_key(apikeys.SERVICES, "fusion")


def called(display_name: str) -> Callable[[Tenant], TenantSpec]:
    """A change of what people call it."""
    return lambda tenant: replace(tenant, display_name=display_name)


@pytest.fixture
def world(state: MemoryState, clock: Clock, revoked: Revoked) -> AuthWorld:
    """No tenants yet, and fusion's own key."""
    own: Any = {apikeys.parse(FUSION): FUSION}
    return auth_world(state, clock, revoked, own)


@pytest.fixture
def tenants(world: AuthWorld) -> Tenants:
    """No tenants yet."""
    return world.tenants


@pytest.fixture
def keys(world: AuthWorld) -> Keys:
    """Keys of those tenants."""
    return world.keys


@pytest.fixture
def grants(world: AuthWorld) -> Grants:
    """Recognises them."""
    return world.grants


async def test_a_tenant_that_is_renamed_has_another_etag(tenants: Tenants) -> None:
    old = await tenants.create("acme", TenantSpec("Acme"), "")
    new = await tenants.update("acme", called("Acme Ltd"), old.etag)
    assert (new.display_name, new.created_s) == ("Acme Ltd", old.created_s)
    assert new.etag != old.etag
    with pytest.raises(Aborted) as refusal:
        await tenants.update("acme", called("Acme Inc"), old.etag)
    assert refusal.value.reason == "ETAG_MISMATCH"
    assert await tenants.get("acme") == new
    assert await tenants.update("acme", called("Acme Ltd"), "") == new


async def test_a_suspended_tenants_key_gets_no_token_until_it_is_resumed(
    tenants: Tenants, keys: Keys, grants: Grants
) -> None:
    await tenants.create("acme", TenantSpec(), "")
    _, text = await keys.create("acme", KeySpec())
    suspended = await tenants.suspend("acme", "")
    assert suspended.state is TenantState.SUSPENDED
    assert await tenants.suspend("acme", "") == suspended
    for given, tenant_id in ((text, None), (FUSION, "acme")):
        with pytest.raises(PermissionDenied) as refusal:
            await grants.grant(given, tenant_id)
        assert refusal.value.reason == "TENANT_SUSPENDED"
    assert (await tenants.resume("acme", "")).state is TenantState.ACTIVE
    assert (await grants.grant(text, None)).tenant_id == "acme"
    assert (await grants.grant(FUSION, "acme")).tenant_id == "acme"


async def test_a_wrong_key_is_not_told_that_the_tenant_is_suspended(tenants: Tenants, grants: Grants) -> None:
    await tenants.create("acme", TenantSpec(), "")
    await tenants.suspend("acme", "")
    with pytest.raises(Unauthenticated):
        await grants.grant(apikeys.new_key("acme", "k1"), None)


async def test_a_deleted_tenant_is_as_if_it_were_not_there_until_it_is_undeleted(
    tenants: Tenants, keys: Keys, grants: Grants, clock: Clock
) -> None:
    await tenants.create("acme", TenantSpec(), "")
    _, text = await keys.create("acme", KeySpec())
    await tenants.suspend("acme", "")
    deleted = await tenants.delete("acme", "")
    assert (deleted.state, deleted.deleted_s, deleted.expires_s) == (
        TenantState.DELETED, clock.now, clock.now + GRACE_S,
    )
    with pytest.raises(Unauthenticated) as refusal:
        await grants.grant(text, None)
    assert refusal.value.reason == "KEY_INVALID"
    for call in (
        grants.grant(FUSION, "acme"), keys.create("acme", KeySpec()), tenants.delete("acme", ""),
        tenants.update("acme", called("x"), ""), tenants.suspend("acme", ""), tenants.resume("acme", ""),
        tenants.present("acme"),
    ):  # fmt: skip
        with pytest.raises(NotFound):
            await call
    with pytest.raises(AlreadyExists):
        await tenants.create("acme", TenantSpec(), "")
    clock.now += GRACE_S - 1
    back = await tenants.undelete("acme", deleted.etag)
    assert (back.state, back.expires_s) == (TenantState.SUSPENDED, None)
    with pytest.raises(AlreadyExists) as refusal_:
        await tenants.undelete("acme", "")
    assert refusal_.value.reason == "TENANT_NOT_DELETED"


async def test_after_the_grace_a_tenant_stays_deleted(tenants: Tenants, clock: Clock) -> None:
    await tenants.create("acme", TenantSpec(), "")
    await tenants.delete("acme", "")
    clock.now += GRACE_S
    with pytest.raises(FailedPrecondition) as refusal:
        await tenants.undelete("acme", "")
    assert refusal.value.reason == "TENANT_EXPIRED"


async def test_of_two_changes_at_once_one_is_told_to_try_again(
    tenants: Tenants, state: MemoryState, clock: Clock, revoked: Revoked
) -> None:
    class Slow(DaprStore):
        """Reads what somebody changes right after."""

        async def tenant(self, tenant_id: str) -> Any:
            read = await super().tenant(tenant_id)
            await tenants.suspend(tenant_id, "")
            return read

    await tenants.create("acme", TenantSpec(), "")
    with pytest.raises(Aborted):
        await world_over(Slow(state), clock, revoked).tenants.update(  # type: ignore[arg-type]
            "acme", called("x"), ""
        )
    assert (await tenants.get("acme")).state is TenantState.SUSPENDED


async def test_who_is_shut_out_keeps_no_token(tenants: Tenants, revoked: Revoked, clock: Clock) -> None:
    await tenants.create("acme", TenantSpec(), "")
    suspended_s = clock.now
    await tenants.suspend("acme", "")
    clock.now += 5
    await tenants.suspend("acme", "")  # as who was not answered would repeat it
    await tenants.resume("acme", "")
    await tenants.delete("acme", "")
    assert revoked.names == [
        ("tenants/acme", suspended_s), ("tenants/acme", clock.now), ("tenants/acme", clock.now),
    ]
