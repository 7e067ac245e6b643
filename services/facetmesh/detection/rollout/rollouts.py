"""Rollouts: what was ordered for a model's new version, and who drives it.

The tenant writes orders, the controller that holds the lease writes the rest. Both
go over the record's etag, so that neither overwrites what it has not read.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from facetmesh.detection.models import STABLE
from facetmesh.detection.rollout.record import DECIDED, FINAL, Order, Rollout
from facetmesh.detection.splits import Traffic
from facetmesh.kit.errors import Aborted, AlreadyExists, FailedPrecondition, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from facetmesh.detection.models import Models
    from facetmesh.detection.rollout.plan import Limits, Plan
    from facetmesh.detection.versions import Version

_ATTEMPTS = 10
_ENDING_LOOKS, _LOOK_AGAIN_S = 20, 0.25
"""How often to look whether the last decision of a rollout that is over has been audited."""
_LAST_WORDS = frozenset({Order.PROMOTE, Order.ABORT})


class RolloutStore(Protocol):
    """Where rollouts are kept: each model has a place for one, so that there are never two at once."""

    async def active(self) -> list[str]:
        """The names of those that may have something to be done."""
        ...

    async def current(self, model: str) -> Rollout | None:
        """The model's last rollout; None where it never had one."""

    async def put_current(self, rollout: Rollout) -> Rollout:
        """Stores a rollout over the one that has its etag, or a model's first one when it has none.

        Raises:
            Aborted: Somebody else changed it meanwhile.
        """
        ...

    async def forget_active(self, name: str) -> None:
        """Nothing is to be done for it any more."""

    async def archive(self, rollout: Rollout) -> None:
        """Keeps a rollout that is over; once more changes nothing."""

    async def archived(self, name: str) -> Rollout | None:
        """A rollout that was archived."""

    async def ids(self, model: str) -> list[str]:
        """The ids of a model's rollouts, sorted."""
        ...


