"""Rollouts on the real VirtualServices, through the real API server, istiod and Envoy.

The controller, its Istio executor and detection's models, splits, counters and
metrics are ours; a version's behaviour is told it (replicas.py), and what calls did
comes from Prometheus, which scrapes the replicas, as in production. What was seen
is written to out/cluster/report.json, and drawn beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import grpc
import pytest
from tests.unit.bus import Bus
from tests.unit.conftest import MemoryState

from facetmesh.detection.models import Models
from facetmesh.detection.rollout.accounts import Accounts
from facetmesh.detection.rollout.controller import Controller
from facetmesh.detection.rollout.counted import Counted
from facetmesh.detection.rollout.istio import Istio
from facetmesh.detection.rollout.kubernetes import Account, Resources
from facetmesh.detection.rollout.plan import Limits, Plan, Step
from facetmesh.detection.rollout.record import FINAL, State
from facetmesh.detection.rollout.rollouts import Rollouts
from facetmesh.detection.rollout.scraped import Prometheus, Scraped
from facetmesh.detection.rollout.store import DaprRolloutStore
from facetmesh.detection.store import DaprStore
from facetmesh.detection.v1 import detection_pb2
from facetmesh.detection.versions import Facts, Version
from facetmesh.kit.audit import Recorder
from facetmesh.kit.signing import EventSigner
from facetmesh.kit.telemetry import Metrics

from . import report
from .conftest import token
from .gateway import put_behind
from .replicas import USUAL_S, Behaviour, Replica
from .test_canary import CALLS, DETECT, deviations, weights

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from facetmesh.detection.rollout.record import Rollout

    from .controlplane import ControlPlane
    from .gateway import Gateway
    from .prometheus import Prometheus as Rig

pytestmark = pytest.mark.full

GOOD, ERRS, SLOW, ELSEWHERE = 2, 3, 4, 5
BEHAVIOURS = {
    1: Behaviour(), GOOD: Behaviour(), ERRS: Behaviour(errors=0.1), SLOW: Behaviour(seconds=2 * USUAL_S),
    ELSEWHERE: Behaviour(left=35.0),
}  # fmt: skip
# Waiting times have this machine's in them, which may stand still for seconds; what a call costs has not. Among so many
# samples a version that fails one call in ten has not one in a hundred by luck.
LIMITS = Limits(slowdown=100, samples=200)
SHADOWED = (Step(0, 100), Step(10), Step(50), Step(100))
UNSHADOWED = SHADOWED[1:]
CAREFUL = (Step(1), *UNSHADOWED)
"""Where nothing was seen in the shadow, the first step's share is what a bad version harms."""
_OVER_S = 600
_CALL_S = 120
_CALLERS = 16


class Answer(NamedTuple):
    """What became of a call."""

    begun_s: float
    ended_s: float
    version: str
    """Which answered; or "" where it failed."""


@dataclass
class World:
    """A gateway with detection behind it, a controller, and somebody who calls all the time."""

    model_id: str
    """No other test has it: Prometheus remembers what all did."""
    rollouts: Rollouts
    controller: Controller
    models: Models
    channel: grpc.aio.Channel
    gateway: Gateway
    answers: list[Answer] = field(default_factory=list)
    """In the order of their ends."""
    lost: list[str] = field(default_factory=list)
    """Of calls that failed otherwise than versions do."""

    @property
    def model(self) -> str:
        """The model's name."""
        return f"tenants/acme/models/{self.model_id}"

    async def call(self, forever: asyncio.Event, *more: tuple[str, str]) -> None:
        """Calls until it is enough, with more headers than all have."""
        method = self.channel.unary_unary(
            DETECT, detection_pb2.DetectRequest.SerializeToString, detection_pb2.DetectResponse.FromString
        )
        metadata = [("x-facetmesh-model", self.model), ("authorization", f"Bearer {token('acme')}"), *more]
        while not forever.is_set():
            begun = time.monotonic()
            try:
                answer = await method(detection_pb2.DetectRequest(model=self.model), metadata=metadata, timeout=_CALL_S)
                self.answers.append(Answer(begun, time.monotonic(), answer.model_version.rpartition("/")[2]))
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.INTERNAL:
                    self.lost.append(f"{error.code()}: {error.details()}")
                self.answers.append(Answer(begun, time.monotonic(), ""))

    @contextlib.asynccontextmanager
    async def busy(self, *more: tuple[str, str]) -> AsyncIterator[None]:
        """Calls go on meanwhile, and none is lost."""
        enough = asyncio.Event()
        callers = [asyncio.create_task(self.call(enough, *more)) for _ in range(_CALLERS)]
        try:
            yield
        finally:
            enough.set()
            await asyncio.gather(*callers)
        assert self.lost == []

    async def calls(self, number: int) -> Counter[str]:
        """Who answers the next ones that begin: those on their way went by the weights of before."""
        now, known = time.monotonic(), len(self.answers)
        while len(found := [one.version for one in self.answers[known:] if one.begun_s >= now]) < number:
            await asyncio.sleep(0.05)
        return Counter(found[:number])

    async def only(self, version: str) -> None:
        """Waits until one version answers all calls: replicas hear within a second of where an alias is now."""
        deadline = time.monotonic() + _OVER_S
        while (await self.calls(100)).keys() != {version}:
            assert time.monotonic() < deadline, f"others than {version} answer"

    async def settled(self, percent: int) -> None:
        """Waits until the gateway has the weights."""
        deadline = time.monotonic() + _OVER_S
        route = f"rollout.acme.{self.model_id}"
        while await asyncio.to_thread(weights, self.gateway, route) != [100 - percent, percent]:
            assert time.monotonic() < deadline, f"the gateway does not have {percent} %"
            await asyncio.sleep(0.2)
        await self.calls(_CALLERS)  # then Envoy's worker has what its administration told of


