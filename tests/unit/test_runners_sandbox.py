"""A hostile program in a real child: what it tries, and that it fails."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from facetmesh.kit import errors
from facetmesh.runners import landlock, sandbox, seccomp
from facetmesh.runners.pool import RunnerPool
from facetmesh.runners.settings import PoolLimits, RunnerLimits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PROGRAMS = Path(__file__).parent / "programs"
needs_seccomp = pytest.mark.skipif(not seccomp.available(), reason="this kernel has no seccomp")
needs_landlock = pytest.mark.skipif(not landlock.version(), reason="this kernel has no Landlock")


@pytest.fixture
async def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunnerPool]:
    """Children that may read what is in `models`."""
    monkeypatch.syspath_prepend(str(PROGRAMS))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.onnx").write_bytes(b"weights")
    (tmp_path / "secret").write_bytes(b"hunter2")
    async with RunnerPool("hostile", readable=[tmp_path / "models"]) as made:
        yield made


async def tried(pool: RunnerPool, what: str, path: Path | str = "") -> tuple[str, int]:
    """How an attempt went."""
    reply = await pool.call(domain="acme", task="attempt", arguments={"what": what, "path": str(path)})
    return reply.values["how"], reply.values["errno"]


@needs_seccomp
async def test_there_is_no_network_and_no_socket_of_any_kind(pool: RunnerPool) -> None:
    """Not even to a neighbour on the same machine."""
    for what in ("internet", "udp", "unix", "netlink", "pair"):
        assert await tried(pool, what) == ("PermissionError", errno.EPERM), what


@needs_seccomp
async def test_no_process_is_started_traced_or_signalled(pool: RunnerPool) -> None:
    """A fork bomb has no fuse."""
    for what in ("fork", "exec", "replace", "kill", "kill all", "queue", "trace"):
        assert (await tried(pool, what))[0] in {"PermissionError", "BlockingIOError"}, what
    for what in ("uring", "clone3"):
        assert (await tried(pool, what))[1] == errno.ENOSYS, what


@needs_seccomp
async def test_nothing_is_written_changed_or_removed(pool: RunnerPool, tmp_path: Path) -> None:
    """Neither where it may read nor elsewhere."""
    mine = tmp_path / "models" / "mine.onnx"
    before = mine.stat()
    for what in ("write", "append", "truncate", "delete", "rename", "link", "chmod", "touch", "folder"):
        assert (await tried(pool, what, mine))[0] == "PermissionError", what
    assert (await tried(pool, "write", tmp_path / "new"))[0] == "PermissionError"
    assert mine.read_bytes() == b"weights"
    assert (mine.stat().st_mode, mine.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert set(os.listdir(tmp_path)) == {"models", "secret"}  # noqa: PTH208 - asyncio minds Path's


@needs_landlock
async def test_only_models_and_libraries_are_read(pool: RunnerPool, tmp_path: Path) -> None:
    """Models by their names only: nobody sees whose else there are."""
    assert await tried(pool, "read", tmp_path / "models" / "mine.onnx") == ("done", 0)
    assert await tried(pool, "read", os.__file__) == ("done", 0)
    assert (await tried(pool, "list", tmp_path / "models"))[0] == "PermissionError"
    for path in (tmp_path / "secret", "/etc/passwd", "/proc/1/environ"):
        assert (await tried(pool, "read", path))[0] == "PermissionError", path
    for what in ("parent's memory", "parent's environment"):
        assert (await tried(pool, what))[0] in {"PermissionError", "OSError"}, what
    assert (await tried(pool, "disk"))[0] != "done"


async def test_limits_stay_where_they_are(pool: RunnerPool) -> None:
    """For root too, whose capabilities are gone."""
    assert (await tried(pool, "limits"))[0] in {"ValueError", "PermissionError"}
    values = (await pool.call(domain="acme", task="work")).values
    assert int(values["capabilities"], 16) == 0


async def test_what_engines_need_still_works(pool: RunnerPool) -> None:
    """Threads and memory."""
    values = (await pool.call(domain="acme", task="work")).values
    assert values["threads"] == 8
    assert values["seccomp"] == ("2" if seccomp.available() else "0")


async def test_threads_without_end_end_at_the_limit_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a stack, which counts. The neighbour notices nothing."""
    monkeypatch.syspath_prepend(str(PROGRAMS))
    limits = PoolLimits(runner=RunnerLimits(memory_bytes=512 << 20))
    async with RunnerPool("hostile", limits=limits) as pool:
        await pool.call(domain="globex", task="work")
        with pytest.raises(errors.FacetmeshError):
            await pool.call(domain="acme", task="spin", timeout_s=20)
        assert (await pool.call(domain="globex", task="work")).values["threads"] == 8


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("devices", [False, True])
def test_the_filter_is_a_program_that_always_ends(machine: str, devices: bool) -> None:  # noqa: FBT001 - pytest's
    """Each jump leads forward, and into it; the kernel would refuse it otherwise."""
    code = seccomp.program(4711, machine, devices=devices)
    steps = [struct.unpack("=HBBI", code[at : at + 8]) for at in range(0, len(code), 8)]
    assert len(steps) < 4096
    assert steps[-1][0] == 0x06
    for index, (operation, if_true, if_false, _) in enumerate(steps):
        if operation & 0x07 == 0x05:
            assert index + 1 + max(if_true, if_false) < len(steps)


@pytest.mark.parametrize(
    ("machine", "number", "arguments", "verdict"),
    [
        ("x86_64", 41, (2, 1), errno.EPERM),
        ("aarch64", 198, (2, 1), errno.EPERM),
        ("x86_64", 56, (0x11,), errno.EPERM),
        ("x86_64", 56, (0x3D0F00,), None),
        ("aarch64", 220, (0x3D0F00,), None),
        ("x86_64", 62, (4711, 9), None),
        ("x86_64", 62, (1, 9), errno.EPERM),
        ("x86_64", 302, (0,), None),
        ("x86_64", 302, (1,), errno.EPERM),
        ("x86_64", 257, (0, 0, os.O_RDONLY), None),
        ("x86_64", 257, (0, 0, os.O_RDWR), errno.EACCES),
        ("aarch64", 56, (0, 0, os.O_WRONLY | os.O_CREAT), errno.EACCES),
        ("x86_64", 0x40000029, (), errno.ENOSYS),
        ("x86_64", 0, (), None),
    ],
)
def test_what_the_filter_says(machine: str, number: int, arguments: tuple[int, ...], verdict: int | None) -> None:
    """Run here, step by step: the other architecture's too."""
    arch = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[machine]
    data = struct.pack("=IIQ6Q", number, arch, 0, *(*arguments, *[0] * (6 - len(arguments))))
    code = seccomp.program(4711, machine)
    steps = [struct.unpack("=HBBI", code[at : at + 8]) for at in range(0, len(code), 8)]
    at, accumulator = 0, 0
    while steps[at][0] != 0x06:
        operation, if_true, if_false, value = steps[at]
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, value)
                at += 1
            case _:
                holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}
                at += 1 + (if_true if holds[operation] else if_false)
    assert steps[at][3] == (0x7FFF0000 if verdict is None else 0x00050000 | verdict)


def test_doctor_can_ask_what_the_kernel_has() -> None:
    """Without giving anything up."""
    assert set(sandbox.kernel().values()) <= {True, False}
    with Path("/dev/null").open("w") as file:
        file.write("x")
