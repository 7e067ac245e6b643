"""One account's part of its limits, as a replica gives it out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facetmesh.kit.budgets import Amounts, Bucket, Demand
from facetmesh.kit.errors import ResourceExhausted

if TYPE_CHECKING:
    from facetmesh.kit.budgets import Grant

_DAY_S = 86_400
_SOON_S = 0.5
"""When to come again where another replica may have some of it left."""
_LONGEST_RETRY_S = 5.0
"""A rate's part may grow any moment: nobody is sent away for longer."""


class Allowance:
    """What one replica may let one account do. It is unlimited until the first grant.

    Args:
        name: tenants/{tenant} or tenants/{tenant}/keys/{key}.
        now: Seconds of a monotonic clock.
    """

    def __init__(self, name: str, now: float) -> None:
        self._name = name
        self.granted = False
        """Whether there was a grant."""
        self._whole = Amounts()
        self._part = Amounts()
        self._bucket: Bucket | None = None
        self._day = 0
        self._used = Amounts()
        """Since the last grant, of the day's limits."""
        self._in_progress = 0
        self._calls = 0
        """Wanted since the last report, refused ones too."""
        self._most = 0
        """Calls in progress at a time since then, refused ones too."""
        self._spent = Amounts()
        """Worked on since then."""
        self._reported_at = now
        self._called_at = now

    @property
    def is_idle(self) -> bool:
        """Whether nothing of it is in progress or was wanted since the last report."""
        return not self._in_progress and not self._calls

    def take(self, grant: Grant, now: float, wall: float) -> None:
        """Goes over to what a grant says."""
        self.granted = True
        self._whole, self._part = grant.whole, grant.part
        if not grant.whole.requests_per_s:
            self._bucket = None
        elif self._bucket is None:
            self._bucket = Bucket(grant.part.requests_per_s, now)
        else:
            self._bucket.change(grant.part.requests_per_s, now)
        # What was done since the report is not in the grant yet.
        self._used = self._spent
        self._day = int(wall // _DAY_S)

    def admit(self, now: float, wall: float, *, infers: bool) -> None:
        """Returns when a call may go on.

        Raises:
            ResourceExhausted: It may not.
        """
        self._called_at = now
        self._calls += 1
        if infers:
            self._check_day(wall)
        wait_s = self._bucket.take(now) if self._bucket is not None else 0.0
        if wait_s:
            raise ResourceExhausted(
                f"The limit of {self._whole.requests_per_s:.15g} calls a second is reached.",
                reason="RATE_LIMITED", metadata={"account": self._name}, retry_after_s=min(wait_s, _LONGEST_RETRY_S),
            )  # fmt: skip

    def enter(self) -> None:
        """Takes a place among the calls in progress.

        Raises:
            ResourceExhausted: There is none.
        """
        self._most = max(self._most, self._in_progress + 1)
        if self._whole.concurrency and self._in_progress >= self._part.concurrency:
            raise ResourceExhausted(
                f"The limit of {self._whole.concurrency:.15g} calls in progress is reached.",
                reason="CONCURRENCY_LIMITED", metadata={"account": self._name}, retry_after_s=_SOON_S,
            )  # fmt: skip
        self._in_progress += 1

    def leave(self) -> None:
        """Gives a place back."""
        self._in_progress -= 1

    def spend(self, images: int, compute_s: float) -> None:
        """Counts work that was done."""
        done = Amounts(images=images, compute_s=compute_s)
        self._used += done
        self._spent += done

    def report(self, now: float, *, idle_s: float) -> Demand:
        """What was wanted since the last report."""
        passed_s = max(now - self._reported_at, 1e-3)
        leaving = self.is_idle and now - self._called_at > idle_s
        wanted = Amounts(
            self._calls / passed_s, max(self._most, self._in_progress), self._spent.images, self._spent.compute_s
        )
        self._calls, self._most, self._spent = 0, 0, Amounts()
        self._reported_at = now
        return Demand(self._name, wanted, leaving=leaving)

    def _check_day(self, wall: float) -> None:
        day = int(wall // _DAY_S)
        if self._day and day != self._day:  # a new day begins with the part of the old one, until auth says more
            self._day, self._used = day, Amounts()
            share = self._part.requests_per_s / self._whole.requests_per_s if self._whole.requests_per_s else 1.0
            self._part = Amounts(
                self._part.requests_per_s, self._part.concurrency,
                self._whole.images * share, self._whole.compute_s * share,
            )  # fmt: skip
        for whole, part, used, what, reason in (
            (self._whole.images, self._part.images, self._used.images, "images", "IMAGES_EXHAUSTED"),
            (self._whole.compute_s, self._part.compute_s, self._used.compute_s, "seconds of compute",
             "COMPUTE_EXHAUSTED"),
        ):  # fmt: skip
            if whole and used >= part:
                # Where others may still hold something, it is worth asking again soon.
                retry_s = _SOON_S if part > 0 else _DAY_S - wall % _DAY_S
                raise ResourceExhausted(
                    f"The day's limit of {whole:.15g} {what} is reached; the day ends at 0:00 UTC.",
                    reason=reason, metadata={"account": self._name}, retry_after_s=retry_s,
                )  # fmt: skip
