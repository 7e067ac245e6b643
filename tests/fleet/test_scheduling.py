"""Where detection's pods land, when there are more of them than cards."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from . import report
from .fleet import LONG, asks, is_ready, placed
from .nodes import GPU, HAS_GPU, SLICE, SPOT

if TYPE_CHECKING:
    from .fleet import Fleet

pytestmark = pytest.mark.full
TOO_MANY = 5


@pytest.mark.parametrize(("overlay", "resource"), [("spot", GPU), ("mig", SLICE)])
def test_a_pod_has_a_card_of_its_own_or_waits(fleet: Fleet, overlay: str, resource: str) -> None:
    fleet.use(overlay)
    machines = fleet.nodes()
    cards = {name: int(node["status"]["allocatable"].get(resource, 0)) for name, node in machines.items()}
    total = sum(cards.values())
    began = time.monotonic()
    seen = []

    def no_more_fit() -> bool:
        pods = [pod for pod in fleet.pods(app="detection") if asks(pod, resource)]
        ready = sum(map(is_ready, pods))
        seen.append((time.monotonic() - began, ready))
        why = [
            one.get("message", "")
            for pod in pods for one in pod["status"].get("conditions", [])
            if one["type"] == "PodScheduled" and one["status"] == "False"
        ]  # fmt: skip
        return ready == total and len(pods) > total and all(f"Insufficient {resource}" in one for one in why)

    fleet.scale("detection-v2", total + TOO_MANY)
    try:
        fleet.until(no_more_fit, f"all of the {total} {resource} have a pod, and the rest wait for one")
        # What was kept warm has given way.
        assert not any(map(is_ready, fleet.pods(app="detection-spare")))
        used = placed(fleet.pods(app="detection"), resource)
        assert {name: number for name, number in used.items() if number > cards[name]} == {}
        # What callers depend on is not where it may be taken away.
        for pod in fleet.pods(app="detection", version="v1"):
            assert SPOT not in machines[pod["spec"]["nodeName"]]["metadata"]["labels"]
    finally:
        fleet.scale("detection-v2", 1)
    fleet.until(lambda: any(map(is_ready, fleet.pods(app="detection-spare"))), "a card is kept warm again")
    waiting = {name for name, node in machines.items() if HAS_GPU in node["metadata"]["labels"]}
    fleet.until(lambda: waiting == _nodes_of(fleet, app="detection-image"), "each node with a GPU has the image")
    report.add(f"capacity, {resource}", {
        "what": f"{total} pods, one {resource} each, on {len(machines)} nodes", "long": LONG,
        "seconds": round(seen[-1][0], 1), "lines": {"ready": seen},
    })  # fmt: skip


def _nodes_of(fleet: Fleet, **labels: str) -> set[str]:
    return {pod["spec"]["nodeName"] for pod in fleet.pods(**labels) if is_ready(pod)}