class Rollouts:
    """What can be done with rollouts.

    Args:
        models: The models and their versions.
        store: Where rollouts are kept.
        is_quarantined: Whether a version keeps killing its runner.
        clock: Seconds since the epoch; the only clock that leases know.
    """

    def __init__(
        self,
        models: Models,
        store: RolloutStore,
        *,
        is_quarantined: Callable[[Version], bool] = lambda _: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._models = models
        self._store = store
        self._is_quarantined = is_quarantined
        self._clock = clock

    async def start(self, name: str, *, to: str, plan: Plan, limits: Limits) -> Rollout:
        """Begins a rollout to a version, by number or alias.

        Raises:
            InvalidArgument: FIELD_INVALID: a plan or limits that make no sense.
            NotFound: MODEL_NOT_FOUND, VERSION_NOT_FOUND.
            FailedPrecondition: VERSION_QUARANTINED; LABELS_DIFFER, TASK_DIFFERS: callers would not
                understand its answers; ALREADY_STABLE; TRAFFIC_SPLIT: the tenant splits the model's calls
                itself; ROLLOUT_ACTIVE: the model has another one.
            AlreadyExists: ROLLOUT_EXISTS: there is one with that id.
            Aborted: Another one was started meanwhile.
            Unavailable: ROLLOUT_ENDING: the last one is over, but the audit log has not taken its end yet.
        """
        plan.check()
        limits.check()
        wanted = Rollout(name, 0, 0, plan, limits, created_s=self._clock())
        model = await self._models.get(wanted.tenant_id, wanted.model_id)
        stable, candidate = await self._models.versions(model, [model.number(STABLE), model.number(to)])
        self._compare(stable, candidate)
        before = await self._last(model.name)
        if (before and before.name == name) or await self._store.archived(name):
            raise AlreadyExists("The model has a rollout with this id.", reason="ROLLOUT_EXISTS")
        if before and before.is_active:
            raise FailedPrecondition(
                "The model has a rollout already: let it end, or abort it.", reason="ROLLOUT_ACTIVE"
            )
        if model.traffic != Traffic():
            raise FailedPrecondition(
                "The model's calls are split already: unset its traffic, which the rollout will set.",
                reason="TRAFFIC_SPLIT",
            )
        if before:
            await self._store.archive(before)
        return await self._store.put_current(
            replace(
                wanted, stable=stable.number, candidate=candidate.number, etag=before.etag if before else ""
            )
        )

    async def _last(self, model: str) -> Rollout | None:
        """The model's last rollout, with its end in the audit log if it is over: that takes a moment."""
        for _ in range(_ENDING_LOOKS):
            last = await self._store.current(model)
            if last is None or not last.is_active or last.state not in FINAL:
                return last
            await asyncio.sleep(_LOOK_AGAIN_S)
        raise Unavailable(
            "The model's last rollout is over, but its end is not in the audit log yet.", reason="ROLLOUT_ENDING",
            retry_after_s=1,
        )  # fmt: skip

    async def get(self, name: str) -> Rollout:
        """The rollout.

        Raises:
            NotFound: ROLLOUT_NOT_FOUND.
        """
        rollout = await self._store.current(name.partition("/rollouts/")[0])
        if rollout is None or rollout.name != name:
            rollout = await self._store.archived(name)
        if rollout is None:
            raise NotFound("There is no such rollout.", reason="ROLLOUT_NOT_FOUND")
        return rollout

    async def ids(self, model: str) -> list[str]:
        """The ids of a model's rollouts, sorted."""
        return await self._store.ids(model)

    async def order(self, name: str, order: Order) -> Rollout:
        """Has the controller do something else from now on; the same order again changes nothing.

        Raises:
            NotFound: ROLLOUT_NOT_FOUND.
            FailedPrecondition: ROLLOUT_DECIDED: it is too late.
            Aborted: Too many changes at once.
        """
        for _ in range(_ATTEMPTS):
            rollout = await self.get(name)
            if rollout.order is order:
                return rollout
            if rollout.state in DECIDED or rollout.order in _LAST_WORDS:
                raise FailedPrecondition("The rollout's end has been decided.", reason="ROLLOUT_DECIDED")
            try:
                return await self._store.put_current(replace(rollout, order=order))
            except Aborted:
                continue  # its controller wrote down how far it is
        raise Aborted("Too many changes at once; try again.", retry_after_s=1)

    # What controllers ask for.

    async def active(self) -> list[str]:
        """The names of the rollouts in which there is something to do."""
        return await self._store.active()

    async def lease(self, name: str, holder: str, seconds: float) -> Rollout | None:
        """Gives a controller the rollout to itself for so long; None while another has it, or nothing is to be done.

        Raises:
            Aborted: Somebody else changed it meanwhile.
        """
        now = self._clock()
        rollout = await self._store.current(name.partition("/rollouts/")[0])
        if rollout is None or rollout.name != name or not rollout.is_active:
            await self._store.forget_active(name)
            return None
        if rollout.holder != holder and now < rollout.leased_until_s:
            return None
        return await self._store.put_current(replace(rollout, holder=holder, leased_until_s=now + seconds))

    async def report(self, rollout: Rollout, holder: str) -> Rollout:
        """Stores how far it is, as the controller that has it says.

        Raises:
            Aborted: LEASE_LOST: another controller has it, or may by now; or somebody else changed it meanwhile.
        """
        if rollout.holder != holder or self._clock() >= rollout.leased_until_s:
            raise Aborted("Another controller may have the rollout by now.", reason="LEASE_LOST")
        return await self._store.put_current(rollout)

    def _compare(self, stable: Version, candidate: Version) -> None:
        if candidate.number == stable.number:
            raise FailedPrecondition("The version is the stable one already.", reason="ALREADY_STABLE")
        if self._is_quarantined(candidate):
            raise FailedPrecondition("The version is quarantined: it kept crashing.", reason="VERSION_QUARANTINED")
        if candidate.facts.task != stable.facts.task:
            raise FailedPrecondition(
                f"The version's task is {candidate.facts.task}, the stable one's {stable.facts.task}.",
                reason="TASK_DIFFERS",
            )
        if candidate.labels != stable.labels:
            raise FailedPrecondition("The version's labels are not the stable one's.", reason="LABELS_DIFFER")
