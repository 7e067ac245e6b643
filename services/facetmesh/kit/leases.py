"""The limits as one replica enforces them: with a part of each, leased from auth and renewed all the time.

A call is admitted from memory. Only the first of an account waits for auth, and
not for long. While auth is away, the last lease goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.allowance import Allowance
from facetmesh.kit.budgets import MOST_DEMANDS, MOST_WORK, Amounts, Demand, Grant, Report, Work
from facetmesh.kit.errors import FacetmeshError, Unavailable
from facetmesh.kit.policy import Policies, PolicySet
from facetmesh.kit.profiles import Profile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from facetmesh.kit.budgets import ActivePolicy, Lease

_CAREFUL = Amounts(requests_per_s=5, concurrency=2, images=500, compute_s=300)
CAREFUL = Grant("", _CAREFUL, _CAREFUL)
"""What an account may take that nothing is known of, while auth does not answer."""
_INTRODUCE_S = 2.0
"""How long the first call of an account waits for an auth that is there but slow."""
_SOONEST_S = 0.2
"""How soon after a report the next may go out, when calls are refused."""
_AGAIN_S = 1.0
"""When to try again after auth did not answer."""
_IDLE_S = 10.0
"""An account without a call for so long is let go of."""
_log = logging.getLogger(__name__)


class BudgetSource(Protocol):
    """Who leases."""

    async def lease(self, report: Report) -> Lease:
        """What this replica may give out from now on. A report that is sent again counts once.

        Raises:
            FacetmeshError: It cannot be had now.
        """
        ...

    async def hold(self, tenant: str, service: str, stored_bytes: int, models: int) -> None:
        """Notes what a service keeps for a tenant, in all.

        Raises:
            ResourceExhausted: It would be more than the tenant may have.
            FacetmeshError: It cannot be noted now.
        """
        ...


class Leases:
    """What this replica holds. It is a `kit.profiles.Tenancy`.

    Args:
        source: Who leases.
        service: Whose replica it is: detection, fusion, …
        policies: Where policies that come with a lease are put into force.
        clock: Seconds of a monotonic clock.
        wall: Seconds since the epoch.
    """

    def __init__(
        self,
        source: BudgetSource,
        service: str,
        policies: Policies,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._source = source
        self._service = service
        self._policies = policies
        self._clock = clock
        self._wall = wall
        self._replica = secrets.token_hex(8)
        self._accounts: dict[str, Allowance] = {}
        self._profiles: dict[str, Profile] = {}
        self._work: defaultdict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0, 0, 0.0])
        self._sequence = 0
        self._number = 0
        self._unheard: Report | None = None
        self._reporting = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._reported_at = float("-inf")
        self._introduced = False

    def profile(self, tenant: str) -> Profile:
        """The settings of tenants/{tenant}; the careful defaults where nothing is known of it yet."""
        return self._profiles.get(tenant, _UNKNOWN)

    async def current(self, tenant: str) -> Profile | None:
        """The settings of tenants/{tenant} as auth has them now, for what cannot be taken back.

        Returns:
            None where auth serves no such tenant: there is none, or it is shut out.

        Raises:
            Unavailable: Auth does not answer.
        """
        async with self._reporting:
            if self._unheard is not None:
                await self._send(self._unheard)
            report = self._next_report([tenant])
            if not report.demands:  # nothing is wanted here but word of it
                report = replace(report, demands=(Demand(tenant, leaving=True),))
            lease = await self._send(report)
        return next((grant.profile for grant in lease.grants if grant.account == tenant), None)

    def charge(
        self, tenant: str, subject: str, *, model: str = "", images: int = 0, compute_s: float = 0.0
    ) -> None:
        """Counts work that was done."""
        self._count(tenant, subject, model, 1, images, compute_s)
        for account in (self._accounts.get(tenant), self._accounts.get(subject)):
            if account is not None:
                account.spend(images, compute_s)

    async def hold(self, tenant: str, *, stored_bytes: int, models: int) -> None:
        """Has the tenant hold this much with this service, in all."""
        await self._source.hold(tenant, self._service, stored_bytes, models)

    async def ready(self) -> None:
        """Returns once auth was heard, and with it the policies. They stay when auth goes away.

        Raises:
            Unavailable: It was not yet.
        """
        if not self._introduced:
            raise Unavailable("The policies are not here yet.", reason="AUTH_UNREACHABLE", retry_after_s=1)

    def known(self, tenant: str, subject: str) -> bool:
        """Whether the accounts of a call have a part of their limits."""
        return all(
            (account := self._accounts.get(name)) is not None and account.granted
            for name in _accounts_of(tenant, subject)
        )

    async def introduce(self, tenant: str, subject: str) -> None:
        """Returns once the accounts of a call have a part of their limits; a careful one where auth does not say."""
        names = _accounts_of(tenant, subject)
        for name in names:
            self._accounts.setdefault(name, Allowance(name, self._clock()))
        with contextlib.suppress(TimeoutError, FacetmeshError):
            async with asyncio.timeout(_INTRODUCE_S), self._reporting:
                if not self.known(tenant, subject):  # else another call's introduction was first
                    await self._exchange(names)
        for account in self._of(tenant, subject):
            if not account.granted:
                account.take(CAREFUL, self._clock(), self._wall())

    def admit(self, tenant: str, subject: str, *, infers: bool) -> None:
        """Returns when a call may go on, as far as rates and the day's limits say.

        Args:
            tenant: tenants/{tenant}.
            subject: The principal's subject.
            infers: Whether it is to work with a model: only then do images and compute count.

        Raises:
            ResourceExhausted: RATE_LIMITED, IMAGES_EXHAUSTED or COMPUTE_EXHAUSTED, with when to come again.
        """
        self._count(tenant, subject, "", 1, 0, 0.0)
        now = self._clock()
        for account in self._of(tenant, subject):
            try:
                account.admit(now, self._wall(), infers=infers)
            except FacetmeshError:
                self._wanted.set()
                raise

    def enter(self, tenant: str, subject: str) -> Callable[[], None]:
        """Takes a place among the calls in progress; what is returned gives it back.

        Raises:
            ResourceExhausted: CONCURRENCY_LIMITED; there is none.
        """
        entered: list[Allowance] = []

        def leave() -> None:
            for account in entered:
                account.leave()

        for account in self._of(tenant, subject):
            try:
                account.enter()
            except FacetmeshError:
                leave()
                self._wanted.set()
                raise
            entered.append(account)
        return leave

    async def keep(self) -> None:
        """Renews the leases, for ever."""
        renew_s, heard = 0.0, True
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(renew_s):
                    await self._wanted.wait()
                    await asyncio.sleep(max(0.0, self._reported_at + _SOONEST_S - self._clock()))
            self._wanted.clear()
            try:
                renew_s = await self._report()
            except FacetmeshError as error:
                if heard:
                    _log.warning("leases are not renewed", extra={"reason": error.reason})
                heard, renew_s = False, _AGAIN_S
                self._wanted.clear()
            else:
                if not heard:
                    _log.info("leases are renewed again")
                heard = True

    async def _report(self) -> float:
        """Tells auth of all accounts, and does as it answers; returns when to report again, in seconds."""
        async with self._reporting:
            names = list(self._accounts)
            renew_s = await self._exchange(names[:MOST_DEMANDS])
            for start in range(MOST_DEMANDS, len(names), MOST_DEMANDS):
                renew_s = min(renew_s, await self._exchange(names[start : start + MOST_DEMANDS]))
            return renew_s

    async def _exchange(self, names: Sequence[str]) -> float:
        if self._unheard is not None:  # counts first, in the words it was sent with
            await self._send(self._unheard)
        lease = await self._send(self._next_report(names))
        while lease.more_policies or len(self._work) >= MOST_WORK:
            lease = await self._send(self._next_report(()))
        return lease.renew_s

    async def _send(self, report: Report) -> Lease:
        self._unheard = report
        self._reported_at = self._clock()
        lease = await self._source.lease(replace(report, policies_after=self._sequence))
        self._unheard = None
        self._introduced = True
        for policy in lease.policies:
            self._use(policy)
        leaving = {demand.account for demand in report.demands if demand.leaving}
        for grant in lease.grants:
            self._take(grant, leaves=grant.account in leaving)
        for name in leaving & self._accounts.keys():
            if self._accounts[name].granted and self._accounts[name].is_idle:
                self._accounts.pop(name)
            else:  # a call came meanwhile
                self._wanted.set()
        return lease

    def _next_report(self, names: Sequence[str]) -> Report:
        now = self._clock()
        self._number += 1
        demands = tuple(
            account.report(now, idle_s=_IDLE_S) for name in names if (account := self._accounts.get(name)) is not None
        )
        keys = list(self._work)[:MOST_WORK]
        counted = {key: self._work.pop(key) for key in keys}
        work = tuple(
            Work(*key, int(calls), int(images), compute_s) for key, (calls, images, compute_s) in counted.items()
        )
        return Report(self._replica, self._service, self._number, demands, work, self._sequence)

    def _take(self, grant: Grant, *, leaves: bool) -> None:
        if grant.profile is not None:
            self._profiles[grant.account] = grant.profile
        account = self._accounts.get(grant.account)
        # Who leaves has no part: a call that came meanwhile is not to be refused for that.
        if account is not None and not leaves:
            account.take(grant, self._clock(), self._wall())

    def _use(self, policy: ActivePolicy) -> None:
        try:
            self._policies.use(policy.owner, PolicySet(policy.name, policy.text) if policy.name else None)
        except FacetmeshError as error:  # auth checked it: then it is newer than we are
            _log.error("a policy cannot be used", extra={"policy": policy.name, "detail": error.message})
            deny = f'@id("unusable") forbid (principal, action, resource);//{policy.name}'
            self._policies.use(policy.owner, PolicySet(policy.name, deny))
        self._sequence = max(self._sequence, policy.sequence)

    def _of(self, tenant: str, subject: str) -> list[Allowance]:
        return [account for name in _accounts_of(tenant, subject) if (account := self._accounts.get(name)) is not None]

    def _count(self, tenant: str, subject: str, model: str, calls: int, images: int, compute_s: float) -> None:
        counted = self._work[tenant, subject, model]
        counted[0] += calls
        counted[1] += images
        counted[2] += compute_s


_UNKNOWN = Profile()


def _accounts_of(tenant: str, subject: str) -> tuple[str, ...]:
    """Whose limits count for a call: the tenant's and, where a key is behind it, that key's."""
    return (tenant, subject) if subject.startswith(f"{tenant}/keys/") else (tenant,)
