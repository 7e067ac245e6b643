"""What a program is: named functions that a runner's child calls."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from facetmesh.runners.settings import EngineSetting

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply:
    """What a task returns."""

    values: Mapping[str, Any] = field(default_factory=dict)
    """JSON values; no NaN and no infinity."""
    blobs: Sequence[bytes] = ()
    """Binary results."""
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    """How long its parts took, by name, in milliseconds: `stopwatch`. The worker fills it."""
    batch: int = 1
    """How many calls the engine ran together, this one among them. The worker fills it."""


class Context:
    """What a child keeps between calls.

    Args:
        setting: How engines are to be opened here.
        keep: How many things `once` holds; the least recently used goes first.
    """

    def __init__(self, setting: EngineSetting, keep: int = 8) -> None:
        self.setting = setting
        self._keep = keep
        self._lock = threading.Lock()
        self._made: OrderedDict[object, Any] = OrderedDict()

    def once(self, key: object, make: Callable[[], T]) -> T:
        """Returns what `make` made for this key before, or has it made now.

        Args:
            key: Hashable; what the value depends on.
            make: Makes it; what it raises is raised here, and nothing is kept.
        """
        with self._lock:
            if key not in self._made:
                self._made[key] = make()
                if len(self._made) > self._keep:
                    self._made.popitem(last=False)
            self._made.move_to_end(key)
            value: T = self._made[key]
            return value

    def forget(self, part: object) -> None:
        """Lets go of what was made for keys that have this part."""
        with self._lock:
            for key in [key for key in self._made if isinstance(key, tuple) and part in key]:
                del self._made[key]


Task = Callable[[Context, Mapping[str, Any], Sequence[bytes]], Reply]
"""A task: the child's context, JSON arguments and binary inputs in, a reply out.

It may raise the errors of `kit.errors`, which reach the parent's caller as they
are; any other exception becomes INTERNAL. With `RunnerLimits.concurrency` above
1 it must bear being called on several threads.
"""


class Runners(Protocol):
    """Where tasks run: `runners.pool.RunnerPool`."""

    async def call(
        self,
        *,
        domain: str,
        task: str,
        arguments: Mapping[str, Any],
        blobs: Sequence[bytes] = (),
        subject: str,
        timeout_s: float,
    ) -> Reply:
        """Runs a task in the domain's process."""
        ...
