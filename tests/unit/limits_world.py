"""auth's limits over a state in memory, and replicas that lease from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from facetmesh.auth.budgets import Budgets
from facetmesh.auth.leasing import Leasing
from facetmesh.auth.limits_store import DaprLimitsStore
from facetmesh.auth.metering import Metering
from facetmesh.auth.policies import PolicyBook
from facetmesh.auth.tenants import TenantSpec
from facetmesh.auth.usage import UsageHistory
from facetmesh.kit.errors import Unavailable
from facetmesh.kit.leases import Leases
from facetmesh.kit.policy import Policies

from .auth_world import PLANS, AuthWorld, auth_world
from .conftest import Clock, MemoryState, Revoked

if TYPE_CHECKING:
    from facetmesh.auth.plans import Limits
    from facetmesh.kit.budgets import Lease, Report

ACME = "tenants/acme"


@dataclass
class Source:
    """Leases from auth, unless it is away."""

    leasing: Leasing
    away: bool = False
    reports: list[Report] = field(default_factory=list)
    lose_answers: int = 0
    """How many answers do not arrive, though their reports did."""

    async def lease(self, report: Report) -> Lease:
        """What auth says."""
        if self.away:
            raise Unavailable("auth is away", reason="AUTH_UNREACHABLE")
        self.reports.append(report)
        lease = await self.leasing.lease(report)
        if self.lose_answers:
            self.lose_answers -= 1
            raise Unavailable("the answer was lost")
        return lease

    async def hold(self, tenant: str, service: str, stored_bytes: int, models: int) -> None:
        """What auth says."""
        await self.leasing.hold(tenant, service, stored_bytes, models)


@dataclass
class LimitsWorld:
    """auth's limits."""

    clock: Clock = field(default_factory=Clock)
    state: MemoryState = field(default_factory=MemoryState)

    def __post_init__(self) -> None:
        """Builds them."""
        self.restart()

    def restart(self) -> None:
        """Auth begins anew, with the state that it left."""
        state: Any = self.state
        self.auth: AuthWorld = auth_world(state, self.clock, Revoked())
        store = DaprLimitsStore(state)
        self.history = UsageHistory(store)
        self.budgets = Budgets(store, self.auth.tenants, self.auth.keys, PLANS, self.history, self.clock)
        self.policies = PolicyBook(store, lambda _: None, self.clock)
        self.leasing = Leasing(self.budgets, self.policies)
        self.metering = Metering(self.budgets, self.history, self.clock)

    async def tenant(self, limits: Limits, tenant_id: str = "acme") -> None:
        """Makes a tenant with limits of its own on a plan without any."""
        await self.auth.tenants.create(tenant_id, TenantSpec(plan="dedicated", limits=limits), "")

    def replica(self, service: str = "detection") -> tuple[Leases, Source]:
        """A replica, and what it leases from."""
        source = Source(self.leasing)
        return Leases(source, service, Policies(), clock=self.clock, wall=self.clock), source
