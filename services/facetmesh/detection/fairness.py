"""Whose turn it is: start-time fair queueing over compute seconds.

Each tenant is a flow. Virtual time runs as fast as the busy flows are served: a
flow that has consumed c core-seconds at weight w has advanced by c / w. Next is
always the flow that is furthest behind, so that over any busy stretch each gets
compute in proportion to its weight, whatever the number and the size of its
requests; a flow that was idle starts at the present and has saved nothing up.

What a request costs is known only afterwards. Its start tag counts with an
estimate, which `settle` corrects to what was measured.

Source: P. Goyal, H. Vin, H. Cheng, Start-time Fair Queueing, 1996; with more
than one server, as SFQ(D) in W. Jin, J. Chase, J. Kaur, Interposed Proportional
Sharing for a Storage Service Utility, 2004.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")


@dataclass(slots=True)
class _Flow(Generic[T]):
    weight: float
    tag: float
    """The virtual time at which its next request starts."""
    queue: list[tuple[int, int, float, T]] = field(default_factory=list)
    """Heap of (priority, order of arrival, expected cost, request)."""
    expected: float = 0.0
    """Core-seconds that its queue will take, as far as is known."""
    served: int = 0
    """Requests taken and not settled."""


class FairQueue(Generic[T]):
    """Requests that wait, in the order in which they are to be served."""

    def __init__(self) -> None:
        self._flows: dict[str, _Flow[T]] = {}
        self._order = itertools.count()
        self._now = 0.0
        self._length = 0

    def __len__(self) -> int:
        """How many requests wait."""
        return self._length

    def waiting(self, name: str) -> int:
        """How many of a flow's requests wait."""
        flow = self._flows.get(name)
        return len(flow.queue) if flow else 0

    def flows(self) -> int:
        """How many flows are remembered: those with requests, and those that are ahead of the others."""
        return len(self._flows)

    def put(self, name: str, request: T, *, cost: float, weight: float = 1.0, priority: int = 0) -> None:
        """Adds a request.

        Args:
            name: Its flow.
            request: What waits.
            cost: What it is expected to take, in core-seconds.
            weight: The flow's, from now on.
            priority: Lower goes first, among the flow's own: nobody gets ahead of others by it.
        """
        start = self._start(name)
        flow = self._flows.setdefault(name, _Flow(weight, start))
        flow.tag, flow.weight = start, weight
        heapq.heappush(flow.queue, (priority, next(self._order), cost, request))
        flow.expected += cost
        self._length += 1

    def take(self, eligible: Callable[[T], bool] = lambda _: True) -> tuple[str, T, float] | None:
        """Removes and returns the next flow's name, request and expected cost; `settle` is owed for it.

        Args:
            eligible: Whether a request may start now; the flow of one that may not is passed over.
        """
        ready = [(flow.tag, flow.queue[0][1], name) for name, flow in self._flows.items() if flow.queue]
        for _, _, name in sorted(ready):
            flow = self._flows[name]
            if eligible(flow.queue[0][3]):
                _, _, cost, request = heapq.heappop(flow.queue)
                self._length -= 1
                self._now = max(self._now, flow.tag)
                flow.tag += cost / flow.weight
                flow.expected = flow.expected - cost if flow.queue else 0.0
                flow.served += 1
                return name, request, cost
        return None

    def settle(self, name: str, *, expected: float, actual: float) -> None:
        """Charges what a request that was taken really cost, in core-seconds, instead of what was expected."""
        flow = self._flows[name]
        flow.served -= 1
        flow.tag += (actual - expected) / flow.weight
        self._forget()

    def remove(self, name: str, request: T) -> bool:
        """Takes out a request that waits; False if it does not. Nothing is charged."""
        flow = self._flows.get(name)
        for index, entry in enumerate(flow.queue if flow else ()):
            if flow is not None and entry[3] is request:
                flow.queue[index] = flow.queue[-1]
                flow.queue.pop()
                heapq.heapify(flow.queue)
                flow.expected = flow.expected - entry[2] if flow.queue else 0.0
                self._length -= 1
                self._forget()
                return True
        return False

    def last(self, name: str) -> tuple[int, T] | None:
        """The priority of the flow's request that would be taken last, and the request; None if none waits."""
        flow = self._flows.get(name)
        if flow is None or not flow.queue:
            return None
        priority, _, _, request = max(flow.queue, key=lambda entry: entry[:2])
        return priority, request

    def heads(self) -> Iterator[T]:
        """Of each flow the request that is its next."""
        return (flow.queue[0][3] for flow in self._flows.values() if flow.queue)

    def sparse(self, name: str) -> bool:
        """Whether a flow asks for no more than one request at a time: one waits, and none is in service."""
        flow = self._flows[name]
        return len(flow.queue) == 1 and not flow.served

    def lead(self, name: str, other: str) -> float:
        """Core-seconds that a flow was given beyond its part, compared with another that waits or comes now."""
        flow = self._flows[name]
        return (flow.tag - self._start(other)) * flow.weight

    def ahead(self, name: str, weight: float = 1.0, priority: int = 0) -> float:
        """Core-seconds that would be served before a request that the flow added now.

        That is what of its own queue goes before that priority, and of every other
        what starts at an earlier virtual time.
        """
        flow = self._flows.get(name)
        own = sum(entry[2] for entry in flow.queue if entry[0] <= priority) if flow else 0.0
        start = max(flow.tag if flow else 0.0, self._now) + own / weight
        others = (
            min(max(0.0, (start - other.tag) * other.weight), other.expected)
            for key, other in self._flows.items()
            if key != name and other.queue
        )
        return own + sum(others)

    def _start(self, name: str) -> float:
        """The virtual time at which a flow's next request starts, be it one that comes now."""
        flow = self._flows.get(name)
        if flow is not None and flow.queue:
            return flow.tag
        # What it did not use while it was idle is gone.
        return max(flow.tag if flow else 0.0, self._now)

    def _forget(self) -> None:
        """Drops idle flows that have no advance to pay back."""
        if not self._length and not any(flow.served for flow in self._flows.values()):
            # The end of a busy period: everybody starts anew.
            self._now = max([self._now, *(flow.tag for flow in self._flows.values())])
        for name, flow in list(self._flows.items()):
            if not flow.queue and not flow.served and flow.tag <= self._now:
                del self._flows[name]
