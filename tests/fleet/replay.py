"""What a replay of a recorded day needs and sees, whatever is scaled by it."""

from __future__ import annotations

import itertools
import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .fleet import NAMESPACE, PACE

if TYPE_CHECKING:
    from .fleet import Fleet

LOOK_S = 1 if PACE == 1 else 0.2
STEP_S = 5 / PACE
"""Five minutes of the trace."""
TURNS = 3
"""Up, down, and perhaps once more."""
_SHORTEST_S = 10
"""Of what a rate is taken over: Prometheus scrapes each second here, and later where the machine has other work."""


@dataclass
class Seen:
    """How many workers were wanted, over time."""

    began: float = field(default_factory=time.monotonic)
    samples: list[tuple[float, float, int]] = field(default_factory=list)
    """From when until when it was asked, in seconds, and the answer."""
    lines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def add(self, asked_at: float, **values: float) -> None:
        """Takes note of what was seen just now."""
        now = time.monotonic()
        self.samples.append((asked_at - self.began, now - self.began, int(values["wanted"])))
        for name, value in values.items():
            self.lines.setdefault(name, []).append((round(now - self.began, 2), value))

    def changes(self) -> list[tuple[float, float, int]]:
        """Between when and when the number changed, and by how much."""
        return [
            (before[0], after[1], after[2] - before[2])
            for before, after in itertools.pairwise(self.samples) if before[2] != after[2]
        ]  # fmt: skip

    def most(self) -> int:
        """The largest number."""
        return max(number for _, _, number in self.samples)

    def turns(self) -> int:
        """How often it went the other way than before."""
        ways = [change > 0 for _, _, change in self.changes()]
        return sum(before != after for before, after in itertools.pairwise(ways))

    def check(self, window_s: float) -> None:
        """Fails where it flapped.

        Args:
            window_s: For how long a need is remembered.
        """
        changes = self.changes()
        assert self.turns() <= TURNS, changes
        # None goes for which there was need within the window: told by the longest time it can have been.
        for (earlier, _, up), (_, later, down) in itertools.pairwise(changes):
            assert not up > 0 > down or later - earlier >= window_s, changes


def hasten(fleet: Fleet, name: str) -> float:
    """Divides a ScaledObject's durations by the pace. Returns for how long a need is remembered, in seconds."""
    cluster = fleet.cluster
    spec = cluster.get("scaledobject", name, f"--namespace={NAMESPACE}")["spec"]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    for way in behavior.values():
        way["stabilizationWindowSeconds"] //= PACE
        for policy in way["policies"]:
            policy["periodSeconds"] = max(1, policy["periodSeconds"] // PACE)
    for trigger in spec["triggers"]:
        if "query" in trigger["metadata"]:
            minute = f"[{max(_SHORTEST_S, 60 // PACE)}s]"
            trigger["metadata"]["query"] = re.sub(r"\[1m\]", minute, trigger["metadata"]["query"])
    faster = {
        "pollingInterval": max(1, spec["pollingInterval"] // PACE), "cooldownPeriod": spec["cooldownPeriod"] // PACE,
        "advanced": spec["advanced"], "triggers": spec["triggers"],
    }  # fmt: skip
    cluster.kubectl(
        "patch", "scaledobject", name, f"--namespace={NAMESPACE}", "--type=merge",
        f"--patch={json.dumps({'spec': faster})}",
    )  # fmt: skip
    return float(behavior["scaleDown"]["stabilizationWindowSeconds"])


def is_watched(fleet: Fleet, name: str) -> bool:
    """Whether KEDA says that it follows a ScaledObject."""
    status = fleet.cluster.get("scaledobject", name, f"--namespace={NAMESPACE}").get("status", {})
    return any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", []))
