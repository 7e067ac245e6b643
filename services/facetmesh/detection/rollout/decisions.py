"""What is to be done next with a rollout: no clock, no wire, only the record and the figures."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from facetmesh.detection.rollout.gates import Baseline, Finding, Verdict, before, judge, overall
from facetmesh.detection.rollout.plan import WHOLE
from facetmesh.detection.rollout.record import Order, Rollout, State

if TYPE_CHECKING:
    from facetmesh.detection.rollout.samples import Samples

_WATCHED = (State.RUNNING, State.PAUSED)
_OBEYED = {
    (Order.RUN, State.PENDING): (State.RUNNING, "started"),
    (Order.RUN, State.PAUSED): (State.RUNNING, "resumed"),
    (Order.PAUSE, State.RUNNING): (State.PAUSED, "paused"),
    **{(Order.PROMOTE, state): (State.PROMOTING, "ordered") for state in (State.PENDING, *_WATCHED)},
    **{(Order.ABORT, state): (State.ROLLING_BACK, "aborted") for state in (State.PENDING, *_WATCHED)},
}
"""What follows an order in a state, and its cause."""


def obey(rollout: Rollout, now_s: float) -> Rollout:
    """The record after what was ordered; the same one where it is so already, or decided."""
    following = _OBEYED.get((rollout.order, rollout.state))
    return rollout.decide(*following, now_s) if following else rollout


def watch(rollout: Rollout, samples: Samples, now_s: float) -> Rollout:
    """The record after a look at the calls; the same one where there is nothing to decide.

    A version that fails goes back at once, also from a pause and while the audit
    log is away. It goes on only when the window is over, all gates pass, and the
    log has accepted all that was decided before.
    """
    if rollout.state not in _WATCHED:
        return rollout
    if rollout.current.percent == WHOLE:
        samples = replace(samples, stable=rollout.reference)
    if rollout.baseline is None and samples.stable.calls >= rollout.limits.samples:
        rollout = replace(rollout, baseline=Baseline.of(samples.stable))
    findings = _findings(rollout, samples)
    verdict = overall(findings)
    if verdict is Verdict.FAIL:
        return rollout.decide(State.ROLLING_BACK, f"failed:{_first(findings, verdict)}", now_s, findings=findings)
    elapsed_s = now_s - rollout.since_s
    if rollout.state is State.PAUSED:
        return rollout
    if verdict is Verdict.PASS and elapsed_s >= rollout.plan.window_s and not rollout.outbox:
        return _go_on(replace(rollout, reference=samples.stable), findings, now_s)
    if elapsed_s >= rollout.plan.patience_s:
        return rollout.decide(State.ROLLING_BACK, _doubt(rollout, samples, findings), now_s, findings=findings)
    return rollout


def carried_out(rollout: Rollout, now_s: float) -> Rollout:
    """The record after what was decided last has been done."""
    after = {State.PROMOTING: State.DONE, State.ROLLING_BACK: State.ROLLED_BACK}[rollout.state]
    return rollout.decide(after, "carried_out", now_s)


def _findings(rollout: Rollout, samples: Samples) -> tuple[Finding, ...]:
    if rollout.baseline is None:
        return ()
    step = rollout.current
    findings: tuple[Finding, ...] = ()
    if not step.percent:
        needed = rollout.plan.calls_before(rollout.step, rollout.limits.samples)
        findings = (before(samples.stable, needed),)
        if not step.shadow_percent:
            return findings
    return findings + judge(
        samples.stable,
        samples.candidate,
        rollout.baseline,
        rollout.limits,
        alpha=rollout.limits.alpha / len(rollout.plan.steps),
        mirrored=step.shadow_percent > 0,
        served=step.percent > 0,
    )


def _go_on(rollout: Rollout, findings: tuple[Finding, ...], now_s: float) -> Rollout:
    if rollout.step + 1 < len(rollout.plan.steps):
        return rollout.decide(State.RUNNING, "passed", now_s, step=rollout.step + 1, findings=findings)
    return rollout.decide(State.PROMOTING, "passed", now_s, findings=findings)


def _first(findings: tuple[Finding, ...], verdict: Verdict) -> str:
    return next(finding.gate for finding in findings if finding.verdict is verdict)


def _doubt(rollout: Rollout, samples: Samples, findings: tuple[Finding, ...]) -> str:
    """Why a step that did not pass is given up."""
    if not findings or min(samples.stable.calls, samples.candidate.calls) < rollout.limits.samples:
        return "no_data"
    if overall(findings) is Verdict.PASS:
        return "unaudited"
    return f"undecided:{_first(findings, Verdict.WAIT)}"
