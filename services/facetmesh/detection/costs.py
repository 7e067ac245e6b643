"""What requests cost in core-seconds, as it was measured lately."""

from __future__ import annotations

from collections import OrderedDict

_REMEMBERED = 4096
_SHARE_OF_NEW = 0.2
"""Of a new measurement, in the moving average."""
_SHARE_OF_DOUBT = 0.05
"""Of what is known, with each request that is refused for it alone."""
_FIRST_GUESS_S = 0.02


class Costs:
    """A moving average for each tenant's task and its subject, such as a model; those measured last are remembered."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    def of(self, domain: str, task: str, subject: str) -> float:
        """What a request will cost; a guess where none was measured."""
        return self._known.get((domain, task, subject), _FIRST_GUESS_S)

    def learn(self, domain: str, task: str, subject: str, cost: float) -> None:
        """Takes in what one has cost."""
        key = domain, task, subject
        known = self._known.pop(key, cost)
        self._known[key] = known + _SHARE_OF_NEW * (cost - known)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def doubt(self, domain: str, task: str, subject: str) -> None:
        """Takes one to cost a little less: it was refused for that, and what never runs is never measured again."""
        key = domain, task, subject
        if key in self._known:
            self._known[key] *= 1 - _SHARE_OF_DOUBT
