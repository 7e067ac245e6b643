"""Budgets: who holds which part of a tenant's limits, and what was used of them.

There is a ledger for each tenant, in the state store and guarded by its etag, so
that all replicas of auth lease from the same. It outlives auth and its callers;
what a caller did and had not reported when it was killed (a lease's period at
most) is not counted, which errs in the tenant's favour.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from facetmesh.auth.plans import NO_LIMITS, Limits
from facetmesh.auth.shares import share
from facetmesh.auth.usage import HOUR_S, NO_COUNTS, Counts
from facetmesh.kit.budgets import NOTHING, Amounts, Grant, Lease
from facetmesh.kit.errors import Aborted, NotFound, PermissionDenied, ResourceExhausted
from facetmesh.kit.profiles import Profile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from facetmesh.auth.keys import Keys
    from facetmesh.auth.plans import Plans
    from facetmesh.auth.tenants import Tenant, Tenants
    from facetmesh.auth.usage import UsageHistory
    from facetmesh.kit.budgets import Demand, Report, Work

_DAY_S = 86_400
_STAKE_S = 10.0
"""How long a replica's part is kept for it that says nothing."""
_RENEW_S = 2.0
_RENEW_CONTENDED_S = 0.5
"""When to report again where several share a limit that is nearly reached."""
_NEARLY = 0.7
_MOST_MODELS = 200
"""Models of a tenant that are counted apart in an hour; further ones are counted together."""
_OTHERS = "others"
_REMEMBERED_S = 3600.0
"""How long a report's number is remembered: one that comes again after longer counts twice."""
_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Stake:
    """What one replica holds."""

    until_s: float
    """Until when it is kept for it, in seconds since the epoch."""
    wanted: Amounts = NOTHING
    part: Amounts = NOTHING


@dataclass(frozen=True, slots=True)
class Account:
    """What is used and held of one tenant's, or one key's, limits."""

    images: float = 0.0
    """Of the ledger's day."""
    compute_s: float = 0.0
    stakes: Mapping[str, Stake] = field(default_factory=dict)
    """By replica."""


@dataclass(frozen=True, slots=True)
class Holding:
    """What one service keeps for a tenant."""

    stored_bytes: int = 0
    models: int = 0


@dataclass(frozen=True, slots=True)
class ReportSeen:
    """A replica's last report."""

    number: int
    at_s: float
    """When it came, in seconds since the epoch."""


_NO_REPORT = ReportSeen(0, 0.0)