@pytest.fixture
async def world(cluster: ControlPlane, gateway: Gateway, prometheus: Rig) -> AsyncIterator[World]:
    state: Any = MemoryState()
    models = Models(DaprStore(state))
    model_id = f"faces-{secrets.token_hex(4)}"
    for _ in BEHAVIOURS:
        facts = Facts(("cat",), "detect", 64, 64)
        await models.add(Version("acme", model_id, 0, "a" * 64, 10, "MIT", facts, 5.0))
    replicas = [Replica("v1", "stable", state, BEHAVIOURS), Replica("v2", "canary", state, BEHAVIOURS)]
    kubeconfig = json.loads(cluster.kubeconfig.read_text())
    held = cluster.folder / "token"
    held.touch(mode=0o600)
    held.write_text(cluster.token)
    account = Account(kubeconfig["clusters"][0]["cluster"]["server"], held, cluster.folder / "certs" / "apiserver.crt")
    async with contextlib.AsyncExitStack() as stack:
        for replica in replicas:
            await stack.enter_async_context(replica.serving())
        put_behind(cluster, {one.subset: one.port for one in replicas})
        prometheus.scrape({one.metrics: {"app": "detection", "subset": one.subset} for one in replicas})
        session = await stack.enter_async_context(aiohttp.ClientSession())
        resources = Resources(account)
        stack.push_async_callback(resources.close)
        rollouts = Rollouts(models, DaprRolloutStore(state))
        source = Prometheus(session, prometheus.url)
        recorder = Recorder("test", EventSigner("detection", bytes(32)), Bus(), Metrics.create())
        stack.push_async_callback(recorder.close)
        controller = Controller(
            rollouts, Istio(models, resources, "facetmesh"), Counted(Scraped(source).read), Accounts(recorder),
            holder="rig",
        )  # fmt: skip
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}"))
        made = World(model_id, rollouts, controller, models, channel, gateway)
        probe = asyncio.Event()
        deadline = time.monotonic() + 120
        while not any(one.version for one in made.answers):  # until istiod's word has reached the gateway
            assert time.monotonic() < deadline, made.lost[-1:]
            task = asyncio.create_task(made.call(probe))
            await asyncio.sleep(0.5)
            probe.set()
            await task
            probe.clear()
        deadline = time.monotonic() + _OVER_S
        while await asyncio.to_thread(prometheus.scraped) != {one.metrics for one in replicas}:
            assert time.monotonic() < deadline, "Prometheus does not scrape the replicas"
            await asyncio.sleep(0.2)
        made.answers.clear()
        made.lost.clear()
        yield made


