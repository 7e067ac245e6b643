"""auth's domain over a state in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from facetmesh.auth import plans
from facetmesh.auth.grants import Grants
from facetmesh.auth.keys import KeyHash, Keys
from facetmesh.auth.store import DaprStore
from facetmesh.auth.tenants import Tenants

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from facetmesh.auth.tenants import Revoke
    from facetmesh.kit.apikeys import ApiKey

GRACE_S = 3600
PLANS = plans.load()


@dataclass(frozen=True)
class AuthWorld:
    """auth's domain."""

    store: Any
    tenants: Tenants
    keys: Keys
    grants: Grants


def auth_world(
    state: Any, clock: Callable[[], float], revoke: Revoke, own: Mapping[ApiKey, str] | None = None
) -> AuthWorld:
    """Auth's domain over a state, such as MemoryState."""
    return world_over(DaprStore(state), clock, revoke, own)


def world_over(
    store: Any, clock: Callable[[], float], revoke: Revoke, own: Mapping[ApiKey, str] | None = None
) -> AuthWorld:
    """Auth's domain over a store."""
    tenants = Tenants(store, PLANS, revoke, clock, grace_s=GRACE_S)
    digest = KeyHash(b"pepper")
    keys = Keys(store, tenants, digest, revoke, clock)
    return AuthWorld(store, tenants, keys, Grants(store, tenants, digest, own or {}, clock))
