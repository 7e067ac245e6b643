"""Gates: whether a version's calls are as good as the stable version's, one subject each.

A gate fails when a sequential test says so (`sequential`), at any time. It passes
when there are enough calls and the figures are within the limit. In between it
waits: more calls will tell.

Time is compared where the stable version's quantile lay when the rollout began:
the share of its own calls above that, against the share of the candidate's calls
above `slowdown` times that. A candidate that is at most so much slower at every
quantile never has the larger share, whatever the load does to both.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from facetmesh.detection.rollout import drift, sequential

if TYPE_CHECKING:
    from facetmesh.detection.rollout.plan import Limits
    from facetmesh.detection.rollout.samples import Sample
    from facetmesh.detection.rollout.sequential import Tally

QUANTILES = (0.5, 0.95, 0.99)
GATES = ("errors", "p50", "p95", "p99", "cost", "agreement", "scores", "classes")


class Verdict(Enum):
    """Of one gate, or of all."""

    PASS = "pass"  # noqa: S105 - a verdict, no password
    FAIL = "fail"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Baseline:
    """Where the stable version's times are compared, fixed when the rollout begins."""

    latency_s: tuple[float, ...]
    """Its quantiles, as QUANTILES has them."""
    compute_s: float
    """The median."""

    @classmethod
    def of(cls, stable: Sample) -> Baseline:
        """The baseline that its calls give."""
        return cls(tuple(map(stable.latency.quantile_s, QUANTILES)), stable.compute.quantile_s(0.5))


@dataclass(frozen=True, slots=True)
class Finding:
    """What a gate found."""

    gate: str
    verdict: Verdict
    stable: float
    candidate: float
    """The figure that `limit` is compared with."""
    limit: float
    calls: int
    """Of the candidate, that the figure is of."""


def judge(
    stable: Sample, candidate: Sample, baseline: Baseline, limits: Limits, *, alpha: float, mirrored: bool, served: bool
) -> tuple[Finding, ...]:
    """What the gates find.

    Args:
        stable: The stable version's calls.
        candidate: The new version's.
        baseline: Where times are compared.
        limits: How much worse it may be.
        alpha: The chance that any gate ever fails in this step though all is within the limits.
        mirrored: Whether it gets copies of calls: then agreement is asked for.
        served: Whether it answers calls: then latency is asked for. Copies may
            stand behind the answers, so that theirs says nothing.
    """
    each = alpha / len(GATES)
    findings = [_errors(stable, candidate, limits, each)]
    if served:
        for quantile, than_s in zip(QUANTILES, baseline.latency_s, strict=True):
            tallies = stable.latency.slower(than_s), candidate.latency.slower(than_s * limits.slowdown)
            findings.append(_slower(f"p{quantile * 100:.0f}", *tallies, limits, each))
    tallies = stable.compute.slower(baseline.compute_s), candidate.compute.slower(baseline.compute_s * limits.cost)
    findings.append(_slower("cost", *tallies, limits, each))
    if mirrored:
        findings.append(_agreement(candidate.agreement, limits, each))
    findings.extend(_drift(gate, stable, candidate, limits, each) for gate in ("scores", "classes"))
    return tuple(findings)


def before(stable: Sample, needed: int) -> Finding:
    """Whether the stable version has had enough calls for the candidate to get some."""
    calls = stable.calls
    verdict = _verdict(fails=False, passes=calls >= needed)
    return Finding("calls", verdict, calls, calls, needed, calls)


def overall(findings: tuple[Finding, ...]) -> Verdict:
    """FAIL where one fails, PASS where all pass."""
    verdicts = {finding.verdict for finding in findings}
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    return Verdict.PASS if verdicts == {Verdict.PASS} else Verdict.WAIT


def _verdict(*, fails: bool, passes: bool) -> Verdict:
    if fails:
        return Verdict.FAIL
    return Verdict.PASS if passes else Verdict.WAIT


def _enough(limits: Limits, *calls: int) -> bool:
    return min(calls) >= limits.samples


def _errors(stable: Sample, candidate: Sample, limits: Limits, alpha: float) -> Finding:
    one, other = stable.errors, candidate.errors
    limit = one.mean + limits.errors
    verdict = _verdict(
        fails=sequential.is_above(other, one, alpha, margin=limits.errors),
        passes=_enough(limits, one.calls, other.calls) and other.mean <= limit,
    )
    return Finding("errors", verdict, one.mean, other.mean, limit, other.calls)


def _slower(gate: str, one: Tally, other: Tally, limits: Limits, alpha: float) -> Finding:
    verdict = _verdict(
        fails=sequential.is_above(other, one, alpha),
        passes=_enough(limits, one.calls, other.calls) and other.mean <= one.mean,
    )
    return Finding(gate, verdict, one.mean, other.mean, one.mean, other.calls)


def _agreement(agreement: Tally, limits: Limits, alpha: float) -> Finding:
    """Against a limit, not a sample: the stable version agrees with itself."""
    verdict = _verdict(
        fails=sequential.upper(agreement, alpha) < limits.agreement,
        passes=_enough(limits, agreement.calls) and agreement.mean >= limits.agreement,
    )
    return Finding("agreement", verdict, 1.0, agreement.mean, limits.agreement, agreement.calls)


def _drift(gate: str, stable: Sample, candidate: Sample, limits: Limits, alpha: float) -> Finding:
    pair = (stable.scores, candidate.scores) if gate == "scores" else (stable.classes, candidate.classes)
    width = max(map(len, pair))
    one, other = (
        (sample.empty, *counts, *(0,) * (width - len(counts)))
        for sample, counts in zip((stable, candidate), pair, strict=True)
    )
    bins = sum(1 for counts in zip(one, other, strict=True) if any(counts))
    index = drift.psi(one, other)
    corrected = max(0.0, index - drift.expected(bins, candidate.calls, stable.calls))
    known = bool(sum(one) and sum(other))
    verdict = _verdict(
        fails=index - drift.noise(bins, candidate.calls, stable.calls, alpha) > limits.drift,
        passes=known and _enough(limits, stable.calls, candidate.calls) and corrected <= limits.drift,
    )
    return Finding(gate, verdict, 0.0, corrected, limits.drift, candidate.calls)
