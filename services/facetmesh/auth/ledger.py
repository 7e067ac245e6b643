"""A tenant's ledger: which replica holds which part of its limits, and what was used of them.

Values and what follows from them: no clock, no store.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from facetmesh.auth.shares import share
from facetmesh.auth.usage import HOUR_S, NO_COUNTS, Counts
from facetmesh.kit.budgets import NOTHING, Amounts, Grant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from facetmesh.kit.budgets import Demand, Work

RENEW_S = 2.0
"""When to report again."""
_RENEW_CONTENDED_S = 0.5
"""When to report again where several share a limit that is nearly reached."""
_NEARLY = 0.7
_DAY_S = 86_400
_STAKE_S = 10.0
"""How long a replica's part is kept for it that says nothing."""
_MOST_MODELS = 200
"""Models of a tenant that are counted apart in an hour; further ones are counted together."""
_OTHERS = "others"
_REMEMBERED_S = 3600.0
"""How long a report's number is remembered: one that comes again after longer counts twice."""


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

    def leased(self, limits: Amounts, replica: str, demand: Demand, now: float) -> tuple[Account, Grant]:
        """The account with what a replica is given, and the grant that tells it."""
        stakes = {name: stake for name, stake in self.stakes.items() if stake.until_s > now and name != replica}
        if demand.leaving:
            return replace(self, stakes=stakes), Grant(demand.account, limits, NOTHING)
        wanted = {**{name: stake.wanted for name, stake in stakes.items()}, replica: demand.wanted}
        left = limits + Amounts(images=-self.images, compute_s=-self.compute_s)

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
        return replace(self, stakes=stakes), Grant(demand.account, limits, stakes[replica].part)

    def renewal_s(self, limits: Amounts) -> float:
        """When to report again: soon where what one replica needs must come from another."""
        if len(self.stakes) < 2:  # noqa: PLR2004 - one holds all there is
            return RENEW_S
        for limit in ("requests_per_s", "concurrency"):
            whole = getattr(limits, limit)
            if whole and sum(getattr(stake.wanted, limit) for stake in self.stakes.values()) > _NEARLY * whole:
                return _RENEW_CONTENDED_S
        return RENEW_S


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

    def rolled(self, now: float) -> tuple[Ledger, Mapping[int, Mapping[str, Counts]]]:
        """The ledger as of now, and the work of the hour that is over by model, to be kept before the ledger is."""
        day, hour = int(now // _DAY_S), int(now // HOUR_S)
        over: dict[int, Mapping[str, Counts]] = {}
        ledger = self
        if self.hour != hour:
            if self.work:
                stored = sum(one.stored_bytes for one in self.holdings.values())
                over[self.hour] = {**self.work, "": replace(self.work.get("", NO_COUNTS), stored_bytes=stored)}
            ledger = replace(ledger, hour=hour, work={})
        if self.day != day:
            accounts = {
                name: replace(one, images=0.0, compute_s=0.0)
                for name, one in self.accounts.items()
                if any(stake.until_s > now for stake in one.stakes.values())
            }
            ledger = replace(ledger, day=day, accounts=accounts)
        return ledger, over

    def has_seen(self, replica: str, number: int) -> bool:
        """Whether a replica's report came before."""
        return self.reports.get(replica, _NO_REPORT).number >= number

    def seen(self, replica: str, number: int, now: float) -> Ledger:
        """The ledger with a report noted, and old ones forgotten."""
        reports = {name: one for name, one in self.reports.items() if one.at_s + _REMEMBERED_S > now}
        return replace(self, reports={**reports, replica: ReportSeen(number, now)})

    def counted(self, work: Iterable[Work]) -> Ledger:
        """The ledger with work that was done."""
        models, accounts = dict(self.work), dict(self.accounts)
        for done in work:
            model = done.model if done.model in models or len(models) < _MOST_MODELS else _OTHERS
            models[model] = models.get(model, NO_COUNTS) + Counts(done.calls, done.images, done.compute_s)
            for name in {done.tenant, done.subject} & accounts.keys():
                account = accounts[name]
                accounts[name] = replace(
                    account, images=account.images + done.images, compute_s=account.compute_s + done.compute_s
                )
        return replace(self, work=models, accounts=accounts)