async def roll(world: World, to: int, steps: tuple[Step, ...]) -> tuple[Rollout, dict[str, Any]]:
    """A rollout to its end, and what the report says of it."""
    name = f"{world.model}/rollouts/to-{to}"
    begun = time.monotonic()
    split = []
    await world.rollouts.start(name, to=str(to), plan=Plan(steps, window_s=2, patience_s=_OVER_S), limits=LIMITS)
    measured = -1
    while (rollout := await world.rollouts.get(name)).state not in FINAL:
        assert time.monotonic() < begun + 2 * _OVER_S, rollout
        await world.controller.tick()
        await asyncio.sleep(0.2)
        percent = rollout.current.percent
        if rollout.state is State.RUNNING and rollout.step > measured and percent and to == GOOD:
            measured = rollout.step
            await world.settled(percent)
            hits = (await world.calls(CALLS))[str(to)]
            split.append({"percent": percent, "calls": CALLS, "hits": hits,
                          "deviations": round(deviations(hits, CALLS, percent), 2)})  # fmt: skip
    await world.controller.tick()
    answered = [one.version for one in world.answers if one.ended_s >= begun]
    by_candidate = answered.count(str(to))
    harmed = answered.count("") + (by_candidate if to in (SLOW, ELSEWHERE) else 0)
    entry = {
        "version": {GOOD: "as good", ERRS: "fails 10 % of its calls", SLOW: "takes twice as long",
                    ELSEWHERE: "sees other boxes"}[to],
        "state": rollout.state.value, "split": split, "seconds": round(time.monotonic() - begun, 1),
        "calls": len(answered), "by_candidate": by_candidate, "harmed": harmed,
        "decisions": [
            {"at_s": round(one.at_s - rollout.created_s, 1), "state": one.state.value, "cause": one.cause,
             "percent": steps[one.step].percent, "shadow_percent": steps[one.step].shadow_percent,
             "findings": [f"{found.gate} {found.verdict.value} {found.candidate:.3g} of {found.limit:.3g}, "
                          f"{found.calls} calls" for found in one.findings]}
            for one in rollout.history
        ],
    }  # fmt: skip
    return rollout, entry


async def test_a_good_version_goes_from_10_percent_to_all(world: World, cluster: ControlPlane) -> None:
    async with world.busy():
        rollout, entry = await roll(world, GOOD, UNSHADOWED)
        await world.only(str(GOOD))
    report.add("good", entry)
    assert rollout.state is State.DONE, entry
    assert [one["percent"] for one in entry["split"]] == [10, 50, 100]
    assert all(one["deviations"] <= 4 for one in entry["split"]), entry["split"]
    routes = cluster.get("virtualservice", "detection-ingress", "--namespace=facetmesh", "--show-managed-fields")
    assert [one["name"] for one in routes["spec"]["http"]] == ["testers", "streams", "split"]
    managers = {one["manager"] for one in routes["metadata"]["managedFields"]}
    assert "facetmesh-rollout" in managers


@pytest.mark.parametrize("to", [ERRS, SLOW, ELSEWHERE], ids=["errs", "slow", "elsewhere"])
async def test_a_bad_version_goes_back_before_it_answers_anybody(world: World, to: int) -> None:
    async with world.busy():
        rollout, entry = await roll(world, to, SHADOWED)
        await world.only("1")
    report.add(f"shadow-{to}", entry)
    assert rollout.state is State.ROLLED_BACK, entry
    assert rollout.history[1].cause.startswith("failed:"), entry
    assert entry["harmed"] <= 0.01 * entry["calls"]


@pytest.mark.parametrize(("to", "cause"), [(ERRS, "errors"), (SLOW, "cost")], ids=["errs", "slow"])
async def test_a_bad_version_is_taken_off_the_gateway(world: World, to: int, cause: str) -> None:
    async with world.busy():
        rollout, entry = await roll(world, to, CAREFUL)
        model = await world.models.get("acme", world.model_id)
        await world.only("1")
    report.add(f"weights-{to}", entry)
    assert (rollout.state, rollout.history[1].cause) == (State.ROLLED_BACK, f"failed:{cause}"), entry
    assert rollout.history[1].step == 0
    assert model.aliases == {"stable": 1}
    # By chance it gets more than its share, by five standard deviations once in a million times.
    share = CAREFUL[0].percent / 100
    assert entry["harmed"] <= share * entry["calls"] + 5 * math.sqrt(share * entry["calls"]), entry


async def test_the_recording_rules_say_of_the_subsets_what_their_calls_did(world: World, prometheus: Rig) -> None:
    """What a rate is depends on when it was scraped, so calls go on until it is what they did."""
    model = await world.models.get("acme", world.model_id)
    await world.models.update(replace(model, aliases={**model.aliases, "canary": ERRS}))
    names = ("version_failed:ratio_rate10m", "version_seconds:mean_rate10m")
    deadline = time.monotonic() + _OVER_S
    async with world.busy(), world.busy(("x-facetmesh-subset", "v2")):
        while True:
            found: list[dict[str, float]] = []
            for name in names:
                expression = f'facetmesh:{name}{{tenant="acme",model="{world.model_id}"}} >= 0'  # leaves out NaN
                series = await asyncio.to_thread(prometheus.query, expression)
                found.append({labels["subset"]: value for labels, value in series})
            failed, seconds = found
            if (
                failed.keys() == seconds.keys() == {"v1", "v2"}
                and failed["v1"] == 0
                and 0.05 < failed["v2"] < 0.2
                and min(seconds.values()) > 0.9 * USUAL_S
            ):
                break
            assert time.monotonic() < deadline, f"the rules say {dict(zip(names, found, strict=True))}"
            await asyncio.sleep(0.5)
