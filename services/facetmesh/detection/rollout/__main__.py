"""Runs the controller of rollouts as a process of its own, for detection that is split by Istio.

It belongs to detection: it has the same state, and signs with the same key. Any
number of them may run; a lease gives each rollout to one.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from pathlib import Path  # noqa: TC003 - pydantic needs it at run time
from typing import ClassVar

import aiohttp
from pydantic import Field

from facetmesh.detection.models import Models
from facetmesh.detection.rollout.accounts import Accounts
from facetmesh.detection.rollout.controller import TICK_S, Controller
from facetmesh.detection.rollout.counted import Counted
from facetmesh.detection.rollout.istio import Istio
from facetmesh.detection.rollout.kubernetes import Account, Resources
from facetmesh.detection.rollout.rollouts import Rollouts
from facetmesh.detection.rollout.scraped import Endpoints, Prometheus, Scraped
from facetmesh.detection.rollout.store import DaprRolloutStore
from facetmesh.detection.store import DaprStore
from facetmesh.kit.errors import FailedPrecondition
from facetmesh.kit.serve import open_mesh, run
from facetmesh.kit.settings import ServiceSettings, load

_DEFAULT = Account()


class RolloutSettings(ServiceSettings):
    """What the controller is told from outside."""

    service: ClassVar[str] = "detection"

    namespace: str = "facetmesh"
    """Where detection's VirtualServices are."""
    prometheus_url: str = ""
    """Where Prometheus is, such as http://prometheus.monitoring:9090."""
    metrics_urls: tuple[str, ...] = ()
    """Where the replicas' metrics are, where there is no Prometheus, as a JSON list."""
    kubernetes_url: str = _DEFAULT.url
    """The API server."""
    kubernetes_token_file: Path = _DEFAULT.token_file
    """What it recognises the controller by."""
    kubernetes_ca_file: Path = _DEFAULT.ca_file
    """PEM of the authority of its certificate."""
    tick_s: float = Field(default=TICK_S, gt=0)
    """How often rollouts are looked at, in seconds."""


async def main() -> None:
    """Builds the controller and has it drive rollouts until SIGTERM."""
    settings = load(RolloutSettings)
    if not settings.prometheus_url and not settings.metrics_urls:
        raise FailedPrecondition(
            "FACETMESH_PROMETHEUS_URL or FACETMESH_METRICS_URLS must say where metrics are.", reason="METRICS_MISSING"
        )
    async with open_mesh(settings) as mesh, contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        source = (
            Prometheus(session, settings.prometheus_url)
            if settings.prometheus_url
            else Endpoints(session, settings.metrics_urls)
        )
        resources = Resources(
            Account(settings.kubernetes_url, settings.kubernetes_token_file, settings.kubernetes_ca_file)
        )
        stack.push_async_callback(resources.close)
        state = mesh.dapr.state()
        models = Models(DaprStore(state))
        controller = Controller(
            Rollouts(models, DaprRolloutStore(state), clock=settings.now),
            Istio(models, resources, settings.namespace),
            Counted(Scraped(source).read),
            Accounts(mesh.recorder),
            holder=secrets.token_hex(8),
            wall=settings.now,
        )
        driving = asyncio.create_task(controller.run(settings.tick_s))
        stack.callback(driving.cancel)
        await mesh.serve(lambda _: None, services=[], ready={})  # its health is all that is asked of it


if __name__ == "__main__":
    run(main)
