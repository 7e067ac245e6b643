"""What knows nothing of us ends with who started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil

from facetmesh.cli.mesh import launcher

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE_S = 90
PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, sys.argv[1], str(os.getpid()), "/bin/sleep", "1000"])
print(child.pid, flush=True)
child.wait()
"""


def test_it_becomes_the_program_and_passes_its_arguments_on() -> None:
    command = [sys.executable, launcher.__file__, str(os.getpid()), "/bin/echo", "--a=b", "c d"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "--a=b c d\n"


def test_the_program_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, launcher.__file__], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        program = psutil.Process(int(parent.stdout.readline()))
        ends = time.monotonic() + DEADLINE_S
        while program.name() != "sleep":
            assert time.monotonic() < ends
            time.sleep(0.01)
        parent.send_signal(signal.SIGKILL)
        program.wait(DEADLINE_S)


def test_it_starts_nothing_for_a_parent_that_is_gone(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/true"]) as gone:
        pass
    made = tmp_path / "made"
    command = [sys.executable, launcher.__file__, str(gone.pid), "/bin/touch", str(made)]
    assert subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 1
    assert not made.exists()
