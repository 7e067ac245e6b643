"""A tenant's life, and who gets a token in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from facetmesh.auth.keys import Keys, KeySpec
from facetmesh.auth.store import DaprStore
from facetmesh.auth.tenants import Tenants, TenantState
from facetmesh.kit import apikeys
from facetmesh.kit.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)

if TYPE_CHECKING:
    from .conftest import Clock, MemoryState, Revoked

GRACE_S = 3600
FUSION = apikeys.new_key(apikeys.SERVICES, "fusion")


@pytest.fixture
def tenants(state: MemoryState, clock: Clock, revoked: Revoked) -> Tenants:
    """No tenants yet."""
    return Tenants(DaprStore(state), revoked, clock, grace_s=GRACE_S)  # type: ignore[arg-type]


@pytest.fixture
def keys(state: MemoryState, tenants: Tenants, clock: Clock, revoked: Revoked) -> Keys:
    """Keys of those tenants, and fusion's own."""
    own: Any = {apikeys.parse(FUSION): FUSION}
    return Keys(DaprStore(state), tenants, b"pepper", revoked, own, clock)  # type: ignore[arg-type]


async def test_a_tenant_that_is_renamed_has_another_etag(tenants: Tenants) -> None:
    old = await tenants.create("acme", "Acme", "")
    new = await tenants.rename("acme", "Acme Ltd", old.etag)
    assert (new.display_name, new.created_s) == ("Acme Ltd", old.created_s)
    assert new.etag != old.etag
    with pytest.raises(Aborted) as refusal:
        await tenants.rename("acme", "Acme Inc", old.etag)
    assert refusal.value.reason == "ETAG_MISMATCH"
    assert await tenants.get("acme") == new
    assert await tenants.rename("acme", "Acme Ltd", "") == new


async def test_a_suspended_tenants_key_gets_no_token_until_it_is_resumed(tenants: Tenants, keys: Keys) -> None:
    await tenants.create("acme", "", "")
    _, text = await keys.create("acme", KeySpec())
    suspended = await tenants.suspend("acme", "")
    assert suspended.state is TenantState.SUSPENDED
    assert await tenants.suspend("acme", "") == suspended
    for given, tenant_id in ((text, None), (FUSION, "acme")):
        with pytest.raises(PermissionDenied) as refusal:
            await keys.grant(given, tenant_id)
        assert refusal.value.reason == "TENANT_SUSPENDED"
    assert (await tenants.resume("acme", "")).state is TenantState.ACTIVE
    assert (await keys.grant(text, None)).tenant_id == "acme"
    assert (await keys.grant(FUSION, "acme")).tenant_id == "acme"


async def test_a_wrong_key_is_not_told_that_the_tenant_is_suspended(tenants: Tenants, keys: Keys) -> None:
    await tenants.create("acme", "", "")
    await tenants.suspend("acme", "")
    with pytest.raises(Unauthenticated):
        await keys.grant(apikeys.new_key("acme", "k1"), None)


async def test_a_deleted_tenant_is_as_if_it_were_not_there_until_it_is_undeleted(
    tenants: Tenants, keys: Keys, clock: Clock
) -> None:
    await tenants.create("acme", "", "")
    _, text = await keys.create("acme", KeySpec())
    await tenants.suspend("acme", "")
    deleted = await tenants.delete("acme", "")
    assert (deleted.state, deleted.deleted_s, deleted.expires_s) == (
        TenantState.DELETED, clock.now, clock.now + GRACE_S,
    )
    with pytest.raises(Unauthenticated) as refusal:
        await keys.grant(text, None)
    assert refusal.value.reason == "KEY_INVALID"
    for call in (
        keys.grant(FUSION, "acme"), keys.create("acme", KeySpec()), tenants.delete("acme", ""),
        tenants.rename("acme", "x", ""), tenants.suspend("acme", ""), tenants.resume("acme", ""),
        tenants.present("acme"),
    ):  # fmt: skip
        with pytest.raises(NotFound):
            await call
    with pytest.raises(AlreadyExists):
        await tenants.create("acme", "", "")
    clock.now += GRACE_S - 1
    back = await tenants.undelete("acme", deleted.etag)
    assert (back.state, back.expires_s) == (TenantState.SUSPENDED, None)
    with pytest.raises(AlreadyExists) as refusal_:
        await tenants.undelete("acme", "")
    assert refusal_.value.reason == "TENANT_NOT_DELETED"


async def test_after_the_grace_a_tenant_stays_deleted(tenants: Tenants, clock: Clock) -> None:
    await tenants.create("acme", "", "")
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

    await tenants.create("acme", "", "")
    with pytest.raises(Aborted):
        await Tenants(Slow(state), revoked, clock).rename("acme", "x", "")  # type: ignore[arg-type]
    assert (await tenants.get("acme")).state is TenantState.SUSPENDED


async def test_who_is_shut_out_keeps_no_token(tenants: Tenants, revoked: Revoked, clock: Clock) -> None:
    await tenants.create("acme", "", "")
    suspended_s = clock.now
    await tenants.suspend("acme", "")
    clock.now += 5
    await tenants.suspend("acme", "")  # as who was not answered would repeat it
    await tenants.resume("acme", "")
    await tenants.delete("acme", "")
    assert revoked.names == [
        ("tenants/acme", suspended_s), ("tenants/acme", clock.now), ("tenants/acme", clock.now),
    ]
