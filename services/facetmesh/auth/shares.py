"""How a limit is shared out between those who enforce it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_FLOOR = 0.02
"""What each gets of the limit in any case, so that first calls need not wait until another gives something back."""
_SPREAD = 0.5
"""How much of what nobody wants is given out; the rest is there at once for those who want more, or come anew."""


def max_min(limit: float, wanted: Mapping[str, float]) -> dict[str, float]:
    """Parts of a limit that add up to no more than it.

    Nobody gets less than he wants while somebody gets more than he does (max-min
    fairness, by progressive filling: Bertsekas and Gallager, Data Networks, 6.5).
    A part of what nobody wants is spread in proportion to what each wants, for that
    may grow.

    Args:
        limit: What there is.
        wanted: What each wants.
    """
    demands = {name: max(demand, _FLOOR * limit) for name, demand in wanted.items()}
    parts: dict[str, float] = {}
    left = limit
    for number, name in enumerate(sorted(demands, key=demands.__getitem__)):
        parts[name] = min(demands[name], left / (len(demands) - number))
        left -= parts[name]
    total = sum(parts.values())
    return {name: part + _SPREAD * left * part / total if total else 0.0 for name, part in parts.items()}


def share(
    limit: float, wanted: Mapping[str, float], held: Mapping[str, float], name: str, *, whole: bool = False
) -> float:
    """The part of one.

    With what the others hold it is no more than the limit, but for the least that each
    gets: while a newcomer waits for the others to give something back, the parts are
    more than the limit by that.

    Args:
        limit: What there is.
        wanted: What each wants, the one included.
        held: What each holds now. The one's own is given back first.
        name: Whose part it is.
        whole: Only whole numbers can be given out.
    """
    free = max(0.0, limit - sum(part for other, part in held.items() if other != name))
    part = max(min(max_min(limit, wanted)[name], free), _FLOOR * limit)
    if not whole:
        return part
    # Rounding down would leave some to nobody: who wants more gets what is free.
    return float(max(math.floor(part), min(math.ceil(part), math.floor(free))))
