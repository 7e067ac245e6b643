"""A service that waits for its sidecar."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.contract.harness import free_port

from .rig import DEADLINE_S, until

_SIGTERM_BIT = 1 << (signal.SIGTERM - 1)


def handles_sigterm(pid: int) -> bool:
    """Whether a process has a handler of its own for SIGTERM."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(fields["SigCgt"], 16) & _SIGTERM_BIT)


def test_who_waits_for_a_sidecar_ends_when_asked_to(tmp_path: Path) -> None:
    environment = {
        **os.environ, "FACETMESH_HOME": str(tmp_path), "DAPR_GRPC_PORT": str(free_port()),
        "DAPR_HTTP_PORT": str(free_port()), "FACETMESH_SIDECAR_WAIT_S": "3600",
    }
    process = subprocess.Popen([sys.executable, "-m", "facetmesh.auth"], env=environment, stderr=subprocess.PIPE)
    try:
        until(lambda: handles_sigterm(process.pid), "it waits")
        process.terminate()
        _, said = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    assert process.returncode == 1
    assert b"STOPPED" in said
