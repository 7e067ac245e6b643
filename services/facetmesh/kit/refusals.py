"""Refusals: who is refused again and again raises an alert, and a flood of them does not become one in the audit log.

All memory here is bounded, whatever sources are forged.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from facetmesh.kit.alerts import Alert
from facetmesh.kit.heavy import HeavyHitters

if TYPE_CHECKING:
    from collections.abc import Callable

    from facetmesh.kit.audit import Record
    from facetmesh.kit.errors import FacetmeshError

_WATCHED = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})
_SOURCES = 4096
_FOLDS = 256
_LOWEST_RATE = 1e-9


@dataclass(frozen=True, slots=True)
class RefusalLimits:
    """When a refusal is worth an alert, and when it is recorded with others."""

    alert: int = 100
    """Refusals of one source, or of one tenant, in a window, that raise an alert."""
    window_s: float = 60.0
    """How long a window is, in seconds."""
    source_rate: float = 20.0
    """Refusals a second of one source that are recorded singly, where nobody could be recognised."""
    total_rate: float = 200.0
    """Those of all sources together."""


class _Bucket:
    """What is recorded singly: a rate, and two seconds of it at once."""

    __slots__ = ("_at_s", "_rate", "_tokens")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = max(rate, _LOWEST_RATE)
        self._tokens = 2 * self._rate
        self._at_s = now

    def take(self, now: float) -> bool:
        self._tokens = min(2 * self._rate, self._tokens + (now - self._at_s) * self._rate)
        self._at_s = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Refusals:
    """Watches refusals.

    Args:
        limits: When something is done about them.
        alert: Raises an alert.
        clock: Seconds; only differences count.
    """

    def __init__(self, limits: RefusalLimits, alert: Callable[[Alert], None], clock: Callable[[], float]) -> None:
        self._limits = limits
        self._alert = alert
        self._clock = clock
        self._sources = HeavyHitters(_SOURCES)
        self._tenants = HeavyHitters(_SOURCES)
        self._window_ends_s = clock() + limits.window_s
        self._total = _Bucket(limits.total_rate, clock())
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._folded: dict[tuple[str, str, str], tuple[Record, FacetmeshError]] = {}

    def admit(self, record: Record, error: FacetmeshError) -> bool:
        """Takes a refusal in. False where it is not to be recorded by itself: `folded` has it, with others like it."""
        now = self._clock()
        if error.code in _WATCHED:
            self._watch(record, now)
        if record.subject or self._single(record.source_address, now):
            return True
        self._fold(record, error)
        return False

    def folded(self) -> list[tuple[Record, FacetmeshError]]:
        """What `admit` kept back since the last time: one record for all that are alike, with their count."""
        folded, self._folded = list(self._folded.values()), {}
        return folded

    def _watch(self, record: Record, now: float) -> None:
        if now >= self._window_ends_s:
            self._window_ends_s = now + self._limits.window_s
            self._sources.clear()
            self._tenants.clear()
        limit, window_s = self._limits.alert, self._limits.window_s
        if self._sources.add(record.source_address) == limit:
            self._alert(Alert(
                "refusals-from-source", f"{limit} calls from {record.source_address} were refused in {window_s:g} s.",
                subject=record.source_address, count=limit, window_s=window_s,
            ))  # fmt: skip
        if record.tenant and self._tenants.add(record.tenant) == limit:
            self._alert(Alert(
                "refusals-for-tenant", f"{limit} calls for {record.tenant} were refused in {window_s:g} s.",
                tenant=record.tenant, subject=record.subject, count=limit, window_s=window_s,
            ))  # fmt: skip

    def _single(self, source: str, now: float) -> bool:
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = self._buckets[source] = _Bucket(self._limits.source_rate, now)
            if len(self._buckets) > _SOURCES:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(source)
        return bucket.take(now) and self._total.take(now)

    def _fold(self, record: Record, error: FacetmeshError) -> None:
        source = record.source_address
        key = (source, record.method, error.reason)
        if key not in self._folded and len(self._folded) >= _FOLDS:
            source, key = "", ("", record.method, error.reason)  # from many sources
        first = self._folded.get(key)
        count = 1 if first is None else first[0].count + 1
        # Each may have named another resource, and none of them is told apart.
        self._folded[key] = (replace(record, source_address=source, resource="", count=count), error)
