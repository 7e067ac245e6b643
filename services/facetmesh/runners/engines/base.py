"""What every engine offers: a model that takes one array and returns arrays by name."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

Shape = tuple[int | None, ...]
"""A tensor's dimensions; None where the model leaves one open."""
P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class ImageInput:
    """Makes a model take (1, H, W, 3) uint8 RGB images, which are converted as it wants them.

    The model sees (value - mean) / scale, in the layout it was made for; one that takes uint8 sees the values as they
    are.
    """

    height: int
    """Rows of the images."""
    width: int
    """Columns of the images."""
    mean: float = 0.0
    """Subtracted from each value, 0 to 255."""
    scale: float = 255.0
    """Each value is divided by it then."""


class Model(Protocol):
    """A model with one input, compiled for this machine; `infer` may be called on several threads."""

    @property
    def outputs(self) -> Mapping[str, Shape]:
        """The outputs' names and shapes."""
        ...

    @property
    def batches(self) -> bool:
        """Whether it takes several images at once, (n, H, W, 3), and gives as many rows of each output."""
        ...

    def infer(self, array: NDArray[Any], *, cores: int = 0) -> dict[str, NDArray[Any]]:
        """Runs the model once.

        Args:
            array: The input, of the model's shape and type; with `ImageInput`,
                (1, H, W, 3) uint8.
            cores: How many the call may use; 0 for all.

        Returns:
            Each output's array, by name; the caller's own.
        """
        ...


class Plans(Generic[P]):
    """One model, compiled more than once: for several calls side by side on a core each, and for one on all.

    What is best for one is not best for the other. The first plan that is asked
    for is made at once, and any other in the background, while the first one
    serves: nobody waits for the better when the good is there.

    Args:
        make: Compiles a plan for that many cores.
    """

    def __init__(self, make: Callable[[int], P]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._ready: dict[int, P] = {}
        self._making: set[int] = set()

    def get(self, cores: int) -> P:
        """The plan for that many cores, or one that is ready."""
        cores = min(cores, machine_cores()) or machine_cores()
        plan = self._ready.get(cores)
        if plan is not None:
            return plan
        with self._lock:
            if not self._ready:
                self._ready[cores] = self._make(cores)
            elif cores not in self._making:
                self._making.add(cores)
                threading.Thread(target=self._add, args=(cores,), daemon=True).start()
            return self._ready.get(cores) or next(iter(self._ready.values()))

    def _add(self, cores: int) -> None:
        self._ready[cores] = self._make(cores)


def unsupported_input(kind: str) -> FailedPrecondition:
    """The refusal of a model whose input's type is none that says what a colour's value is."""
    return FailedPrecondition(
        f"The model's input has the type {kind}; images are given as floats from 0 to 1, or as uint8.",
        reason="MODEL_UNSUPPORTED",
    )


def machine_cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0))
