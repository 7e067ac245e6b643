"""A queue of jobs that a recorded day fills, and workers empty."""

from __future__ import annotations

import csv
import math
import os
from dataclasses import dataclass
from pathlib import Path

TRACE = Path(os.environ.get(
    "FACETMESH_TRACE", Path(__file__).resolve().parents[3] / "shared" / "data" / "elb_request_count_8c0756.csv"
))  # fmt: skip
"""Requests in five minutes each at a real load balancer, two weeks of them (the Numenta Anomaly Benchmark)."""
SLOTS = 2
"""Jobs that a pod does at a time."""


def busy_evening() -> list[float]:
    """The requests of each five minutes from afternoon to late evening of the day with the highest peak."""
    with TRACE.open() as file:
        rows = list(csv.DictReader(file))
    values = [float(row["value"]) for row in rows]
    day = values.index(max(values)) // 288 * 288
    return values[day + 15 * 12 : day + 22 * 12]


@dataclass
class Queue:
    """Jobs that come as the trace says.

    Args:
        requests: Requests of each step of the trace.
        step_s: How long a step takes here.
        jobs_per_request: How many jobs a request makes.
        job_s: How long a job takes.
    """

    requests: list[float]
    step_s: float
    jobs_per_request: float
    job_s: float
    now_s: float = 0.0
    _jobs: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether no more jobs come."""
        return self.now_s >= len(self.requests) * self.step_s

    @property
    def jobs(self) -> int:
        """Those that have not ended."""
        return math.ceil(self._jobs - 1e-6)

    def advance(self, to_s: float, pods: int) -> None:
        """Goes on to a moment, with so many pods at work, in pieces small enough for the order not to matter."""
        while self.now_s < to_s:
            piece = min(0.05, to_s - self.now_s)
            step = int(self.now_s / self.step_s)
            came = self.requests[step] * self.jobs_per_request / self.step_s * piece if not self.is_over else 0.0
            done = min(self._jobs, pods * SLOTS) / self.job_s * piece
            self._jobs += came - done
            # The last of a job's fraction is a job's end.
            if self.is_over and self._jobs < 0.5:
                self._jobs = 0.0
            self.now_s += piece
