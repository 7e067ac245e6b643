"""Each gate fails for its own reason, and waits until there is enough to see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.unit.rollout_world import GOOD, Behaviour, sample

from facetmesh.detection.rollout.gates import Baseline, Finding, Verdict, judge, overall
from facetmesh.detection.rollout.plan import Limits
from facetmesh.detection.rollout.samples import BOUNDS_S, Histogram, Sample
from facetmesh.kit.errors import InvalidArgument

LIMITS = Limits()
STABLE = sample(np.random.default_rng(1), GOOD, 20_000)
BASELINE = Baseline.of(STABLE)


def findings(candidate: Sample, stable: Sample = STABLE, limits: Limits = LIMITS) -> dict[str, Finding]:
    found = judge(stable, candidate, BASELINE, limits, alpha=0.002, mirrored=True, served=True)
    return {finding.gate: finding for finding in found}


def of(version: Behaviour, calls: int = 400, seed: int = 2) -> Sample:
    return sample(np.random.default_rng(seed), version, calls, compared=calls)


def test_a_good_version_passes_every_gate() -> None:
    found = findings(of(GOOD, 2000))
    assert {finding.verdict for finding in found.values()} == {Verdict.PASS}
    assert set(found) == {"errors", "p50", "p95", "p99", "cost", "agreement", "scores", "classes"}


@pytest.mark.parametrize(
    ("version", "gates"),
    [
        (Behaviour(errors=0.1), {"errors"}),
        (Behaviour(median_s=0.04), {"p50", "p95", "p99"}),
        (Behaviour(compute_s=0.045), {"cost"}),
        (Behaviour(agreement=0.3), {"agreement"}),
        (Behaviour(classes=(0.05, 0.05, 0.9)), {"classes"}),
    ],
)
def test_a_gate_fails_for_its_own_reason_only(version: Behaviour, gates: set[str]) -> None:
    found = findings(of(version))
    assert {name for name, finding in found.items() if finding.verdict is Verdict.FAIL} == gates
    assert overall(tuple(found.values())) is Verdict.FAIL


def test_a_version_that_sees_nothing_has_drifted() -> None:
    blind = replace(of(GOOD), scores=(0,) * 10, classes=(), empty=400)
    assert findings(blind)["classes"].verdict is Verdict.FAIL


def test_scores_that_fall_have_drifted() -> None:
    unsure = replace(of(GOOD), scores=(0, 0, 500, 300, 0, 0, 0, 0, 0, 0))
    assert findings(unsure)["scores"].verdict is Verdict.FAIL


def test_no_data_is_not_good_data() -> None:
    assert {finding.verdict for finding in findings(Sample()).values()} == {Verdict.WAIT}
    assert {finding.verdict for finding in findings(of(GOOD), Sample()).values()} <= {Verdict.WAIT, Verdict.PASS}
    assert findings(of(GOOD), Sample())["errors"].verdict is Verdict.WAIT


def test_calls_of_which_nothing_was_counted_but_that_they_ended_are_not_enough() -> None:
    bare = Sample(errors=of(GOOD).errors)
    assert {name for name, finding in findings(bare).items() if finding.verdict is Verdict.WAIT} == {
        "p50", "p95", "p99", "cost", "agreement", "scores", "classes",
    }  # fmt: skip


def test_too_few_calls_wait() -> None:
    assert overall(tuple(findings(of(GOOD, 99)).values())) is Verdict.WAIT


def test_in_the_shadow_latency_is_not_asked_and_outside_agreement_is_not() -> None:
    def gates(*, mirrored: bool, served: bool) -> set[str]:
        found = judge(STABLE, of(GOOD), BASELINE, LIMITS, alpha=0.01, mirrored=mirrored, served=served)
        return {finding.gate for finding in found}

    assert gates(mirrored=True, served=False) == {"errors", "cost", "agreement", "scores", "classes"}
    assert "agreement" not in gates(mirrored=False, served=True)


def test_nothing_found_is_no_pass() -> None:
    assert overall(()) is Verdict.WAIT


@pytest.mark.parametrize(
    "limits",
    [
        Limits(errors=-0.1), Limits(slowdown=0.9), Limits(cost=101), Limits(agreement=1.1), Limits(drift=0),
        Limits(samples=0), Limits(alpha=0), Limits(alpha=0.2), Limits(errors=float("nan")),
    ],
)  # fmt: skip
def test_limits_that_make_no_sense_are_refused(limits: Limits) -> None:
    with pytest.raises(InvalidArgument, match="limits"):
        limits.check()


def test_the_default_limits_make_sense() -> None:
    LIMITS.check()


def test_times_fall_into_buckets() -> None:
    counts = [0] * (len(BOUNDS_S) + 1)
    counts[0], counts[4], counts[-1] = 50, 40, 10  # up to 1 ms, up to 2 ms, beyond all
    times = Histogram(tuple(counts))
    assert (times.quantile_s(0.5), times.quantile_s(0.9)) == (BOUNDS_S[0], BOUNDS_S[4])
    assert times.quantile_s(0.99) == BOUNDS_S[-1]
    assert (times.slower(0.001).total, times.slower(0.0019).total, times.slower(0.002).total) == (50, 10, 10)
    assert times.slower(1000).total == 0
    assert Histogram().slower(0.01).calls == 0
