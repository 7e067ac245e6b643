"""What runs now: which slots it holds, and which of it stands still so that another may go first.

A tenant's process is paused as a whole. What it holds is free meanwhile, and it
pays for none of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Pausable(Protocol):
    """Where work is done: `runners.pool.RunnerPool`."""

    def pause(self, domain: str) -> None:
        """Stops the domain's process where it is."""
        ...

    def resume(self, domain: str) -> None:
        """Lets it go on."""
        ...


@dataclass(slots=True, eq=False)
class Run:
    """A request that runs."""

    domain: str
    began: float
    """When, by the scheduler's clock."""
    expected: float
    """What it is expected to cost, in core-seconds."""
    slots: int
    cold: bool
    """Whether its model may have to be loaded first."""
    paused_at: float | None = None
    """Since when it stands still; None while it does not."""
    paused_s: float = 0.0
    """How long it stood still before, in seconds."""

    def ran_s(self, now: float) -> float:
        """How long it has run, in seconds."""
        return (now if self.paused_at is None else self.paused_at) - self.began - self.paused_s


class Running:
    """The requests that run.

    Args:
        runners: Where they do.
        slots: Cores that they may keep busy.
        clock: Seconds that never go back.
    """

    def __init__(self, runners: Pausable, slots: int, clock: Callable[[], float]) -> None:
        self._runners = runners
        self._slots = slots
        self._clock = clock
        self._runs: set[Run] = set()
        self._pauses: dict[str, set[object]] = {}
        """For whom each domain stands still that does."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self._runs)

    @property
    def free(self) -> int:
        """Slots that nobody uses; fewer than none where who stood still goes on before the other has ended."""
        return self._slots - sum(run.slots for run in self._runs if run.paused_at is None)

    @property
    def loads(self) -> int:
        """How many may have a model to load."""
        return sum(run.cold for run in self._runs)

    def domains(self) -> set[str]:
        """Those that have something running."""
        return {run.domain for run in self._runs}

    def held(self, domains: Iterable[str]) -> int:
        """Slots that would be free if these domains stood still, and are not now."""
        return sum(run.slots for run in self._runs if run.paused_at is None and run.domain in domains)

    def stands(self, domain: str) -> bool:
        """Whether a domain stands still."""
        return domain in self._pauses

    def left_s(self) -> float:
        """Core-seconds that they will take yet, as far as is known."""
        now = self._clock()
        return sum(max(0.0, run.expected - run.ran_s(now) * run.slots) for run in self._runs)

    def unexpected_s(self, domain: str, spared_s: float) -> float:
        """Core-seconds that a domain's requests took so far beyond what is expected of them.

        Args:
            domain: Whose.
            spared_s: So much beyond it is within the bounds where the model was there.
        """
        now = self._clock()
        return sum(
            max(0.0, run.ran_s(now) * run.slots - run.expected - (0.0 if run.cold else spared_s))
            for run in self._of(domain)
        )

    def begin(self, run: Run, before: Iterable[str] = ()) -> None:
        """Adds a request; these domains stand still until `release`."""
        self.hold(before, run)
        self._runs.add(run)

    def hold(self, domains: Iterable[str], whom: object) -> None:
        """Has domains stand still for somebody, until `release`."""
        for domain in domains:
            if domain not in self._pauses:
                self._pauses[domain] = set()
                self._runners.pause(domain)
                for run in self._of(domain):
                    run.paused_at = self._clock()
            self._pauses[domain].add(whom)

    def end(self, run: Run) -> float:
        """Takes out a request; returns for how long it ran, in seconds. It is not released."""
        self._runs.discard(run)
        return run.ran_s(self._clock())

    def release(self, whom: object) -> None:
        """Whoever stands still for this one, and for no other, goes on."""
        for domain, others in list(self._pauses.items()):
            others.discard(whom)
            if not others:
                del self._pauses[domain]
                self._runners.resume(domain)
                for paused in self._of(domain):
                    if paused.paused_at is not None:
                        paused.paused_s += self._clock() - paused.paused_at
                        paused.paused_at = None

    def _of(self, domain: str) -> list[Run]:
        return [run for run in self._runs if run.domain == domain]
