"""The pool on real processes: what dies, what waits, what is left."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from facetmesh.kit import errors
from facetmesh.runners.pool import RunnerPool
from facetmesh.runners.settings import EngineSetting, PoolLimits, RunnerLimits

from .runner_processes import runner_processes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PROGRAMS = Path(__file__).parent / "programs"
DEADLINE_S = 90.0


@pytest.fixture(autouse=True)
def _programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROGRAMS))


@pytest.fixture
async def pool() -> AsyncIterator[RunnerPool]:
    """A pool of unruly children."""
    async with RunnerPool("unruly") as made:
        yield made


@asynccontextmanager
async def pool_with(
    *, runner: RunnerLimits | None = None, program: str = "unruly", **limits: float
) -> AsyncIterator[RunnerPool]:
    """A pool with other limits."""
    async with RunnerPool(program, limits=PoolLimits(runner=runner or RunnerLimits(), **limits)) as made:  # type: ignore[arg-type]
        yield made


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


def running(pid: int) -> bool:
    """Whether there is such a process, zombies aside."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def threads(pid: int) -> set[str]:
    """What a process's threads call themselves: the only thing that a child can say beside its answers."""
    try:
        return {(task / "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir()}
    except OSError:  # one ended meanwhile
        return set()


def framed(header: bytes) -> bytes:
    """A frame with this header and nothing after it."""
    return len(header).to_bytes(4, "big") + header


class Sleeper:
    """A call that is in the child until it is released."""

    def __init__(self, pool: RunnerPool, folder: Path, name: str = "s", **options: object) -> None:
        self._pool, self._name, self._release = pool, f"asleep-{name}", folder / f"{name}-release"
        arguments = {"name": self._name, "release": str(self._release)}
        self.call = asyncio.create_task(
            pool.call(**{"domain": "acme", "task": "sleep", "arguments": arguments, **options})  # type: ignore[arg-type]
        )

    async def started(self) -> None:
        """Waits until the child is in it."""
        await until(lambda: any(self._name in threads(pid) for pid in self._pool.pids().values()))

    def release(self) -> None:
        """Lets it end."""
        self._release.symlink_to("anywhere")


async def test_values_and_blobs_come_back_as_they_went(pool: RunnerPool) -> None:
    """What went in comes out, large blobs and empty ones included."""
    blobs = [b"", os.urandom(3_000_000), b"\x00"]
    reply = await pool.call(domain="acme", task="echo", arguments={"x": [1, "zwei", None]}, blobs=blobs)
    assert reply.values["x"] == [1, "zwei", None]
    assert reply.blobs == blobs


async def test_each_domain_has_a_process_of_its_own_and_keeps_it(pool: RunnerPool) -> None:
    """Isolation: a tenant, a process."""
    pids = [(await pool.call(domain=name, task="echo")).values["pid"] for name in ("acme", "globex", "acme")]
    assert pids[0] == pids[2] != pids[1]
    assert pool.pids() == {"acme": pids[0], "globex": pids[1]}
    assert os.getpid() not in pids


async def test_what_a_child_made_is_kept_between_its_calls(pool: RunnerPool) -> None:
    """Context.once."""
    made = {(await pool.call(domain="acme", task="count")).values["made"] for _ in range(3)}
    assert len(made) == 1


async def test_a_death_fails_its_own_calls_and_nobody_else(pool: RunnerPool, tmp_path: Path) -> None:
    """The neighbour's call goes on, and a repeat works."""
    neighbour = Sleeper(pool, tmp_path, domain="globex")
    await neighbour.started()
    with pytest.raises(errors.Unavailable) as caught:
        await pool.call(domain="acme", task="die")
    assert (caught.value.reason, caught.value.metadata) == ("RUNNER_DIED", {"cause": "SIGILL"})
    assert caught.value.retry_after_s is not None
    assert (await pool.call(domain="acme", task="echo")).values["pid"] in pool.pids().values()
    neighbour.release()
    await neighbour.call


async def test_a_program_that_cannot_be_imported_is_a_death(caplog: pytest.LogCaptureFixture) -> None:
    """The caller hears that it died; the log has why."""
    async with pool_with(program="stillborn") as pool:
        with pytest.raises(errors.Unavailable, match="died"):
            await pool.call(domain="acme", task="echo")
    assert "it cannot be imported" in caplog.text


async def test_a_child_that_does_not_get_ready_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start has a deadline too."""
    (tmp_path / "endless.py").write_text("import time\nwhile True: time.sleep(1)")
    monkeypatch.syspath_prepend(str(tmp_path))
    async with pool_with(program="endless", runner=RunnerLimits(start_timeout_s=0.3)) as pool:
        with pytest.raises(errors.Unavailable) as caught:
            await pool.call(domain="acme", task="echo")
    assert caught.value.metadata == {"cause": "not ready in time"}


async def test_a_call_that_runs_too_long_is_killed(pool: RunnerPool, tmp_path: Path) -> None:
    """Nothing else ends native code."""
    pid = (await pool.call(domain="acme", task="echo")).values["pid"]  # so that it has not to start first
    endless = Sleeper(pool, tmp_path, timeout_s=2)
    with pytest.raises(errors.DeadlineExceeded) as caught:
        await endless.call
    assert caught.value.reason == "RUNNER_TIMEOUT"
    await until(lambda: not running(pid))
    await pool.call(domain="acme", task="echo")


async def test_a_caller_that_goes_away_leaves_the_child_at_work(pool: RunnerPool, tmp_path: Path) -> None:
    """Its slot is free again only when the child is."""
    abandoned = Sleeper(pool, tmp_path)
    await abandoned.started()
    pids = pool.pids()
    abandoned.call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await abandoned.call
    after = asyncio.create_task(pool.call(domain="acme", task="echo"))
    done, _ = await asyncio.wait([after], timeout=0.1)
    assert not done
    abandoned.release()
    assert (await after).values["pid"] == pids["acme"]


async def test_one_more_than_may_wait_is_refused(tmp_path: Path) -> None:
    """The queue is bounded, and each domain has its own."""
    async with pool_with(queue=2) as pool:
        busy = Sleeper(pool, tmp_path)
        await busy.started()
        waiting = [asyncio.create_task(pool.call(domain="acme", task="echo")) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(errors.ResourceExhausted) as caught:
            await pool.call(domain="acme", task="echo")
        assert caught.value.reason == "QUEUE_FULL"
        assert caught.value.retry_after_s is not None
        await pool.call(domain="globex", task="echo")
        busy.release()
        await asyncio.gather(busy.call, *waiting)


async def test_waiting_has_an_end_that_kills_nobody(pool: RunnerPool, tmp_path: Path) -> None:
    """Who waited in vain did not run: the child lives."""
    busy = Sleeper(pool, tmp_path)
    await busy.started()
    with pytest.raises(errors.DeadlineExceeded):
        await pool.call(domain="acme", task="echo", timeout_s=0.1)
    busy.release()
    await busy.call


async def test_calls_run_side_by_side_up_to_the_concurrency(tmp_path: Path) -> None:
    """Two threads in one child; a death takes both calls, and no third."""
    async with pool_with(runner=RunnerLimits(concurrency=2)) as pool:
        first, second = (Sleeper(pool, tmp_path, name) for name in "ab")
        await first.started()
        await second.started()
        third = asyncio.create_task(pool.call(domain="acme", task="echo"))
        await asyncio.sleep(0)
        os.kill(pool.pids()["acme"], signal.SIGKILL)
        for sleeper in (first, second):
            with pytest.raises(errors.Unavailable):
                await sleeper.call
        await third


async def test_a_model_that_keeps_killing_is_quarantined_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Its tenant's other models go on, and so does another tenant's model of the same name."""
    async with pool_with(deaths=2) as pool:
        for _ in range(2):
            with pytest.raises(errors.Unavailable):
                await pool.call(domain="acme", task="die", subject="models/bad")
        with pytest.raises(errors.FailedPrecondition) as caught:
            await pool.call(domain="acme", task="echo", subject="models/bad")
        assert caught.value.reason == "MODEL_QUARANTINED"
        await pool.call(domain="acme", task="echo", subject="models/good")
        await pool.call(domain="globex", task="echo", subject="models/bad")
    assert "model quarantined" in caplog.text


async def test_room_is_made_by_the_least_recently_used(tmp_path: Path) -> None:
    """Idle ones go first; a busy one waits for its turn, and everyone gets on."""
    async with pool_with(runners=2) as pool:
        await pool.call(domain="old", task="echo")
        await pool.call(domain="new", task="echo")
        old = pool.pids()["old"]
        await pool.call(domain="third", task="echo")
        assert pool.pids().keys() == {"new", "third"}
        await until(lambda: not running(old))
        busy = Sleeper(pool, tmp_path, domain="new")
        await busy.started()
        await asyncio.gather(*(pool.call(domain=f"d{i}", task="echo") for i in range(6)))
        busy.release()
        await busy.call
        assert len(pool.pids()) <= 2


async def test_more_busy_domains_than_places_all_get_on() -> None:
    """Nobody starves, not even beside a domain that always has the next call waiting."""
    async with pool_with(runners=1) as pool:
        served = asyncio.Event()

        async def hog() -> None:
            while not served.is_set():
                await pool.call(domain="hog", task="echo")

        hogs = [asyncio.create_task(hog()) for _ in range(4)]
        await until(lambda: "hog" in pool.pids())
        others = [pool.call(domain=f"d{i % 3}", task="echo", arguments={"i": i}, timeout_s=60) for i in range(6)]
        replies = await asyncio.gather(*others)
        assert [reply.values["i"] for reply in replies] == list(range(6))
        served.set()
        await asyncio.gather(*hogs)


async def test_an_idle_runner_is_stopped() -> None:
    """And a new one comes with the next call."""
    async with pool_with(idle_s=0.05) as pool:
        pid = (await pool.call(domain="acme", task="echo")).values["pid"]
        await until(lambda: not running(pid))
        assert pool.pids() == {}
        assert (await pool.call(domain="acme", task="echo")).values["pid"] != pid


async def test_a_runner_that_was_used_meanwhile_is_stopped_later() -> None:
    """So long after its last call, not after its first."""
    async with pool_with(idle_s=300.0) as pool:
        pid = (await pool.call(domain="acme", task="echo")).values["pid"]
        state = pool._domains["acme"]
        pool._unload(state)  # as if its timer had rung
        assert pool.pids() == {"acme": pid}
        assert state.idle_timer is not None
        state.last_used -= 300.0
        pool._unload(state)
        await until(lambda: not running(pid))
        assert pool.pids() == {}


@pytest.mark.parametrize(
    "code", ["INVALID_ARGUMENT", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "INTERNAL"]
)
async def test_our_errors_cross_the_boundary(pool: RunnerPool, code: str) -> None:
    """By code, reason, message and metadata."""
    with pytest.raises(errors.BY_CODE[code], match="Not this") as caught:
        await pool.call(domain="acme", task="refuse", arguments={"code": code})
    assert (caught.value.reason, caught.value.metadata) == ("NOT_THIS", {"image": "source"})


async def test_a_child_cannot_speak_of_authentication(pool: RunnerPool) -> None:
    """A code that no task has a right to is a broken protocol."""
    with pytest.raises(errors.Unavailable):
        await pool.call(domain="acme", task="refuse", arguments={"code": "UNAUTHENTICATED"})


async def test_other_exceptions_tell_the_log_and_not_the_caller(
    pool: RunnerPool, caplog: pytest.LogCaptureFixture
) -> None:
    """The child lives on."""
    with pytest.raises(errors.Internal) as caught:
        await pool.call(domain="acme", task="fail")
    assert "hunter2" not in str(caught.value)
    await pool.call(domain="acme", task="echo")
    await until(lambda: "hunter2" in caplog.text)


async def test_an_unknown_task_is_our_fault(pool: RunnerPool) -> None:
    """And not a dead child."""
    with pytest.raises(errors.Internal):
        await pool.call(domain="acme", task="no such task")


async def test_arguments_that_are_not_json_take_no_slot(pool: RunnerPool) -> None:
    """A mistake of ours must not use up the domain."""
    for _ in range(3):
        with pytest.raises(ValueError, match="JSON"):
            await pool.call(domain="acme", task="echo", arguments={"x": float("nan")})
    await pool.call(domain="acme", task="echo", timeout_s=DEADLINE_S)


async def test_memory_is_limited() -> None:
    """More is refused inside the child, which lives on."""
    async with pool_with(runner=RunnerLimits(memory_bytes=1 << 30)) as pool:
        with pytest.raises(errors.ResourceExhausted) as caught:
            await pool.call(domain="acme", task="devour", arguments={"bytes": 3 << 30})
        assert caught.value.reason == "RUNNER_MEMORY"
        assert (await pool.call(domain="acme", task="devour", arguments={"bytes": 1 << 20})).values == {"size": 1 << 20}


MODEL_BYTES = 200 << 20
KEEP = {"task": "keep", "arguments": {"bytes": MODEL_BYTES}, "subject": "models/large"}


async def test_memory_is_measured_and_the_least_recently_used_makes_room() -> None:
    """Three models of 200 MiB on a budget for two: nobody is refused, and the sum stays below."""
    async with pool_with(memory_bytes=560 << 20) as pool:
        for domain in ("a", "b", "a", "c", "d"):
            await pool.call(domain=domain, **KEEP)  # type: ignore[arg-type]
            assert sum(pool.memory().values()) <= 560 << 20
            assert pool.memory()[domain] >= MODEL_BYTES
        assert pool.pids().keys() == {"c", "d"}
        assert pool.evicted == 2
        await until(lambda: len(runner_processes()) == 2)


@pytest.mark.parametrize(
    ("size", "limits", "models", "left"),
    [
        pytest.param(1, RunnerLimits(), 9, 8, id="as many as it keeps"),
        pytest.param(MODEL_BYTES, RunnerLimits(kept_bytes=2 * MODEL_BYTES), 3, 1, id="as much as it may keep"),
    ],
)
async def test_what_a_child_has_let_go_of_is_not_warm(size: int, limits: RunnerLimits, models: int, left: int) -> None:
    """The parent knows it: what must be loaded again is a load."""
    async with pool_with(runner=limits) as pool:
        for number in range(models):
            arguments = {"bytes": size, "name": f"m{number}"}
            await pool.call(domain="acme", task="keep", arguments=arguments, subject=f"models/m{number}")
        warm = [pool.warm("acme", f"models/m{number}") for number in range(models)]
        assert warm == [False] * (models - left) + [True] * left
        await pool.call(domain="acme", task="keep", arguments=arguments, subject="models/same")
        assert pool.warm("acme", f"models/m{models - 1}"), "what two share is there for both"
        assert pool.memory()["acme"] < (left + 1) * size + (400 << 20)


async def test_a_runner_that_grows_between_loads_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facetmesh.runners.pool._MEASURE_EVERY_S", 0.05)
    async with pool_with() as pool:
        for name in ("a", "b"):
            await pool.call(domain="acme", task="keep", arguments={"bytes": MODEL_BYTES, "name": name}, subject="m")
        await until(lambda: pool.memory()["acme"] >= 2 * MODEL_BYTES)


async def test_what_is_pinned_stays() -> None:
    """And whoever finds no room beside it is told to come back."""
    async with RunnerPool(
        "unruly", limits=PoolLimits(memory_bytes=560 << 20, idle_s=0.05), pinned=lambda name: name.startswith("vip")
    ) as pool:
        for domain in ("vip", "a", "b", "c"):
            await pool.call(domain=domain, **KEEP)  # type: ignore[arg-type]
        pid = pool.pids()["vip"]
        await until(lambda: pool.pids().keys() == {"vip"})
        await pool.call(domain="vip2", **KEEP)  # type: ignore[arg-type]
        with pytest.raises(errors.ResourceExhausted) as caught:
            await pool.call(domain="a", **KEEP)  # type: ignore[arg-type]
        assert caught.value.reason == "MEMORY_BUDGET"
        assert pool.pids()["vip"] == pid


async def test_a_runner_larger_than_the_budget_runs_alone() -> None:
    """What cannot be met is no reason to stand still."""
    async with pool_with(memory_bytes=64 << 20) as pool:
        for domain in ("a", "b"):
            await pool.call(domain=domain, **KEEP)  # type: ignore[arg-type]
        await until(lambda: pool.pids().keys() <= {"b"})


async def test_many_domains_on_little_memory_all_get_on() -> None:
    """At once, and none waits for ever."""
    async with pool_with(memory_bytes=560 << 20) as pool:
        calls = (pool.call(domain=f"d{index}", timeout_s=DEADLINE_S, **KEEP) for index in range(6))  # type: ignore[arg-type]
        assert len({reply.values["pid"] for reply in await asyncio.gather(*calls)}) == 6
        assert sum(pool.memory().values()) <= 560 << 20


async def test_a_child_writes_to_no_file(pool: RunnerPool, tmp_path: Path) -> None:
    """It does not even make one."""
    with pytest.raises(errors.Internal):
        await pool.call(domain="acme", task="write", arguments={"path": str(tmp_path / "file")})
    assert not (tmp_path / "file").exists()


async def test_a_child_sees_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment is what it needs; it has no privileges to gain, no input, and a session of its own."""
    monkeypatch.setenv("DAPR_API_TOKEN", "secret")
    monkeypatch.setenv("FACETMESH_HOME", "/somewhere")
    setting = EngineSetting("x", max_isa="AVX2")
    async with RunnerPool("unruly", setting=setting) as pool:
        seen = (await pool.call(domain="acme", task="environment")).values
    assert seen["variables"].keys() <= {
        "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "PYTHONPATH", "ONEDNN_MAX_CPU_ISA", "HOME"
    }  # fmt: skip
    assert seen["variables"]["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert seen["variables"]["HOME"] == "/nonexistent"
    assert seen["no_new_privs"] == "1"
    assert seen["descriptors"] == ["/dev/null", "/dev/null"]
    assert seen["session"]


async def test_a_child_can_be_told_to_leave_the_cores_to_others() -> None:
    limits = PoolLimits(runner=RunnerLimits(nice=7))
    async with RunnerPool("unruly", limits=limits) as pool:
        seen = (await pool.call(domain="acme", task="environment")).values
    assert seen["nice"] == min(os.nice(0) + 7, 19)
    # As the kernel compares sessions, where it does.
    assert seen["autogroup"] in {7, None}


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\xff\xff\xff\xff", id="a huge header"),
        pytest.param(framed(b"[]"), id="no object"),
        pytest.param(framed(b"{nope"), id="no JSON"),
        pytest.param(framed(b'{"blobs":[]}'), id="no id"),
        pytest.param(framed(b'{"id":99,"values":{},"blobs":[]}'), id="no call of ours"),
        pytest.param(framed(b'{"id":true,"values":{},"blobs":[]}'), id="no number"),
        pytest.param(framed(b'{"id":0,"values":{}}'), id="no blobs"),
        pytest.param(framed(b'{"id":0,"values":{},"blobs":[-1]}'), id="a negative blob"),
        pytest.param(framed(b'{"id":0,"values":{},"blobs":[999999999]}'), id="huge blobs"),
        pytest.param(framed(b'{"id":0,"blobs":[]}'), id="no outcome"),
        pytest.param(framed(b'{"id":0,"values":{},"timings_ms":{},"batch":0,"blobs":[]}'), id="a batch of none"),
        pytest.param(
            framed(b'{"id":0,"values":{},"timings_ms":{"x":1%s},"batch":1,"gone":[],"blobs":[]}' % (b"0" * 400)),
            id="a time beyond numbers",
        ),
        pytest.param(framed(b'{"id":0,"values":{"x":NaN},"blobs":[]}'), id="NaN"),
        pytest.param(
            framed(rb'{"id":0,"values":{"x":"\ud800"},"timings_ms":{},"batch":1,"gone":[],"blobs":[]}'),
            id="half a character",
        ),
        pytest.param(framed(b"[" * 100_000), id="deep nesting"),
    ],
)
async def test_a_child_that_breaks_the_protocol_is_killed(pool: RunnerPool, garbage: bytes) -> None:
    """Its call fails, and the parent is none the worse."""
    with pytest.raises(errors.Unavailable):
        await pool.call(domain="acme", task="lie", arguments={"bytes": garbage.hex()})
    await pool.call(domain="acme", task="echo")


async def test_what_a_child_writes_is_logged_up_to_a_point(pool: RunnerPool, caplog: pytest.LogCaptureFixture) -> None:
    """A tenant's model must not fill the disk."""
    with caplog.at_level(logging.WARNING, "facetmesh.runners.stderr"):
        await pool.call(domain="acme", task="flood")
        await until(lambda: "too much" in caplog.text)
        await pool.close()
    assert "line 0" in caplog.text
    assert len(caplog.records) < 110


def standing(pid: int) -> bool:
    """Whether a process is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def test_a_domain_stands_still_until_it_may_go_on(pool: RunnerPool) -> None:
    """And nobody else does; nor is a process that is spawned meanwhile an exception."""
    pool.pause("nobody")
    pool.resume("nobody")
    first = (await pool.call(domain="acme", task="echo")).values["pid"]
    pool.pause("acme")
    await until(lambda: standing(first))
    answer = asyncio.create_task(pool.call(domain="acme", task="echo"))
    await pool.call(domain="globex", task="echo")
    assert standing(first)
    assert not answer.done()
    os.kill(first, signal.SIGKILL)
    with pytest.raises(errors.Unavailable):
        await answer
    again = asyncio.create_task(pool.call(domain="acme", task="echo"))
    await until(lambda: any(standing(one.pid) for one in runner_processes()))
    pool.resume("acme")
    assert (await again).values["pid"] != first


async def test_who_stands_still_can_be_told_to_go() -> None:
    """In good order: it goes on for that."""
    async with pool_with() as pool:
        pid = (await pool.call(domain="acme", task="echo")).values["pid"]
        pool.pause("acme")
        await until(lambda: standing(pid))
    assert not running(pid)


async def test_closing_leaves_no_process(tmp_path: Path) -> None:
    """Not the idle one, not the busy one, not the one that is just starting."""
    async with pool_with() as pool:
        await pool.call(domain="idle", task="echo")
        busy = Sleeper(pool, tmp_path)
        await busy.started()
        pids = list(pool.pids().values())
        starting = asyncio.create_task(pool.call(domain="late", task="echo"))
        await asyncio.sleep(0)
    assert not any(running(pid) for pid in pids)
    for call in (busy.call, starting):
        with pytest.raises(errors.Unavailable):
            await call
    with pytest.raises(errors.Unavailable, match="shutting down"):
        await pool.call(domain="acme", task="echo")


async def test_closing_stops_those_that_wait_too(tmp_path: Path) -> None:
    """Whose turn comes as the pool closes starts nothing anew."""
    async with pool_with() as pool:
        busy = Sleeper(pool, tmp_path)
        await busy.started()
        waiting = [asyncio.create_task(pool.call(domain="acme", task="echo")) for _ in range(3)]
        await asyncio.sleep(0)
    for call in (busy.call, *waiting):
        with pytest.raises(errors.Unavailable):
            await call
    assert runner_processes() == []


async def test_a_start_that_nobody_waits_for_any_more_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped as idle, once it is there."""
    ready = tmp_path / "ready"
    (tmp_path / "slow.py").write_text(
        f"import os, time\nwhile not os.path.lexists({str(ready)!r}): time.sleep(0.01)\nTASKS = {{}}"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    async with pool_with(program="slow", idle_s=0.05) as pool:
        call = asyncio.create_task(pool.call(domain="acme", task="echo"))
        await until(lambda: runner_processes() != [])
        call.cancel()
        ready.touch()
        await until(lambda: runner_processes() == [])
        assert pool.pids() == {}


PARENT = """
import asyncio, sys
from facetmesh.runners.pool import RunnerPool

async def main():
    async with RunnerPool("unruly") as pool:
        print((await pool.call(domain="idle", task="echo")).values["pid"], flush=True)
        arguments = {"name": "asleep", "release": "/none"}
        busy = asyncio.create_task(pool.call(domain="busy", task="sleep", arguments=arguments))
        while "busy" not in pool.pids():
            await asyncio.sleep(0.01)
        print(pool.pids()["busy"], flush=True)
        await busy

asyncio.run(main())
"""


async def test_no_child_survives_its_parent() -> None:
    """`kill -9` of the parent takes the idle child and the one that is deep in native code."""
    parent = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        assert parent.stdout is not None
        pids = [int(await asyncio.to_thread(parent.stdout.readline)) for _ in range(2)]
        await until(lambda: "asleep" in threads(pids[1]))
        assert all(running(pid) for pid in pids)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()  # type: ignore[union-attr]
    await until(lambda: not any(running(pid) for pid in pids))


async def test_a_warm_call_is_quick(pool: RunnerPool) -> None:
    """The boundary costs far less than an inference (about 0.4 ms here for a photo's bytes)."""
    blob = os.urandom(150_000)
    await pool.call(domain="acme", task="echo", blobs=[blob])
    times = []
    for _ in range(50):
        began = time.perf_counter()
        await pool.call(domain="acme", task="echo", blobs=[blob])
        times.append(time.perf_counter() - began)
    assert min(times) < 0.02
