"""The local executor on real models in memory, and the audit events of decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.unit.test_rollout_rollouts import models, rollouts

from facetmesh.detection.rollout.accounts import Accounts
from facetmesh.detection.rollout.gates import Finding, Verdict
from facetmesh.detection.rollout.plan import Plan, Step
from facetmesh.detection.rollout.record import Rollout, State
from facetmesh.detection.rollout.weights import Weights
from facetmesh.detection.splits import Traffic
from facetmesh.kit.audit import Recorder
from facetmesh.kit.errors import NotFound
from facetmesh.kit.signing import EventSigner
from facetmesh.kit.telemetry import Metrics

from .bus import Bus

if TYPE_CHECKING:
    from facetmesh.detection.models import Models

__all__ = ["models", "rollouts"]
NAME = "tenants/acme/models/faces/rollouts/first"
PLAN = Plan((Step(0, 10), Step(25), Step(100)))


def at(step: int) -> Rollout:
    return Rollout(NAME, 1, 2, PLAN, state=State.RUNNING, step=step)


@pytest.mark.parametrize(
    ("step", "traffic"),
    [
        (0, Traffic((("1", 100),), "none", "2", 10)),
        (1, Traffic((("1", 75), ("2", 25)), "none")),
        (2, Traffic((("2", 100),), "none")),
    ],
)
async def test_calls_are_split_as_the_step_says(models: Models, step: int, traffic: Traffic) -> None:
    await Weights(models).apply(at(step))
    assert (await models.get("acme", "faces")).traffic == traffic


async def test_what_is_so_already_is_not_written_again(models: Models) -> None:
    await Weights(models).apply(at(1))
    before = (await models.get("acme", "faces")).etag
    await Weights(models).apply(at(1))
    assert (await models.get("acme", "faces")).etag == before


async def test_the_end_is_a_new_stable_version_or_the_old_one(models: Models) -> None:
    await Weights(models).apply(at(1))
    await Weights(models).withdraw(at(1))
    model = await models.get("acme", "faces")
    assert (model.traffic, model.aliases["stable"]) == (Traffic(), 1)
    await Weights(models).promote(at(2))
    model = await models.get("acme", "faces")
    assert (model.traffic, model.aliases["stable"]) == (Traffic(), 2)


async def test_nothing_is_withdrawn_from_a_model_that_is_gone(models: Models) -> None:
    await models.delete(await models.get("acme", "faces"))
    await Weights(models).withdraw(at(1))
    with pytest.raises(NotFound):
        await Weights(models).apply(at(1))


async def test_a_decision_is_recorded_once_with_its_figures() -> None:
    bus = Bus()
    accounts = Accounts(Recorder("test", EventSigner("detection", bytes(32)), bus, Metrics.create()))
    finding = Finding("errors", Verdict.FAIL, 0.002, 0.104, 0.012, 125)
    rollout = at(1).decide(State.ROLLING_BACK, "failed:errors", 5.0, findings=[finding])
    for _ in range(2):
        await accounts.decided(rollout, rollout.outbox[0])
    first, again = bus.events
    assert first.id == again.id
    assert (first.tenant, first.resource) == ("tenants/acme", NAME)
    assert first.model_version == "tenants/acme/models/faces/versions/2"
    assert list(first.grounds) == [
        "rolling_back: failed:errors, step 1: 25 percent, copies of 0 percent",
        "errors: fail, candidate 0.104, stable 0.002, limit 0.012, 125 calls",
    ]
