"""The probe: real trials on this machine, and its choice between made-up ones."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from facetmesh.kit.errors import FailedPrecondition
from facetmesh.runners import probe as probing
from facetmesh.runners import trial
from facetmesh.runners.probe import (
    AUTOMATIC,
    BF16_WITHOUT_AMX,
    F32,
    ONNX_RUNTIME,
    ProbeResult,
    Trial,
    candidates,
    choose,
    gpu_candidates,
    probe,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from facetmesh.runners.engines import Shape


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that measure nothing, for what is not about their figures."""
    (tmp_path / "quick.py").write_text(
        "import time\n"
        "from facetmesh.runners.tasks import Reply\n"
        "TASKS = {'measure': lambda *_: Reply({'ms': time.monotonic(), 'batch': 1})}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(probing, "PROGRAM", "quick")


def test_the_machine_is_tried_once(tmp_path: Path) -> None:
    """f32 lives everywhere; the second call reads what the first found."""
    first = probe(tmp_path / "cache")
    assert first.engine.startswith("OpenVINO 20")
    assert first.trials[0].setting == F32
    assert first.trials[0].ms is not None
    alive = [trial for trial in first.trials if trial.ms is not None]
    assert first.setting in {replace(trial.setting, batch=trial.batch) for trial in alive}
    assert probe(tmp_path / "cache") == first
    assert probe(tmp_path / "cache", force=True).trials[0].ms != first.trials[0].ms


@pytest.mark.usefixtures("quick")
async def test_it_works_beside_a_running_loop(tmp_path: Path) -> None:
    """As services call it."""
    found = await asyncio.to_thread(probe, tmp_path)
    assert found.trials


@pytest.mark.usefixtures("quick")
def test_a_spoilt_cache_is_no_cache(tmp_path: Path) -> None:
    """It is found out again."""
    probe(tmp_path)
    (file,) = tmp_path.glob("probe-*.json")
    file.write_text('{"cpu": 1}')
    assert probe(tmp_path).trials[0].ms is not None


def test_a_setting_that_kills_is_recorded_and_not_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that dies of a signal costs the prober nothing."""
    (tmp_path / "deadly.py").write_text(
        "import os, signal\n"
        "from facetmesh.runners.tasks import Reply\n"
        "def die(context, arguments, blobs):\n"
        "    if context.setting.precision is None:\n"
        "        os.kill(os.getpid(), signal.SIGILL)\n"
        "    return Reply({'ms': 1.0, 'batch': 1})\n"
        "TASKS = {'measure': die}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(probing, "PROGRAM", "deadly")
    monkeypatch.setattr(probing, "candidates", lambda _: (F32, AUTOMATIC))
    found = probe(tmp_path / "cache")
    assert found.trials[1] == Trial(AUTOMATIC, None, failure="SIGILL")
    assert found.setting == F32


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("sse avx2", (F32,)),
        ("avx512f avx512_bf16", (F32, AUTOMATIC)),
        ("avx512_bf16 amx_bf16 amx_tile", (F32, AUTOMATIC, BF16_WITHOUT_AMX)),
    ],
)
def test_only_what_the_cpu_could_do_is_tried(flags: str, expected: tuple[object, ...]) -> None:
    """bf16 only where there is bf16."""
    assert candidates({"flags": flags}) == expected


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ((10.0, 5.0, 7.0), AUTOMATIC),
        ((10.0, None, 7.0), BF16_WITHOUT_AMX),
        ((10.0, 9.5, 9.2), F32),
        ((10.0, None, None), F32),
        ((None, None, 9.0), BF16_WITHOUT_AMX),
        ((None, None, None), F32),
    ],
)
def test_the_fastest_that_lives_unless_f32_is_nearly_as_fast(times: tuple[float | None, ...], expected: object) -> None:
    """bf16 costs accuracy, so it has to be worth it."""
    settings = (F32, AUTOMATIC, BF16_WITHOUT_AMX)
    assert choose(tuple(Trial(setting, ms) for setting, ms in zip(settings, times, strict=True))) == expected


def test_the_batch_is_that_of_the_setting() -> None:
    """What gains on a card need not on the CPU beside it."""
    assert choose((Trial(F32, 10.0, batch=1), Trial(AUTOMATIC, 5.0, batch=16))) == replace(AUTOMATIC, batch=16)
    assert choose((Trial(F32, 10.0, batch=4), Trial(AUTOMATIC, 9.5, batch=16))) == replace(F32, batch=4)


@pytest.mark.parametrize(
    ("ratios", "gains"),
    [
        ([0.4] * 20, True),
        ([5.0] * 10 + [0.4] * 10, True),
        ([0.4] * 19 + [3.0], True),
        ([0.4] * 18 + [3.0, 3.0], False),
        ([0.9] * 20, False),
        ([0.1, 3.0] * 10, False),
        ([0.4] * 10 + [0.9] * 10, False),
    ],
    ids=["gain", "plans made late", "disturbed once", "disturbed twice", "too little", "loaded", "at first"],
)
def test_a_batch_must_gain_in_nearly_every_round(ratios: list[float], *, gains: bool) -> None:
    """What a loaded machine makes of two equal ways is no gain."""
    assert trial.sure(ratios) is gains


def test_a_machine_without_time_to_try_gets_no_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Services wait for the probe when they start."""

    class Model:
        """Runs any number of images in the time of one."""

        batches = True
        outputs: ClassVar[dict[str, Shape]] = {}

        def infer(self, array: NDArray[Any], *, cores: int = 0) -> dict[str, NDArray[Any]]:
            del array, cores
            return {}

    monkeypatch.setattr(trial, "sure", lambda _: True)
    monkeypatch.setattr(trial, "_TRIES_S", 0.0)
    monkeypatch.setattr(trial, "_LONGEST_S", 3600.0)
    assert trial._gains(Model(), Model(), 4)
    monkeypatch.setattr(trial, "_LONGEST_S", 0.0)
    assert not trial._gains(Model(), Model(), 4)


def test_no_service_starts_where_no_setting_lived() -> None:
    dead = ProbeResult("cpu", "engine", (Trial(F32, None, failure="SIGILL"),), F32)
    with pytest.raises(FailedPrecondition) as refusal:
        dead.chosen()
    assert refusal.value.reason == "ENGINE_UNUSABLE"
    alive = ProbeResult("cpu", "engine", (Trial(F32, 1.0),), F32)
    assert alive.chosen() == F32


def test_another_engine_serves_where_the_first_does_not_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried only then."""
    pytest.importorskip("onnxruntime")
    (tmp_path / "selective.py").write_text(
        "import os, signal\n"
        "from facetmesh.runners.trial import measure\n"
        "def die(context, arguments, blobs):\n"
        "    if context.setting.engine == 'openvino':\n"
        "        os.kill(os.getpid(), signal.SIGILL)\n"
        "    return measure(context, arguments, blobs)\n"
        "TASKS = {'measure': die}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(probing, "PROGRAM", "selective")
    found = probe(tmp_path / "cache")
    assert found.setting == found.chosen()
    assert replace(found.setting, batch=1) == ONNX_RUNTIME
    assert "ONNX Runtime" in found.engine


def test_a_card_is_tried_where_there_is_one_and_an_engine_for_it(tmp_path: Path) -> None:
    """Not because of a file alone."""
    assert gpu_candidates(tmp_path / "none") == ()
    (tmp_path / "nvidiactl").touch()
    has_engine = probing._version("onnxruntime-gpu") is not None
    assert bool(gpu_candidates(tmp_path / "nvidiactl")) == has_engine
