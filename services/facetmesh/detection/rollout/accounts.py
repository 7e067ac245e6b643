"""The audit events of decisions: each says on which figures."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from facetmesh.kit.audit import Record

if TYPE_CHECKING:
    from facetmesh.detection.rollout.gates import Finding
    from facetmesh.detection.rollout.record import Decision, Rollout
    from facetmesh.kit.audit import Recorder

METHOD = "facetmesh.detection/rollout-decision"
SUBJECT = "services/detection"


class Accounts:
    """Has decisions recorded.

    Args:
        recorder: Takes audit events.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def decided(self, rollout: Rollout, decision: Decision) -> None:
        """Returns once the decision is accepted. Its event's id follows from its number: the log keeps one of it."""
        model, _, _ = rollout.name.partition("/rollouts/")
        event_id = hashlib.sha256(f"{rollout.name}#{decision.number}".encode()).hexdigest()[:32]
        record = Record(METHOD, f"tenants/{rollout.tenant_id}", SUBJECT, id=event_id)
        record.describe(resource=rollout.name, model_version=f"{model}/versions/{rollout.candidate}")
        step = rollout.plan.steps[decision.step]
        parts = f"{step.percent} percent, copies of {step.shadow_percent} percent"
        decided = f"{decision.state.value}: {decision.cause}, step {decision.step}: {parts}"
        record.grounds = (decided, *map(_told, decision.findings))
        await self._recorder.accept(record)


def _told(found: Finding) -> str:
    return (
        f"{found.gate}: {found.verdict.value}, candidate {found.candidate:.4g}, stable {found.stable:.4g}, "
        f"limit {found.limit:.4g}, {found.calls} calls"
    )
