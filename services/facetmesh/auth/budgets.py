"""Budgets: leases parts of the tenants' limits to replicas, and takes what they used of them.

There is a ledger for each tenant, in the state store and guarded by its etag, so
that all replicas of auth lease from the same. It outlives auth and its callers;
what a caller did and had not reported when it was killed (a lease's period at
most) is not counted, which errs in the tenant's favour.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from facetmesh.auth.ledger import RENEW_S, Account, Holding, Ledger
from facetmesh.auth.plans import NO_LIMITS, Limits
from facetmesh.kit.budgets import NOTHING, Amounts, Grant, Lease
from facetmesh.kit.errors import NotFound, PermissionDenied, ResourceExhausted
from facetmesh.kit.profiles import Profile
from facetmesh.kit.updates import update

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from facetmesh.auth.keys import Keys
    from facetmesh.auth.plans import Plans
    from facetmesh.auth.tenants import Tenant, Tenants
    from facetmesh.auth.usage import Counts, UsageHistory
    from facetmesh.kit.budgets import Demand, Report, Work


class LedgerStore(Protocol):
    """Where ledgers are kept."""

    async def ledger(self, tenant_id: str) -> Ledger:
        """The ledger; a new one where there is none."""
        ...

    async def save_ledger(self, ledger: Ledger) -> None:
        """Stores a ledger in place of the one that was read.

        Raises:
            Aborted: It was changed since.
        """
        ...


class Budgets:
    """Leases parts of limits.

    Args:
        store: Where ledgers are kept.
        tenants: Whose limits.
        keys: Their keys, which may have limits of their own.
        plans: What gives the limits that a tenant does not set itself.
        history: Takes the work of an hour that is over.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        store: LedgerStore,
        tenants: Tenants,
        keys: Keys,
        plans: Plans,
        history: UsageHistory,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._tenants = tenants
        self._keys = keys
        self._plans = plans
        self._history = history
        self._clock = clock

    async def lease(self, report: Report) -> Lease:
        """What a replica may give out from now on.

        Raises:
            Unavailable: The store does not answer.
            Aborted: Too many report at once.
        """
        demands: defaultdict[str, list[Demand]] = defaultdict(list)
        work: defaultdict[str, list[Work]] = defaultdict(list)
        for demand in report.demands:
            demands[_tenant_id(demand.account)].append(demand)
        for done in report.work:
            work[_tenant_id(done.tenant)].append(done)
        answers = await asyncio.gather(
            *(self._lease(tenant_id, report, demands[tenant_id], work[tenant_id]) for tenant_id in {*demands, *work})
        )
        grants = tuple(grant for granted, _ in answers for grant in granted)
        return Lease(grants, min((renew_s for _, renew_s in answers), default=RENEW_S))

    async def hold(self, tenant_id: str, service: str, holding: Holding) -> None:
        """Notes what a service keeps for a tenant, in all.

        Raises:
            NotFound: There is no such tenant.
            ResourceExhausted: STORAGE_EXHAUSTED or MODELS_EXHAUSTED; it would be more than the tenant may have.
        """
        limits = self._limits(await self._tenants.present(tenant_id))

        def change(ledger: Ledger) -> Ledger:
            before = ledger.holdings.get(service, Holding())
            holdings = {**ledger.holdings, service: holding}
            for what, limit, reason in (
                ("stored_bytes", limits.stored_bytes, "STORAGE_EXHAUSTED"),
                ("models", limits.models, "MODELS_EXHAUSTED"),
            ):
                total = sum(getattr(one, what) for one in holdings.values())
                # Who is over a limit that was lowered may still remove.
                if limit and total > limit and getattr(holding, what) > getattr(before, what):
                    name = what.replace("_", " ")
                    raise ResourceExhausted(
                        f"The tenant may have {limit} {name}, and that would be {total}.", reason=reason
                    )
            return replace(ledger, holdings=holdings)

        await self._change(tenant_id, change)

    async def work(self, tenant_id: str) -> Mapping[int, Mapping[str, Counts]]:
        """The work of a tenant that the history may not have yet, by hour: of this one, and of its last one with work.

        Raises:
            NotFound: There is no such tenant.
        """
        await self._tenants.present(tenant_id)
        ledger, over = (await self._store.ledger(tenant_id)).rolled(self._clock())
        return {**over, ledger.hour: ledger.work}

    async def today(self, tenant_id: str) -> tuple[Mapping[str, Limits], Ledger]:
        """The limits of a tenant and of its keys that are in its ledger, by name, and the ledger as of now.

        Raises:
            NotFound: There is no such tenant.
        """
        tenant = await self._tenants.present(tenant_id)
        ledger, _ = (await self._store.ledger(tenant_id)).rolled(self._clock())
        limits = {f"tenants/{tenant_id}": self._limits(tenant)}
        for account in ledger.accounts:
            if account not in limits:
                limits[account] = await self._key_limits(tenant_id, account)
        return limits, ledger

    async def _lease(
        self, tenant_id: str, report: Report, demands: Sequence[Demand], work: Sequence[Work]
    ) -> tuple[list[Grant], float]:
        try:
            tenant = await self._tenants.served(tenant_id)
        except (NotFound, PermissionDenied):  # it gets nothing more, but what was done for it counts
            tenant, demands = None, ()
        limits = {demand.account: await self._limits_of(tenant, demand.account) for demand in demands if tenant}
        grants: list[Grant] = []
        renew_s = RENEW_S

        def change(ledger: Ledger) -> Ledger:
            nonlocal renew_s
            grants.clear()
            renew_s = RENEW_S
            if not ledger.has_seen(report.replica, report.number):
                ledger = ledger.counted(work)
            accounts, now = dict(ledger.accounts), self._clock()
            for demand in demands:
                limited = limits[demand.account]
                before = accounts.get(demand.account, Account())
                account, grant = before.leased(limited, report.replica, demand, now)
                if limited == NOTHING:
                    accounts.pop(demand.account, None)
                else:
                    accounts[demand.account] = account
                    renew_s = min(renew_s, account.renewal_s(limited))
                grants.append(grant)
            return replace(ledger, accounts=accounts).seen(report.replica, report.number, now)

        await self._change(tenant_id, change)
        profile = None if tenant is None else _profile(tenant, self._plans)
        return [replace(one, profile=None if "/keys/" in one.account else profile) for one in grants], renew_s

    async def _change(self, tenant_id: str, change: Callable[[Ledger], Ledger]) -> None:
        async def rolled() -> Ledger:
            ledger, over = (await self._store.ledger(tenant_id)).rolled(self._clock())
            if over:
                await self._history.add(tenant_id, over)
            return ledger

        await update(rolled, change, self._store.save_ledger)

    async def _limits_of(self, tenant: Tenant, account: str) -> Amounts:
        limits = await self._key_limits(tenant.id, account) if "/keys/" in account else self._limits(tenant)
        return _amounts(limits)

    async def _key_limits(self, tenant_id: str, account: str) -> Limits:
        try:
            return (await self._keys.get(tenant_id, account.rpartition("/")[2])).limits
        except NotFound:
            return NO_LIMITS

    def _limits(self, tenant: Tenant) -> Limits:
        return tenant.limits.over(self._plans.get(tenant.plan).limits)


def _amounts(limits: Limits) -> Amounts:
    return Amounts(
        limits.requests_per_s, limits.concurrency, limits.images_per_day, limits.compute_seconds_per_day
    )


def _profile(tenant: Tenant, plans: Plans) -> Profile:
    return Profile(
        plan=tenant.plan or plans.default,
        weight=plans.get(tenant.plan).weight,
        region=tenant.region,
        best_effort_audit=tenant.audit_policy == "best-effort",
        allowed_models=tenant.allowed_models,
        licence_classes=frozenset(tenant.licence_classes or ("permissive",)),
        licences=frozenset(tenant.licences),
        url_allowlist=tenant.url_allowlist,
        result_days=tenant.result_days,
    )


def _tenant_id(account: str) -> str:
    return account.split("/")[1]
