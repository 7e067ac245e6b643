"""Calls of a model that come side by side run together, where the device gains from that.

Nobody waits for company: a call that finds the device free runs at once, alone.
Those that come meanwhile run together afterwards, as many as may within the
longest time that a batch should take. So a batch is as large as the load makes
it, and what it adds to a call's wait is bounded.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from facetmesh.runners import stopwatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from facetmesh.runners.engines.base import Model, Shape

_SHARE_OF_NEW = 0.2
"""Of a new measurement, in the moving average of what a row takes."""


@dataclass(slots=True, eq=False)
class _Place:
    """A call that waits for its row."""

    array: NDArray[Any]
    cores: int
    ready: threading.Event = field(default_factory=threading.Event)
    """It has its outcome, or has to run the next batch itself."""
    outputs: dict[str, NDArray[Any]] | None = None
    error: Exception | None = None
    together: int = 1


class Batching:
    """A model that runs calls together; `engines.base.Model` says what it does.

    Args:
        model: Takes several images at once.
        most: Calls that may run together.
        latency_s: How long a batch should take at the most, in seconds; one call may always.
    """

    def __init__(self, model: Model, *, most: int, latency_s: float = 0.05) -> None:
        self.outputs: Mapping[str, Shape] = model.outputs
        self.batches = True
        self._model = model
        self._most = most
        self._latency_s = latency_s
        self._lock = threading.Lock()
        self._waiting: deque[_Place] = deque()
        self._busy = False
        self._row_s = 0.0

    def infer(self, array: NDArray[Any], *, cores: int = 0) -> dict[str, NDArray[Any]]:
        """Runs the model once, for this call and those that came meanwhile."""
        place = _Place(array, cores)
        with self._lock:
            self._waiting.append(place)
            leads, self._busy = not self._busy, True
        if not leads:
            with stopwatch.part("infer"):
                place.ready.wait()
        if place.outputs is None and place.error is None:
            try:
                self._run(self._take())
            finally:
                self._hand_over()
        stopwatch.ran_together(place.together)
        if place.error is not None:
            raise place.error
        assert place.outputs is not None  # noqa: S101 - each place of a batch that ran has one or the other
        return place.outputs

    def _take(self) -> list[_Place]:
        """The next batch: whoever leads, who waits for the longest, and those behind it who fit in."""
        with self._lock:
            at_most = min(self._most, max(1, int(self._latency_s / self._row_s))) if self._row_s else 1
            batch = [self._waiting.popleft()]
            kind = _kind(batch[0])
            while self._waiting and len(batch) < at_most and _kind(self._waiting[0]) == kind:
                batch.append(self._waiting.popleft())
            return batch

    def _hand_over(self) -> None:
        """Who has waited for the longest runs the next batch; each caller runs one at the most."""
        with self._lock:
            self._busy = bool(self._waiting)
            if self._waiting:
                self._waiting[0].ready.set()

    def _run(self, batch: Sequence[_Place]) -> None:
        try:
            self._infer(batch)
        except Exception as error:  # noqa: BLE001 - it is raised by whose call it is
            if len(batch) == 1:
                batch[0].error = error
            else:
                # Whoever spoilt it fails alone.
                for place in batch:
                    self._run([place])
        finally:
            for place in batch[1:]:
                place.ready.set()

    def _infer(self, batch: Sequence[_Place]) -> None:
        # A call without a number of cores gets all of them, and so does a batch with it.
        cores = sum(place.cores for place in batch) if all(place.cores for place in batch) else 0
        arrays = np.concatenate([place.array for place in batch]) if len(batch) > 1 else batch[0].array
        began = time.perf_counter()
        outputs = self._model.infer(arrays, cores=cores)
        self._learn((time.perf_counter() - began) / len(batch))
        for name, output in outputs.items():
            if len(output) != len(batch):
                raise RuntimeError(f"{name} has {len(output)} rows of {len(batch)} images")
        for row, place in enumerate(batch):
            place.outputs = {name: output[row : row + 1].copy() for name, output in outputs.items()}
            place.together = len(batch)

    def _learn(self, row_s: float) -> None:
        self._row_s += (_SHARE_OF_NEW if self._row_s else 1.0) * (row_s - self._row_s)


def _kind(place: _Place) -> tuple[tuple[int, ...], str]:
    return place.array.shape, place.array.dtype.str
