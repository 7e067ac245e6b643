"""Rollouts through real services: a good version takes over, bad ones go back by themselves."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from secrets import token_hex
from typing import TYPE_CHECKING

import pytest
from tests.unit import onnx_models

from facetmesh.client import DeadlineExceeded, FacetmeshError, ResourceExhausted, Unavailable
from facetmesh.detection.v1 import rollout_pb2

from .rig import patiently, until
from .test_models import picture

if TYPE_CHECKING:
    from collections.abc import Iterator

    from facetmesh.client import Client

    from .conftest import Mesh

CAT, SAME, MOVED, DOG = ((32, 32, 20, 10, 0, 0.95), (32, 32, 20, 10, 0, 0.96), (12, 12, 20, 10, 0, 0.95),
                         (32, 32, 20, 10, 1, 0.95))
MODEL = "rolling"
# Times on a machine with other work say nothing: what takes long is tried by the figures alone, in the unit tests.
TIMELESS = rollout_pb2.Rollout.Limits(slowdown=100, cost=100, samples=20)
STEPS = [(0, 100), (50, 0), (100, 0)]
State = rollout_pb2.Rollout.State


@pytest.fixture(scope="module")
def client(mesh: Mesh) -> Iterator[Client]:
    """A tenant with versions that see: a cat; the same cat; another place; and one with other labels."""
    with mesh.client(mesh.tenant("rolling")) as client:
        for box in (CAT, SAME, MOVED):
            client.upload_model(MODEL, onnx_models.detector(box), licence="MIT")
        client.upload_model(MODEL, onnx_models.detector(DOG, labels=("sheep", "goat")), licence="MIT")
        yield client


@contextmanager
def calls(client: Client, *, patient: bool = False) -> Iterator[list[str]]:
    """Calls go on meanwhile; gives the versions that answered.

    Fails for a call that was lost, unless it is patient: then those may be that a dead process had.
    """
    answered: list[str] = []
    problems: list[Exception] = []
    enough = threading.Event()

    def call() -> None:
        while not enough.is_set():
            try:
                answered.append(client.detect(MODEL, picture()).model_version.rpartition("/")[2])
            except ResourceExhausted:
                enough.wait(0.1)  # on a fast machine; and a process that was killed keeps its part of the limits
            except (Unavailable, DeadlineExceeded) as error:
                if not patient:
                    problems.append(error)
            except FacetmeshError as error:
                problems.append(error)
                return

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield answered
    finally:
        enough.set()
        for thread in threads:
            thread.join()
        assert problems == []  # also where the test has failed: what waits for calls waits in vain without them


def seen(client: Client) -> str:
    """The version that answers a call."""
    return patiently(lambda: client.detect(MODEL, picture())).model_version.rpartition("/")[2]


def over(client: Client, rollout: rollout_pb2.Rollout) -> rollout_pb2.Rollout:
    """The rollout, once it has ended."""
    def ended() -> rollout_pb2.Rollout | None:
        found = patiently(lambda: client.get_rollout(MODEL, rollout.name.rpartition("/")[2]))
        return found if found.state in {State.STATE_DONE, State.STATE_ROLLED_BACK} else None

    return until(ended, "the rollout is over", 120)


def causes(rollout: rollout_pb2.Rollout) -> list[str]:
    """Why it did what it did."""
    return [decision.cause for decision in rollout.decisions]


def test_a_good_version_takes_over_and_one_that_sees_other_boxes_does_not(client: Client) -> None:
    with calls(client) as answered:
        bad = over(client, client.start_rollout(MODEL, to="3", steps=STEPS, window_s=1, limits=TIMELESS))
        assert (State.Name(bad.state), causes(bad)[1]) == ("STATE_ROLLED_BACK", "failed:agreement")
        assert "3" not in answered  # it was seen in the shadow
        good = over(client, client.start_rollout(MODEL, to="2", steps=STEPS, window_s=1, limits=TIMELESS))
    assert (State.Name(good.state), causes(good)) == (
        "STATE_DONE", ["started", "passed", "passed", "passed", "carried_out"],
    )  # fmt: skip
    assert [decision.step for decision in good.decisions] == [0, 1, 2, 2, 2]
    assert seen(client) == "2"
    model = client.get_model(MODEL)
    assert (model.aliases["stable"], model.HasField("traffic")) == ("2", False)

    def grounds() -> list[str]:
        """What the rollback is said to rest on."""
        logged = client.list_events(filter=f'resource = "{bad.name}"')
        return [ground for one in logged for ground in one.event.grounds if ground.startswith("agreement: fail")]

    until(grounds, "the decision is in the log with its figures")


@pytest.mark.parametrize(
    ("to", "reason"),
    [
        ("99", "VERSION_NOT_FOUND"), ("canary", "VERSION_NOT_FOUND"), ("4", "LABELS_DIFFER"),
        ("stable", "ALREADY_STABLE"),
    ],
)
def test_a_version_that_cannot_take_over_is_refused(client: Client, to: str, reason: str) -> None:
    with pytest.raises(FacetmeshError) as refusal:
        client.start_rollout(MODEL, to=to)
    assert refusal.value.reason == reason


@pytest.mark.parametrize("steps", [[(10, 0), (90, 0)], [(50, 0), (10, 0), (100, 0)], [(100, 0)], [(0, 0), (100, 0)]])
def test_weights_that_do_not_lead_to_all_calls_are_refused(client: Client, steps: list[tuple[int, int]]) -> None:
    with pytest.raises(FacetmeshError) as refusal:
        client.start_rollout(MODEL, to="3", steps=steps)
    assert refusal.value.reason == "FIELD_INVALID"


def test_orders(client: Client) -> None:
    ordered = f"ordered-{token_hex(4)}"
    begun = client.start_rollout(MODEL, to="3", steps=[(1, 0), (100, 0)], rollout_id=ordered)
    try:
        with pytest.raises(FacetmeshError) as refusal:
            client.start_rollout(MODEL, to="3")
        assert refusal.value.reason == "ROLLOUT_ACTIVE"
        client.pause_rollout(MODEL, ordered)
        until(lambda: client.get_rollout(MODEL).state in {State.STATE_PAUSED, State.STATE_PENDING}, "it pauses")
        client.resume_rollout(MODEL, ordered)
        until(lambda: client.get_rollout(MODEL).state == State.STATE_RUNNING, "it runs")
    finally:
        client.abort_rollout(MODEL, ordered)
    # Nothing was seen in its shadow: the stable version's calls are counted first.
    assert [(step.percent, step.shadow_percent) for step in begun.steps] == [(0, 0), (1, 0), (100, 0)]
    assert causes(over(client, begun))[-2:] == ["aborted", "carried_out"]
    with pytest.raises(FacetmeshError) as refusal:
        client.promote_rollout(MODEL, ordered)
    assert refusal.value.reason == "ROLLOUT_DECIDED"
    assert ordered in [one.name.rpartition("/")[2] for one in client.list_rollouts(MODEL)]


@pytest.mark.full
def test_it_goes_on_after_its_controller_was_killed(mesh: Mesh, client: Client) -> None:
    """The detection service drives it here, so that goes away with it."""
    stable = client.get_model(MODEL).aliases["stable"]
    to = "1" if stable == "2" else "2"
    with calls(client, patient=True) as answered:
        begun = client.start_rollout(MODEL, to=to, steps=STEPS, window_s=5, limits=TIMELESS)
        until(lambda: to in answered[-20:], "it has its first calls")
        before = mesh.pid("detection")
        os.kill(before, signal.SIGKILL)
        until(lambda: mesh.has_replaced("detection", before), "detection is started anew")
        ended = over(client, begun)
    assert (State.Name(ended.state), causes(ended)) == (
        "STATE_DONE", ["started", "passed", "passed", "passed", "carried_out"],
    )  # fmt: skip
    assert client.get_model(MODEL).aliases["stable"] == to
