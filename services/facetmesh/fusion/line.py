"""The line: which jobs wait, and whose turn it is.

Tenants take turns, each in proportion to its weight; a tenant's own jobs take
turns by priority. So nobody gets ahead of others by what it calls its jobs, and
nothing waits for ever: a batch job too has its part of its tenant's turns.
Within a priority the oldest is first.

Source: stride scheduling, C. Waldspurger, W. Weihl, 1995: each flow has a tag
that grows by 1 / weight with each turn, and the smallest is next.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from facetmesh.fusion.operations import Ref

PACE_S = 60.0
"""Over how many seconds of work, about, the pace is a mean."""


class Priority(StrEnum):
    """How urgent a job is among its tenant's own."""

    VIP = "vip"
    STANDARD = "standard"
    BATCH = "batch"


SHARES = {Priority.VIP: 16.0, Priority.STANDARD: 4.0, Priority.BATCH: 1.0}
"""Which part of its tenant's turns a priority has, while jobs of all wait."""
_URGENCY: Sequence[str] = tuple(SHARES)


@dataclass(frozen=True, slots=True, order=True)
class Ticket:
    """A job's place in the line."""

    ref: Ref
    priority: Priority = Priority.STANDARD


@dataclass(slots=True)
class _Turns:
    """Turns among names: who was served least for its weight is next."""

    now: float = 0.0
    tags: dict[str, float] = field(default_factory=dict)
    """When the next turn is, of those who are ahead of now."""

    def next(self, names: Iterable[str], rank: Callable[[str], str | int]) -> str:
        """Who is next; of those with the same claim, the lowest in rank."""
        return min(names, key=lambda name: (self.tags.get(name, self.now), rank(name)))

    def served(self, name: str, weight: float) -> None:
        """Counts a turn."""
        # What somebody did not use while it had no jobs is gone.
        self.now = max(self.now, self.tags.get(name, self.now))
        self.tags[name] = self.now + 1.0 / weight
        self.tags = {other: tag for other, tag in self.tags.items() if tag > self.now}

    def copy(self) -> _Turns:
        return _Turns(self.now, dict(self.tags))


class Line:
    """The jobs that wait, of all tenants.

    Args:
        weight: A tenant's part of the turns, relative to the others', by its id.
    """

    def __init__(self, weight: Callable[[str], float]) -> None:
        self._weight = weight
        self._tenants = _Turns()
        self._priorities: defaultdict[str, _Turns] = defaultdict(_Turns)

    def order(self, tickets: Iterable[Ticket]) -> Iterator[Ticket]:
        """The tickets in the order in which they would be served from now on, if no others came."""
        waiting: dict[str, dict[Priority, deque[Ticket]]] = {}
        for ticket in sorted(tickets, key=lambda ticket: ticket.ref.id):
            own = waiting.setdefault(ticket.ref.tenant_id, {one: deque() for one in Priority})
            own[ticket.priority].append(ticket)
        tenants = self._tenants.copy()
        priorities = {tenant_id: self._priorities[tenant_id].copy() for tenant_id in waiting}
        while waiting:
            tenant_id = tenants.next(waiting, lambda name: min(own[0].ref.id for own in waiting[name].values() if own))
            own, turns = waiting[tenant_id], priorities[tenant_id]
            priority = Priority(turns.next((one for one in Priority if own[one]), _URGENCY.index))
            yield own[priority].popleft()
            tenants.served(tenant_id, self._weight(tenant_id))
            turns.served(priority, SHARES[priority])
            if not any(own.values()):
                del waiting[tenant_id]

    def served(self, ticket: Ticket) -> None:
        """Counts a turn."""
        tenant_id = ticket.ref.tenant_id
        self._tenants.served(tenant_id, self._weight(tenant_id))
        self._priorities[tenant_id].served(ticket.priority, SHARES[ticket.priority])


class Pace:
    """How fast the line moves, whoever works: jobs that leave it, by the second, while there are any."""

    def __init__(self) -> None:
        self._ended = 0.0
        self._seconds = 0.0

    def moved(self, ended: int, seconds: float) -> None:
        """Counts jobs that ended in a time in which some waited or were worked on."""
        fades = math.exp(-seconds / PACE_S)
        self._ended = self._ended * fades + ended
        self._seconds = self._seconds * fades + seconds

    def takes_s(self, jobs: int) -> float | None:
        """How long so many jobs take, in seconds; None while nothing is known."""
        return jobs * self._seconds / self._ended if self._ended > 0 else None

