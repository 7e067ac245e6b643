"""Spot nodes are taken away with what is on them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from . import report
from .fleet import LONG, NODES, is_ready
from .nodes import SPOT

if TYPE_CHECKING:
    from .fleet import Fleet

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not LONG, reason="lost pods are collected after 40 s and more: make test-fleet"),
]
WANTED = {"detection-v2": NODES // 4, "fusion-worker": NODES // 4}
"""Pods of what may be on spot nodes: all of them would find a place elsewhere."""


def test_the_pods_of_lost_nodes_run_elsewhere(fleet: Fleet) -> None:
    fleet.use("spot")
    spot = {name: node for name, node in fleet.nodes().items() if SPOT in node["metadata"]["labels"]}
    for name, replicas in WANTED.items():
        fleet.scale(name, replicas)
    seen: list[tuple[float, float]] = []
    lost: dict[str, Any] = {}
    try:
        fleet.until(lambda: len(_running(fleet)) == sum(WANTED.values()), "all run")
        used = sorted({_node(pod) for pod in _running(fleet)} & set(spot))
        assert used, "nothing prefers spot nodes"
        lost = {name: spot[name] for name in used[::2]}
        pods = sum(_node(pod) in lost for pod in _running(fleet))
        began = time.monotonic()
        # The cloud wants a machine back, and then its controller deletes the node.
        fleet.cluster.kubectl("delete", "--wait=false", *(f"node/{name}" for name in lost))

        def made_good() -> bool:
            elsewhere = sum(_node(pod) not in lost for pod in _running(fleet))
            seen.append((round(time.monotonic() - began, 1), elsewhere))
            return elsewhere == sum(WANTED.values())

        fleet.until(made_good, "as many run on nodes that are there")
    finally:
        for name in WANTED:
            fleet.scale(name, 0 if name == "fusion-worker" else 1)
        if lost:
            fleet.register(list(lost.values()))
    report.add("spot", {
        "what": f"{len(lost)} spot nodes lost with {pods} pods", "long": LONG, "seconds": seen[-1][0],
        "lines": {"pods on nodes that are there": seen},
    })  # fmt: skip


def _running(fleet: Fleet) -> list[Any]:
    """The pods that run of what may be on spot nodes."""
    pods = fleet.pods(app="detection", version="v2") + fleet.pods(app="fusion", role="worker")
    return [pod for pod in pods if is_ready(pod)]


def _node(pod: Any) -> str:
    return str(pod["spec"]["nodeName"])
