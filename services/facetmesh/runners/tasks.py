"""What a program is: named functions that a runner's child calls."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from facetmesh.runners import stopwatch

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
    gone: Sequence[str] = ()
    """What the child has let go of, by the subjects that used it: `Context.gone`. The worker fills it."""


class Context:
    """What a child keeps between calls, its models above all.

    Args:
        setting: How engines are to be opened here.
        keep: How many things `once` holds; the least recently used goes first.
        crowded: Whether memory is short: then things go, the least recently used
            first, until it is not or only the newest is left.
    """

    def __init__(
        self, setting: EngineSetting, keep: int = 8, *, crowded: Callable[[], bool] = lambda: False
    ) -> None:
        self.setting = setting
        self._keep = keep
        self._crowded = crowded
        self._lock = threading.Lock()
        self._made: OrderedDict[object, Future[Any]] = OrderedDict()
        self._users: dict[object, set[str]] = {}
        self._gone: set[str] = set()
        self._asking = threading.local()

    def asked(self, subject: str) -> None:
        """Says on whose behalf this thread calls `once` from now on, such as a model's."""
        self._asking.subject = subject

    def gone(self) -> list[str]:
        """The subjects of what was let go of since this was called before."""
        with self._lock:
            gone, self._gone = self._gone, set()
        return sorted(gone)

    def once(self, key: object, make: Callable[[], T]) -> T:
        """Returns what `make` made for this key before, or has it made now, which is the part `load` of the task.

        Who asks for the same key meanwhile waits for that; who asks for another
        does not.

        Args:
            key: Hashable; what the value depends on.
            make: Makes it; what it raises is raised here, and nothing is kept.
        """
        with self._lock:
            made = self._made.get(key)
            is_new = made is None
            if made is None:
                made = self._made[key] = Future()
            self._made.move_to_end(key)
            self._users.setdefault(key, set()).add(getattr(self._asking, "subject", ""))
        if not made.done():
            with stopwatch.part("load"):
                if is_new:
                    self._make(key, made, make)
                made.exception()  # waits for it
        value: T = made.result()
        return value

    def _make(self, key: object, made: Future[T], make: Callable[[], T]) -> None:
        try:
            # Before it too, where memory is short already: of large models there is no room for two.
            self.relieve(key)
            made.set_result(make())
        except BaseException as error:
            self._drop(key, made)
            made.set_exception(error)
            raise
        self.relieve(key)

    def relieve(self, spared: object) -> bool:
        """Lets go of what is too much; what is being made, or used by a call, lives until that has ended.

        Args:
            spared: The key of what stays, such as what a call is about.

        Returns:
            Whether memory is short even so.
        """
        while len(self._made) > self._keep or self._crowded():
            with self._lock:
                oldest = next((key for key, one in self._made.items() if key != spared and one.done()), None)
                if oldest is None:
                    return True
                self._let_go(oldest)
        return False

    def forget(self, part: object) -> None:
        """Lets go of what was made for keys that have this part."""
        with self._lock:
            for key in [key for key in self._made if isinstance(key, tuple) and part in key]:
                self._let_go(key)

    def _drop(self, key: object, made: Future[Any]) -> None:
        with self._lock:
            if self._made.get(key) is made:
                self._let_go(key)

    def _let_go(self, key: object) -> None:
        """Forgets a key; the lock is held."""
        del self._made[key]
        self._gone |= self._users.pop(key)


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
