"""A rollout: what was ordered, how far it is, and what was decided.

    pending ──▶ running(step) ⇄ paused        the record is the state: a controller
                 │  │      ▲─┘ next step       that starts anew reads on where the
                 │  ▼                          one before it stopped
                 │ promoting ──▶ done
                 ▼
                rolling_back ──▶ rolled_back

The API writes the order, the controller all else: so no transition has two authors.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from facetmesh.detection.rollout.gates import Baseline, Finding  # noqa: TC001 - pydantic reads them at run time
from facetmesh.detection.rollout.plan import Limits, Plan, Step
from facetmesh.detection.rollout.samples import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence


class Order(Enum):
    """What the tenant wants of it."""

    RUN = "run"
    PAUSE = "pause"
    """Stay at this step; a version that fails still goes back."""
    PROMOTE = "promote"
    """All at once, whatever the gates say."""
    ABORT = "abort"


class State(Enum):
    """How far it is."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    PROMOTING = "promoting"
    """Decided, not yet done."""
    ROLLING_BACK = "rolling_back"
    """Decided, not yet done."""
    DONE = "done"
    ROLLED_BACK = "rolled_back"


FINAL = frozenset({State.DONE, State.ROLLED_BACK})
DECIDED = FINAL | {State.PROMOTING, State.ROLLING_BACK}
"""States in which orders come too late."""
_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class Decision:
    """A transition, and on which figures."""

    number: int
    """From 1, of the rollout: with its name the key by which a repeated audit event is known."""
    at_s: float
    """Seconds since the epoch."""
    state: State
    """What it is in from then on."""
    step: int
    cause: str
    """started, passed, paused, resumed, ordered, aborted, failed:GATE, no_data, undecided:GATE,
    unaudited or carried_out."""
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Rollout:
    """The record."""

    name: str
    """tenants/{tenant}/models/{model}/rollouts/{rollout}."""
    stable: int
    """The number of the version that answers, and that it goes back to."""
    candidate: int
    """The number of the new version."""
    plan: Plan = field(default_factory=Plan)
    limits: Limits = field(default_factory=Limits)
    order: Order = Order.RUN
    state: State = State.PENDING
    step: int = 0
    """Of the plan's steps, from 0."""
    since_s: float = 0.0
    """When this step began, in seconds since the epoch."""
    baseline: Baseline | None = None
    """Where times are compared; None until the stable version had enough calls."""
    reference: Sample = field(default_factory=Sample)
    """The stable version's calls in the step before: what the last step, which leaves it none, is compared with."""
    decisions: int = 0
    """How many there were."""
    outbox: tuple[Decision, ...] = ()
    """Those that the audit log has not accepted yet."""
    history: tuple[Decision, ...] = ()
    """The last ones, the newest last."""
    created_s: float = 0.0
    """Seconds since the epoch."""
    holder: str = ""
    """The controller that has it to itself."""
    leased_until_s: float = 0.0
    """Seconds since the epoch."""
    etag: str = ""

    @property
    def tenant_id(self) -> str:
        """Whose it is."""
        return self.name.split("/")[1]

    @property
    def model_id(self) -> str:
        """Of which model."""
        return self.name.split("/")[3]

    @property
    def id(self) -> str:
        """The last part of its name."""
        return self.name.split("/")[5]

    @property
    def is_active(self) -> bool:
        """Whether a controller has something to do."""
        return self.state not in FINAL or bool(self.outbox)

    @property
    def current(self) -> Step:
        """The step that it is at."""
        return self.plan.steps[self.step]

    def decide(
        self, state: State, cause: str, now_s: float, *, step: int | None = None, findings: Sequence[Finding] = ()
    ) -> Rollout:
        """The record after a decision. A step begins anew when it is entered or resumed."""
        entered = self.step if step is None else step
        decision = Decision(self.decisions + 1, now_s, state, entered, cause, tuple(findings))
        begins = state is State.RUNNING
        return replace(
            self, state=state, step=entered, since_s=now_s if begins else self.since_s,
            decisions=decision.number, outbox=(*self.outbox, decision),
            history=(*self.history, decision)[-_REMEMBERED:],
        )  # fmt: skip
