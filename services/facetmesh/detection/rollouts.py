"""Rollouts: what was ordered for a model's new version, and who drives it.

The tenant writes orders, the controller that holds the lease writes the rest. Both
go over the record's etag, so that neither overwrites what it has not read.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

from facetmesh.detection.models import STABLE
from facetmesh.kit.errors import Aborted, AlreadyExists, FailedPrecondition, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from facetmesh.detection.models import Models
    from facetmesh.detection.versions import Version
    from facetmesh.kit.rollouts import Limits, Plan

Order = Literal["run", "pause", "promote", "abort"]
State = Literal["pending", "running", "paused", "promoting", "rolling_back", "done", "rolled_back"]
DECIDED = frozenset({"promoting", "rolling_back", "done", "rolled_back"})
"""States in which orders come too late."""
_OVER = frozenset({"done", "rolled_back"})


@dataclass(frozen=True, slots=True)
class Rollout:
    """The record, as the API keeps it."""

    tenant_id: str
    model_id: str
    id: str
    stable: int
    """The number of the version that answered when it began."""
    candidate: int
    """The number of the new version."""
    plan: Plan
    limits: Limits
    created_s: float
    """Seconds since the epoch."""
    order: Order = "run"
    state: State = "pending"
    progress: str = ""
    """What else the controller keeps: nobody but controllers reads it."""
    unaudited: bool = False
    """Whether the audit log has still to hear of a decision."""
    holder: str = ""
    """The controller that has it to itself."""
    leased_until_s: float = 0.0
    """Seconds since the epoch."""
    etag: str = ""

    @property
    def name(self) -> str:
        """The resource name."""
        return f"tenants/{self.tenant_id}/models/{self.model_id}/rollouts/{self.id}"

    @property
    def is_over(self) -> bool:
        """Whether the split has ended."""
        return self.state in _OVER

    @property
    def is_active(self) -> bool:
        """Whether a controller has something to do."""
        return not self.is_over or self.unaudited


class RolloutStore(Protocol):
    """Where rollouts are kept: each model has a place for one, so that there are never two at once."""

    async def current(self, tenant_id: str, model_id: str) -> Rollout | None:
        """The model's last rollout; None where it never had one."""

    async def put_current(self, rollout: Rollout) -> Rollout:
        """Stores a rollout over the one that has its etag, or a model's first one when it has none.

        Raises:
            Aborted: Somebody else changed it meanwhile.
        """
        ...

    async def archive(self, rollout: Rollout) -> None:
        """Keeps a rollout that is over; once more changes nothing."""

    async def archived(self, tenant_id: str, model_id: str, rollout_id: str) -> Rollout | None:
        """A rollout that was archived."""


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
        is_quarantined: Callable[[Version], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._models = models
        self._store = store
        self._is_quarantined = is_quarantined
        self._clock = clock

    async def start(
        self, tenant_id: str, model_id: str, rollout_id: str, *, to: str, plan: Plan, limits: Limits
    ) -> Rollout:
        """Begins a rollout to a version, by number or alias.

        Raises:
            InvalidArgument: FIELD_INVALID: a plan or limits that make no sense.
            NotFound: MODEL_NOT_FOUND, VERSION_NOT_FOUND.
            FailedPrecondition: VERSION_QUARANTINED; LABELS_DIFFER, TASK_DIFFERS: callers would not
                understand its answers; ALREADY_STABLE; ROLLOUT_ACTIVE: the model has another one.
            AlreadyExists: ROLLOUT_EXISTS: there is one with that id.
            Aborted: Another one was started meanwhile.
        """
        plan.check()
        limits.check()
        model = await self._models.get(tenant_id, model_id)
        stable, candidate = await self._models.versions(model, [model.number(STABLE), model.number(to)])
        self._compare(stable, candidate)
        before = await self._store.current(tenant_id, model_id)
        if (before and before.id == rollout_id) or await self._store.archived(tenant_id, model_id, rollout_id):
            raise AlreadyExists("The model has a rollout with this id.", reason="ROLLOUT_EXISTS")
        if before and before.is_active:
            raise FailedPrecondition(
                "The model has a rollout already: let it end, or abort it.", reason="ROLLOUT_ACTIVE"
            )
        if before:
            await self._store.archive(before)
        rollout = Rollout(
            tenant_id, model_id, rollout_id, stable.number, candidate.number, plan, limits, self._clock(),
            etag=before.etag if before else "",
        )  # fmt: skip
        return await self._store.put_current(rollout)

    async def get(self, tenant_id: str, model_id: str, rollout_id: str) -> Rollout:
        """The rollout.

        Raises:
            NotFound: ROLLOUT_NOT_FOUND.
        """
        rollout = await self._store.current(tenant_id, model_id)
        if rollout is None or rollout.id != rollout_id:
            rollout = await self._store.archived(tenant_id, model_id, rollout_id)
        if rollout is None:
            raise NotFound("There is no such rollout.", reason="ROLLOUT_NOT_FOUND")
        return rollout

    async def order(self, rollout: Rollout, order: Order) -> Rollout:
        """Has the controller do something else from now on; the same order again changes nothing.

        Raises:
            FailedPrecondition: ROLLOUT_DECIDED: it is too late.
            Aborted: Somebody else changed it meanwhile.
        """
        if rollout.order == order:
            return rollout
        if rollout.state in DECIDED or rollout.order in {"promote", "abort"}:
            raise FailedPrecondition("The rollout's end has been decided.", reason="ROLLOUT_DECIDED")
        return await self._store.put_current(replace(rollout, order=order))

    async def lease(self, rollout: Rollout, holder: str, seconds: float) -> Rollout | None:
        """Gives a controller the rollout to itself for so long; None while another has it.

        Raises:
            Aborted: Somebody else changed it meanwhile.
        """
        now = self._clock()
        if rollout.holder != holder and now < rollout.leased_until_s:
            return None
        return await self._store.put_current(replace(rollout, holder=holder, leased_until_s=now + seconds))

    async def report(
        self, rollout: Rollout, holder: str, *, etag: str, state: State, progress: str, unaudited: bool
    ) -> Rollout:
        """Stores how far it is, as the controller that has it says.

        Raises:
            Aborted: LEASE_LOST: another controller has it, or may by now; or somebody else changed it meanwhile.
        """
        if rollout.holder != holder or self._clock() >= rollout.leased_until_s:
            raise Aborted("Another controller may have the rollout by now.", reason="LEASE_LOST")
        changed = replace(rollout, state=state, progress=progress, unaudited=unaudited, etag=etag)
        return await self._store.put_current(changed)

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
