"""Limits and the parts of them that replicas hold: what auth and the services tell each other, and the local rate.

The scheme is that of Doorman and its kin (youtube/doorman, Google SRE book,
chapter 21): who enforces a limit leases a part of it from who knows it all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from facetmesh.kit.profiles import Profile

BURST_S = 0.5
"""How much of an unused rate is kept, in seconds of it: what may come at once."""
LEAST_BURST = 4.0
"""Calls that may come at once however low the rate: what one would call one step often takes two or three, such as
asking how much of a file is there and sending the rest."""
MOST_DEMANDS = 500
"""Accounts of one report."""
MOST_WORK = 2000
"""Entries of work of one report."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """Something of each limit. Of a limit itself, 0 says that there is none."""

    requests_per_s: float = 0.0
    concurrency: float = 0.0
    """Calls in progress."""
    images: float = 0.0
    """Of a day."""
    compute_s: float = 0.0
    """Of a day."""

    def __iter__(self) -> Iterator[float]:
        """In the order of the fields."""
        return iter((self.requests_per_s, self.concurrency, self.images, self.compute_s))

    def __add__(self, other: Amounts) -> Amounts:
        """One by one."""
        return Amounts(*(mine + others for mine, others in zip(self, other, strict=True)))

    @classmethod
    def each(cls, make: Callable[[str], float]) -> Amounts:
        """Those that a function gives for the names of the limits."""
        return cls(*(make(one.name) for one in fields(cls)))


NOTHING = Amounts()


@dataclass(frozen=True, slots=True)
class Demand:
    """What an account wants of one replica, as it was lately: what was refused counts too."""

    account: str
    """tenants/{tenant} or tenants/{tenant}/keys/{key}."""
    wanted: Amounts = NOTHING
    """Images and compute as of the time since the report before."""
    leaving: bool = False
    """It wants nothing more here: what is held for it can go to other replicas."""


@dataclass(frozen=True, slots=True)
class Work:
    """Work that was done."""

    tenant: str
    """tenants/{tenant}."""
    subject: str
    """On whose behalf: a key's name, or a service's."""
    model: str = ""
    """tenants/{tenant}/models/{model}; empty for calls of all kinds."""
    calls: int = 0
    images: int = 0
    compute_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Report:
    """What a replica tells auth. Sent again, it counts once."""

    replica: str
    """A random name that the replica has until it ends."""
    service: str
    """detection, fusion, …"""
    number: int
    """1, 2, …: a repeat has the number of the first."""
    demands: tuple[Demand, ...] = ()
    work: tuple[Work, ...] = ()
    policies_after: int = 0
    """The sequence of the last policy that the replica knows."""


@dataclass(frozen=True, slots=True)
class Grant:
    """An account's part for one replica."""

    account: str
    whole: Amounts
    """Its limits; 0 where it has none."""
    part: Amounts
    """What this replica may give out of them: a rate, calls in progress, and what is left of the day for it."""
    profile: Profile | None = None
    """The tenant's settings; None for a key."""


@dataclass(frozen=True, slots=True)
class ActivePolicy:
    """A policy set that came into force."""

    owner: str
    """tenants/{tenant} or platform."""
    name: str
    """The set's resource name; "" where the owner has none of its own any more."""
    text: str
    sequence: int
    """Its place in the order of changes."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What auth answers."""

    grants: tuple[Grant, ...] = ()
    renew_s: float = 2.0
    """When to report again, in seconds."""
    policies: Sequence[ActivePolicy] = field(default=())
    """Those after the last one known, the oldest first."""
    more_policies: bool = False
    """There are further ones: ask again at once."""


class Bucket:
    """A rate that is smooth: a token bucket that fills all the time and holds BURST_S of it, LEAST_BURST at the least.

    Args:
        rate: Tokens a second.
        now: Seconds of a monotonic clock.
    """

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._tokens = self._burst
        self._at = now

    @property
    def _burst(self) -> float:
        return max(LEAST_BURST, self._rate * BURST_S)

    def change(self, rate: float, now: float) -> None:
        """Goes over to another rate. What was saved up is kept as far as it fits."""
        self._fill(now)
        self._rate = rate
        self._tokens = min(self._tokens, self._burst)

    def take(self, now: float) -> float:
        """Takes a token; 0 where there was one, else the seconds until there will be."""
        self._fill(now)
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate if self._rate > 0 else float("inf")

    def _fill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = now
