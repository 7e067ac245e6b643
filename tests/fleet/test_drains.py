"""A node is drained while there is no room elsewhere, and then there is."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from .fleet import NAMESPACE, asks, is_ready, placed
from .nodes import GPU

if TYPE_CHECKING:
    from pathlib import Path

    from .fleet import Fleet

pytestmark = pytest.mark.full
MISSING = 1
"""How many of detection's pods may be missing at any time (maxUnavailable of its PodDisruptionBudget)."""


def test_no_more_pods_are_missing_than_the_budget_says(fleet: Fleet, tmp_path: Path) -> None:
    cluster = fleet.cluster
    fleet.use("spot")
    machines = fleet.nodes()
    drained, spare = "gpu-000", "gpu-001"
    cluster.kubectl("cordon", spare)
    cluster.kubectl("cordon", drained)
    try:
        # Every card is taken but those of the spare node.
        cluster.kubectl("drain", spare, drained, *_DRAIN)
        cluster.kubectl("uncordon", drained)
        cards = {name: int(node["status"]["allocatable"].get(GPU, 0)) for name, node in machines.items()}
        wanted = sum(cards.values()) - cards[spare]

        def ready() -> int:
            return sum(is_ready(pod) for pod in fleet.pods(app="detection") if asks(pod, GPU))

        stable = fleet.deployment("detection-v1")["spec"]["replicas"]
        fleet.scale("detection-v2", wanted - stable)
        fleet.until(lambda: ready() == wanted and _allowed(fleet) == MISSING, "all cards are taken")
        said = tmp_path / "drain.log"
        with said.open("wb") as log:
            drain = subprocess.Popen(
                [cluster.programs["kubectl"], f"--kubeconfig={cluster.kubeconfig}", "drain", drained, *_DRAIN],
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        least = wanted
        try:

            def held() -> bool:
                nonlocal least
                least = min(least, ready())
                return "violate the pod's disruption budget" in said.read_text()

            fleet.until(held, "the drain is told to wait")
            assert placed(fleet.pods(app="detection"), GPU)[drained] == cards[drained] - MISSING
            cluster.kubectl("uncordon", spare)

            def over() -> bool:
                nonlocal least
                least = min(least, ready())
                return drain.poll() is not None

            fleet.until(over, "the node is drained")
        finally:
            drain.kill()
            drain.wait()
        assert drain.returncode == 0, said.read_text()
        assert placed(fleet.pods(app="detection"), GPU)[drained] == 0
        fleet.until(lambda: ready() == wanted, "all run elsewhere")
        assert least >= wanted - MISSING
    finally:
        cluster.kubectl("uncordon", spare, drained)
        fleet.scale("detection-v2", 1)


_DRAIN = ("--ignore-daemonsets", "--delete-emptydir-data", "--timeout=280s")


def _allowed(fleet: Fleet) -> Any:
    return fleet.cluster.get("poddisruptionbudget", "detection", f"--namespace={NAMESPACE}")["status"].get(
        "disruptionsAllowed"
    )
