"""How a model's calls are split between its versions."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from typing import Literal

from facetmesh.kit.errors import InvalidArgument

Stickiness = Literal["caller", "input", "none"]
_WHOLE = 100
_STEPS = 1 << 32


@dataclass(frozen=True, slots=True)
class Traffic:
    """How calls that name no version are split."""

    targets: tuple[tuple[str, int], ...] = ()
    """Versions, by number or alias, and of 100 calls how many each gets; all go to the stable one when empty."""
    stickiness: Stickiness = "caller"
    """What keeps calls together: the caller's key, the input, or nothing."""
    shadow: str = ""
    """The version that gets copies of calls; none when empty."""
    shadow_percent: int = 0
    """Of 100 calls, how many are copied."""

    def versions(self) -> frozenset[str]:
        """The versions that it names."""
        return frozenset({version for version, _ in self.targets} | ({self.shadow} if self.shadow else set()))

    def check(self) -> None:
        """Returns when it makes sense.

        Raises:
            InvalidArgument: FIELD_INVALID: the percents do not make 100.
        """
        total = sum(percent for _, percent in self.targets)
        if self.targets and total != _WHOLE:
            raise InvalidArgument(
                f"traffic.targets: the percents make {total}; they must make {_WHOLE}.", reason="FIELD_INVALID"
            )


def choose(traffic: Traffic, key: str) -> str:
    """The version that a call goes to; empty where the traffic names none.

    The versions share a line of 100 parts in their order, and a key has its place
    on it: when weights change, only the keys between the old border and the new
    one move.

    Args:
        traffic: The split.
        key: What keeps calls together; a random place when empty.
    """
    if not traffic.targets:
        return ""
    place = _place(key) * _WHOLE
    for version, percent in traffic.targets:
        place -= percent
        if place < 0:
            return version
    return traffic.targets[-1][0]


def shadow(traffic: Traffic) -> str:
    """The version that gets a copy of this call; empty for none."""
    return traffic.shadow if traffic.shadow and _place("") * _WHOLE < traffic.shadow_percent else ""


def _place(key: str) -> float:
    """A number from 0 up to 1: always the same for a key, a new one each time without."""
    if not key:
        return secrets.randbelow(_STEPS) / _STEPS
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4]) / _STEPS