@dataclass(frozen=True, slots=True)
class Ledger:
    """A tenant's budgets."""

    tenant_id: str
    day: int = 0
    """Days since the epoch (UTC), of which the use is counted."""
    hour: int = 0
    """Hours since the epoch, of which the work is counted."""
    accounts: Mapping[str, Account] = field(default_factory=dict)
    """By name: tenants/{tenant} and tenants/{tenant}/keys/{key}."""
    reports: Mapping[str, ReportSeen] = field(default_factory=dict)
    """The last report of each replica, so that one which comes again counts once."""
    work: Mapping[str, Counts] = field(default_factory=dict)
    """In this hour, by model."""
    holdings: Mapping[str, Holding] = field(default_factory=dict)
    """By service."""
    etag: str = ""


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
        return Lease(grants, min((renew_s for _, renew_s in answers), default=_RENEW_S))

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

    async def today(self, tenant_id: str) -> tuple[Mapping[str, Limits], Ledger]:
        """The limits of a tenant and of its keys that are in its ledger, by name, and the ledger as of now.

        Raises:
            NotFound: There is no such tenant.
        """
        tenant = await self._tenants.present(tenant_id)
        ledger, _ = self._rolled(await self._store.ledger(tenant_id))
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
        renew_s = _RENEW_S

        def change(ledger: Ledger) -> Ledger:
            nonlocal renew_s
            grants.clear()
            renew_s = _RENEW_S
            if ledger.reports.get(report.replica, _NO_REPORT).number < report.number:
                ledger = _counted(ledger, work)
            accounts, now = dict(ledger.accounts), self._clock()
            for demand in demands:
                limited = limits[demand.account]
                account, grant = _leased(accounts.get(demand.account, Account()), limited, report.replica, demand, now)
                if limited == NOTHING:
                    accounts.pop(demand.account, None)
                else:
                    accounts[demand.account] = account
                    renew_s = min(renew_s, _renewal(account, limited))
                grants.append(grant)
            reports = {name: seen for name, seen in ledger.reports.items() if seen.at_s + _REMEMBERED_S > now}
            reports[report.replica] = ReportSeen(report.number, now)
            return replace(ledger, accounts=accounts, reports=reports)

        await self._change(tenant_id, change)
        profile = None if tenant is None else _profile(tenant, self._plans)
        return [replace(one, profile=None if "/keys/" in one.account else profile) for one in grants], renew_s

    async def _change(self, tenant_id: str, change: Callable[[Ledger], Ledger]) -> None:
        for _ in range(_ATTEMPTS):
            ledger, over = self._rolled(await self._store.ledger(tenant_id))
            if over:
                await self._history.add(tenant_id, over)
            try:
                await self._store.save_ledger(change(ledger))
            except Aborted:
                await asyncio.sleep(random.uniform(0, 0.02))  # noqa: S311 - no secret
                continue
            return
        raise Aborted("Too many leases at once: try again.", retry_after_s=0.5)

    def _rolled(self, ledger: Ledger) -> tuple[Ledger, Mapping[int, Mapping[str, Counts]]]:
        """The ledger as of now, and the work of the hour that is over, to be kept before the ledger is."""
        now = self._clock()
        day, hour = int(now // _DAY_S), int(now // HOUR_S)
        over: dict[int, Mapping[str, Counts]] = {}
        if ledger.hour != hour:
            if ledger.work:
                stored = sum(one.stored_bytes for one in ledger.holdings.values())
                over[ledger.hour] = {**ledger.work, "": replace(ledger.work.get("", NO_COUNTS), stored_bytes=stored)}
            ledger = replace(ledger, hour=hour, work={})
        if ledger.day != day:
            accounts = {
                name: replace(one, images=0.0, compute_s=0.0)
                for name, one in ledger.accounts.items()
                if any(stake.until_s > now for stake in one.stakes.values())
            }
            ledger = replace(ledger, day=day, accounts=accounts)
        return ledger, over

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


def _counted(ledger: Ledger, work: Iterable[Work]) -> Ledger:
    """The ledger with work that was done."""
    models, accounts = dict(ledger.work), dict(ledger.accounts)
    for done in work:
        model = done.model if done.model in models or len(models) < _MOST_MODELS else _OTHERS
        models[model] = models.get(model, NO_COUNTS) + Counts(done.calls, done.images, done.compute_s)
        for name in {done.tenant, done.subject} & accounts.keys():
            account = accounts[name]
            accounts[name] = replace(
                account, images=account.images + done.images, compute_s=account.compute_s + done.compute_s
            )
    return replace(ledger, work=models, accounts=accounts)


def _leased(account: Account, limits: Amounts, replica: str, demand: Demand, now: float) -> tuple[Account, Grant]:
    """The account with what a replica is given, and the grant that tells it."""
    stakes = {name: stake for name, stake in account.stakes.items() if stake.until_s > now and name != replica}
    if demand.leaving:
        return replace(account, stakes=stakes), Grant(demand.account, limits, NOTHING)
    wanted = {**{name: stake.wanted for name, stake in stakes.items()}, replica: demand.wanted}
    left = limits + Amounts(images=-account.images, compute_s=-account.compute_s)

    def part(limit: str) -> float:
        if not getattr(limits, limit):
            return 0.0
        return share(
            max(0.0, getattr(left, limit)),
            {name: getattr(amounts, limit) for name, amounts in wanted.items()},
            {name: getattr(stake.part, limit) for name, stake in stakes.items()},
            replica,
            whole=limit == "concurrency",
        )

    stakes[replica] = Stake(now + _STAKE_S, demand.wanted, Amounts.each(part))
    return replace(account, stakes=stakes), Grant(demand.account, limits, stakes[replica].part)


def _renewal(account: Account, limits: Amounts) -> float:
    """When to report again, in seconds: soon where what one replica needs must come from another."""
    if len(account.stakes) < 2:  # noqa: PLR2004 - one holds all there is
        return _RENEW_S
    for limit in ("requests_per_s", "concurrency"):
        whole = getattr(limits, limit)
        if whole and sum(getattr(stake.wanted, limit) for stake in account.stakes.values()) > _NEARLY * whole:
            return _RENEW_CONTENDED_S
    return _RENEW_S


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
    )


def _tenant_id(account: str) -> str:
    return account.split("/")[1]
