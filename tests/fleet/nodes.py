"""The machines of the rehearsal, as a cloud would have registered them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

GPU = "nvidia.com/gpu"
SLICE = "nvidia.com/mig-1g.10gb"
SPOT = "facetmesh.dev/spot"
HAS_GPU = "nvidia.com/gpu.present"
_ZONES = ("a", "b", "c")
_REGION = "eu-west-1"


@dataclass(frozen=True, slots=True)
class Kind:
    """Machines of one kind."""

    name: str
    share: float
    """Which part of all nodes they are."""
    cards: Mapping[str, int] = field(default_factory=dict)
    """What it has beside CPUs and memory, by the resource's name."""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[str, ...] = ()
    """Keys of taints that keep off whoever does not tolerate them."""


_HAS_GPU = {HAS_GPU: "true"}
_IS_SPOT = {SPOT: "true"}
KINDS = (
    Kind("cpu", 0.4),
    Kind("gpu", 0.3, {GPU: 4}, _HAS_GPU, (GPU,)),
    Kind("mig", 0.1, {SLICE: 7}, {**_HAS_GPU, "nvidia.com/mig.strategy": "mixed"}, (GPU,)),
    Kind("spot", 0.1, {}, _IS_SPOT, (SPOT,)),
    Kind("spot-gpu", 0.1, {GPU: 2}, {**_HAS_GPU, **_IS_SPOT}, (GPU, SPOT)),
)
"""What NVIDIA's operator labels and taints GPU nodes with, and what we ask of who sets up spot nodes."""


def nodes(count: int) -> Iterator[dict[str, Any]]:
    """About so many nodes, of all kinds, spread over three zones."""
    for kind in KINDS:
        for number in range(round(count * kind.share)):
            yield _node(kind, f"{kind.name}-{number:03}", _ZONES[number % len(_ZONES)])


def _node(kind: Kind, name: str, zone: str) -> dict[str, Any]:
    has = {"cpu": "32", "memory": "128Gi", "ephemeral-storage": "500Gi", "pods": "110"}
    has |= {card: str(number) for card, number in kind.cards.items()}
    return {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
                "topology.kubernetes.io/region": _REGION, "topology.kubernetes.io/zone": f"{_REGION}{zone}",
                **kind.labels,
            },
        },
        "spec": {"taints": [{"key": key, "value": "present", "effect": "NoSchedule"} for key in kind.taints]},
        "status": {"capacity": has, "allocatable": has},
    }  # fmt: skip
