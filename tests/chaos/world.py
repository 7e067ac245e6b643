"""A mesh that is harmed: what runs, how it is hurt, and what it holds in memory."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
from tests.contract.harness import halt

from facetmesh.client import AsyncClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.mesh.conftest import Mesh

DEADLINE_S = 180
"""By when everything must be well again, on the slowest machine that runs these tests."""
TENANT = "acme"
RUNNER = "facetmesh.runners.worker"


@dataclass(frozen=True)
class World:
    """A running mesh, the photos that are sent to it, and one of its tenants' keys."""

    mesh: Mesh
    provider: str
    """embedded or daprd."""
    source: bytes
    target: bytes

    @property
    def key(self) -> str:
        return self.mesh.tenant(TENANT)

    def client(self) -> AsyncClient:
        """A client of the tenant; to be entered."""
        return AsyncClient(self.key, self.mesh.endpoints)

    def pid(self, name: str) -> int:
        """The process of that name, or "SERVICE runner", as it is now."""
        service, _, runner = name.partition(" ")
        if not runner:
            return self.mesh.pid(name)
        children = psutil.Process(self.mesh.pid(service)).children()
        return next(child.pid for child in children if RUNNER in " ".join(child.cmdline()))

    def kill(self, name: str) -> None:
        """As the kernel does it: no chance to tidy up."""
        os.kill(self.pid(name), signal.SIGKILL)

    @asynccontextmanager
    async def stopped(self, name: str) -> AsyncIterator[int]:
        """It is there, and does nothing. Gives its process id."""
        pid = self.pid(name)
        halt(pid)
        try:
            yield pid
        finally:
            with suppress(ProcessLookupError):  # it was killed meanwhile
                os.kill(pid, signal.SIGCONT)

    def memory(self) -> int:
        """Bytes that the processes of the mesh hold, runners too."""
        family = self.mesh.family()
        total = 0
        for process in family:
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total


async def until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Returns once the condition is true."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {deadline_s} s: {what}"
        await asyncio.sleep(0.05)
