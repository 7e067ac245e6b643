"""What rollouts say in protobuf."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facetmesh.detection.rollout.gates import Verdict
from facetmesh.detection.rollout.plan import CANARY, Limits, Plan, Step
from facetmesh.detection.rollout.record import State
from facetmesh.detection.v1 import rollout_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.timestamp_pb2 import Timestamp

    from facetmesh.detection.rollout.gates import Finding
    from facetmesh.detection.rollout.record import Decision, Rollout

_DEFAULTS, _LIMITS = Plan(), Limits()
_STATES: Mapping[State, rollout_pb2.Rollout.State.ValueType] = {
    state: rollout_pb2.Rollout.State.Value(f"STATE_{state.name}") for state in State
}
_VERDICTS: Mapping[Verdict, rollout_pb2.Rollout.Finding.Verdict.ValueType] = {
    verdict: rollout_pb2.Rollout.Finding.Verdict.Value(f"VERDICT_{verdict.name}") for verdict in Verdict
}


def plan(asked: rollout_pb2.Rollout) -> Plan:
    """What is to be done, with what goes before the first calls."""
    return Plan(
        tuple(Step(step.percent, step.shadow_percent) for step in asked.steps) or CANARY,
        asked.window.ToTimedelta().total_seconds() if asked.HasField("window") else _DEFAULTS.window_s,
        asked.patience.ToTimedelta().total_seconds() if asked.HasField("patience") else _DEFAULTS.patience_s,
    ).led_in()


def limits(asked: rollout_pb2.Rollout.Limits) -> Limits:
    """How much worse the new version may be."""
    return Limits(
        errors=asked.errors if asked.HasField("errors") else _LIMITS.errors,
        slowdown=asked.slowdown if asked.HasField("slowdown") else _LIMITS.slowdown,
        cost=asked.cost if asked.HasField("cost") else _LIMITS.cost,
        agreement=asked.agreement if asked.HasField("agreement") else _LIMITS.agreement,
        drift=asked.drift if asked.HasField("drift") else _LIMITS.drift,
        samples=asked.samples or _LIMITS.samples,
    )


def rollout(found: Rollout) -> rollout_pb2.Rollout:
    """A rollout."""
    wanted = found.limits
    message = rollout_pb2.Rollout(
        name=found.name,
        version=str(found.candidate),
        stable_version=str(found.stable),
        steps=[
            rollout_pb2.Rollout.Step(percent=step.percent, shadow_percent=step.shadow_percent)
            for step in found.plan.steps
        ],
        limits=rollout_pb2.Rollout.Limits(
            errors=wanted.errors, slowdown=wanted.slowdown, cost=wanted.cost, agreement=wanted.agreement,
            drift=wanted.drift, samples=wanted.samples,
        ),
        state=_STATES[found.state],
        step=found.step,
        decisions=[_decision(one) for one in found.history],
        etag=found.etag,
    )  # fmt: skip
    message.window.FromMilliseconds(round(found.plan.window_s * 1000))
    message.patience.FromMilliseconds(round(found.plan.patience_s * 1000))
    _set(message.create_time, found.created_s)
    if found.since_s:
        _set(message.step_time, found.since_s)
    return message


def _decision(made: Decision) -> rollout_pb2.Rollout.Decision:
    message = rollout_pb2.Rollout.Decision(
        number=made.number, state=_STATES[made.state], step=made.step, cause=made.cause,
        findings=[_finding(one) for one in made.findings],
    )  # fmt: skip
    _set(message.time, made.at_s)
    return message


def _finding(found: Finding) -> rollout_pb2.Rollout.Finding:
    return rollout_pb2.Rollout.Finding(
        gate=found.gate, verdict=_VERDICTS[found.verdict], stable=found.stable, candidate=found.candidate,
        limit=found.limit, calls=found.calls,
    )  # fmt: skip


def _set(time: Timestamp, seconds: float) -> None:
    time.FromMicroseconds(round(seconds * 1e6))
