"""Calls that run together: each gets its own row, whatever comes beside it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facetmesh.runners.engines import ImageInput, read_model
from facetmesh.runners.engines.batching import Batching
from facetmesh.runners.settings import EngineSetting
from facetmesh.runners.stopwatch import measured

from .test_runners_engines import onnx_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

BAD = 13
GUARD_S = 60


class Doubling:
    """Doubles what it is given; a batch with a bad number in it fails as a whole."""

    batches = True

    def __init__(self, gate: threading.Event | None = None, row_s: float = 0.0) -> None:
        """The first run waits for the gate."""
        self.outputs = {"doubled": (None, 1)}
        self.runs: list[int] = []
        self.cores: list[int] = []
        self.side_by_side = 0
        self._gate = gate
        self._row_s = row_s
        self._at_work = 0

    def infer(self, array: NDArray[Any], *, cores: int = 0) -> dict[str, NDArray[Any]]:
        """Takes (n, 1)."""
        self._at_work += 1
        self.side_by_side = max(self.side_by_side, self._at_work)
        self.runs.append(len(array))
        self.cores.append(cores)
        try:
            if self._gate is not None:
                assert self._gate.wait(GUARD_S)
            time.sleep(self._row_s * len(array))
            if (array == BAD).any():
                raise RuntimeError("a bad number")
            return {"doubled": array * 2}
        finally:
            self._at_work -= 1


def row(number: float, width: int = 1) -> NDArray[np.float64]:
    return np.full((1, width), number)


def queued(batching: Batching, threads: ThreadPoolExecutor, rows: list[NDArray[Any]]) -> list[Future[Any]]:
    """Calls that came in this order while the first one runs."""
    futures = []
    for count, one in enumerate(rows):
        futures.append(threads.submit(batching.infer, one, cores=1))
        until = time.monotonic() + GUARD_S
        while count and len(batching._waiting) < count:
            assert time.monotonic() < until
            time.sleep(0.0005)
        while not batching._model.runs:  # type: ignore[attr-defined]
            assert time.monotonic() < until
            time.sleep(0.0005)
    return futures


def batches_of(model: Doubling, most: int) -> Batching:
    """They may take as long as they do, and it knows already what a row takes."""
    batching = Batching(model, most=most, latency_s=1e9)
    batching._row_s = 1.0
    return batching


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 2)), min_size=1, max_size=40),
    st.integers(1, 9), st.integers(1, 8),
)  # fmt: skip
def test_nobody_gets_anothers_row(calls: list[tuple[int, int]], most: int, concurrency: int) -> None:
    """Of any numbers in any order, of two shapes, some of which spoil their batch, on any number of threads."""
    model = Doubling()
    batching = batches_of(model, most)

    def call(index: int) -> tuple[str, Any]:
        number, width = calls[index]
        # Told apart by their places, though many are the same.
        array = np.array([[number] * width + [1000 + index]])
        try:
            return "done", batching.infer(array, cores=1)["doubled"].tolist()
        except RuntimeError as error:
            return "failed", str(error)

    with ThreadPoolExecutor(concurrency) as threads:
        outcomes = list(threads.map(call, range(len(calls)), timeout=GUARD_S))
    for index, ((number, width), outcome) in enumerate(zip(calls, outcomes, strict=True)):
        if number == BAD:
            assert outcome == ("failed", "a bad number")
        else:
            assert outcome == ("done", [[2 * number] * width + [2 * (1000 + index)]])
    assert max(model.runs) <= min(most, concurrency)
    assert model.side_by_side == 1
    assert not batching._waiting
    assert not batching._busy


def test_those_that_come_meanwhile_run_together() -> None:
    """In the order in which they came, as many as may; and each says with how many it ran."""
    gate = threading.Event()
    model = Doubling(gate)
    batching = batches_of(model, 4)

    def call(number: int) -> tuple[float, int]:
        with measured() as seen:
            outputs = batching.infer(row(number), cores=1)
        return outputs["doubled"].item(), seen.batch

    with ThreadPoolExecutor(8) as threads:
        futures = queued(batching, threads, [row(number) for number in range(7)])
        last = threads.submit(call, 7)
        until = time.monotonic() + GUARD_S
        while len(batching._waiting) < 7 and time.monotonic() < until:
            time.sleep(0.0005)
        gate.set()
        assert [future.result(GUARD_S)["doubled"].item() for future in futures] == [0, 2, 4, 6, 8, 10, 12]
        assert last.result(GUARD_S) == (14, 3)
    assert model.runs == [1, 4, 3]
    assert model.cores == [1, 4, 3]


def test_only_likes_run_together() -> None:
    """A call of another shape waits for its turn, and those behind it do not overtake."""
    gate = threading.Event()
    model = Doubling(gate)
    batching = batches_of(model, 8)
    with ThreadPoolExecutor(8) as threads:
        futures = queued(batching, threads, [row(1), row(2), row(3, width=2), row(4)])
        gate.set()
        assert [future.result(GUARD_S)["doubled"].shape for future in futures] == [(1, 1), (1, 1), (1, 2), (1, 1)]
    assert model.runs == [1, 1, 1, 1]


def test_a_batch_is_no_larger_than_its_time_allows() -> None:
    """One call may always run, however long it takes."""
    for latency_s, runs in ((0.02, [1, 2, 2, 2]), (0.001, [1] * 7)):
        gate = threading.Event()
        model = Doubling(gate)
        batching = Batching(model, most=8, latency_s=latency_s)
        batching._row_s = 0.009
        batching._learn = lambda _: None  # type: ignore[method-assign]
        with ThreadPoolExecutor(8) as threads:
            futures = queued(batching, threads, [row(number) for number in range(7)])
            gate.set()
            for future in futures:
                future.result(GUARD_S)
        assert model.runs == runs


def test_what_a_row_takes_is_learnt() -> None:
    """Before that nothing runs together."""
    batching = Batching(Doubling(row_s=0.002), most=8)
    for _ in range(3):
        batching.infer(row(1))
    assert 0.002 <= batching._row_s < 1


def test_a_model_that_mixes_rows_up_is_not_believed() -> None:
    """It gives other rows than it got: each call runs alone then."""

    class Short(Doubling):
        """Gives one row, whatever comes."""

        def infer(self, array: NDArray[Any], *, cores: int = 0) -> dict[str, NDArray[Any]]:
            """Loses rows."""
            return {name: output[:1] for name, output in super().infer(array, cores=cores).items()}

    gate = threading.Event()
    model = Short(gate)
    batching = batches_of(model, 8)
    with ThreadPoolExecutor(8) as threads:
        futures = queued(batching, threads, [row(number) for number in range(4)])
        gate.set()
        assert [future.result(GUARD_S)["doubled"].item() for future in futures] == [0, 2, 4, 6]
    assert model.runs == [1, 3, 1, 1, 1]


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_real_engines_give_each_call_its_row(tmp_path: Path, engine: Any) -> None:
    """Of a model with an open batch, on many threads."""
    if engine == "onnxruntime":
        pytest.importorskip("onnxruntime")
    setting = EngineSetting(engine, engine=engine, batch=8)
    file = onnx_file(tmp_path / "double.onnx", ["n", 3, 4, 6])
    model = read_model(file).compile(setting, ImageInput(4, 6, scale=1.0))
    assert isinstance(model, Batching)
    numbers = range(200)

    def call(number: int) -> tuple[NDArray[Any], int]:
        with measured() as seen:
            output = model.infer(np.full((1, 4, 6, 3), number, np.uint8), cores=1)["doubled"]
        return output, seen.batch

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(call, numbers))
    assert all(output.shape == (1, 3, 4, 6) for output, _ in found)
    assert [output.flat[-1] for output, _ in found] == [2 * number for number in numbers]
    assert all(1 <= batch <= 8 for _, batch in found)


def test_a_model_that_is_made_for_one_image_runs_alone(tmp_path: Path) -> None:
    """And so does whatever takes tensors, and every model where the device gains nothing."""
    pytest.importorskip("onnxruntime")
    one, many = (onnx_file(tmp_path / f"{size}.onnx", [size, 3, 4, 6]) for size in (1, "n"))
    runtime = EngineSetting("onnxruntime", engine="onnxruntime", batch=8)
    image = ImageInput(4, 6)
    assert not isinstance(read_model(one).compile(runtime, image), Batching)
    assert not isinstance(read_model(many).compile(runtime), Batching)
    assert not isinstance(read_model(many).compile(replace(runtime, batch=1), image), Batching)
    assert not isinstance(read_model(many).compile(EngineSetting(batch=8)), Batching)
    # OpenVINO opens what the file fixes, if the graph allows.
    assert isinstance(read_model(one).compile(EngineSetting(batch=8), image), Batching)
