"""What the mesh on this machine is doing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from facetmesh.cli.mesh.health import Health
from facetmesh.cli.mesh.ports import SERVICES
from facetmesh.cli.mesh.process import descendants
from facetmesh.cli.mesh.supervisor import noted

if TYPE_CHECKING:
    from facetmesh.cli.mesh.home import Home


@dataclass(frozen=True, slots=True)
class State:
    """One process."""

    name: str
    pid: int
    state: str
    """SERVING, NOT_SERVING or UNREACHABLE; RUNNING for what is no service, whose health says how that does."""
    address: str
    memory_mib: int
    """Of the process and those that it started."""
    uptime_s: int

    @property
    def serving(self) -> bool:
        """Whether it does what it should."""
        return self.state in {"SERVING", "RUNNING"}


async def states(home: Home) -> list[State]:
    """The processes of the mesh; empty when none runs."""
    if home.owner() is None:
        return []
    addresses = home.read(home.endpoints)
    return list(
        await asyncio.gather(
            *(_state(name, process, str(addresses.get(name, ""))) for name, process in noted(home).items())
        )
    )


async def _state(name: str, process: psutil.Process, address: str) -> State:
    return State(
        name=name, pid=process.pid, address=address, state=await _health(name, address),
        memory_mib=_memory(process) >> 20, uptime_s=int(time.time() - process.create_time()),
    )


async def _health(name: str, address: str) -> str:
    if name not in SERVICES:
        return "RUNNING"
    health = Health(address)
    try:
        return await health.state()
    finally:
        await health.close()


def _memory(process: psutil.Process) -> int:
    total = 0
    for one in (process, *descendants(process)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += one.memory_info().rss
    return total
