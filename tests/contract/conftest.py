"""A world of three apps with their sidecars, by each provider of Dapr's API."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from .harness import App, Inbox
from .providers import BY_NAME, PROVIDERS, Provider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from facetmesh.kit.dapr import DaprSidecar


@dataclass(frozen=True)
class World:
    """The apps, their sidecars, and the sidecars' processes."""

    provider: Provider
    one: App
    two: App
    two_again: App
    """A second replica of two."""
    stranger: App
    """Has no components."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PROVIDERS)
async def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    apps = (App("one"), App("two"), App("two"), App("stranger"))
    provider = BY_NAME[request.param](tmp_path_factory.mktemp(request.param), apps)
    try:
        provider.start()
        await provider.ready()
        yield World(provider, *apps)
        provider.stop()
    finally:
        provider.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one(world: World) -> AsyncIterator[DaprSidecar]:
    sidecar = world.one.sidecar()
    yield sidecar
    await sidecar.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def two(world: World) -> AsyncIterator[DaprSidecar]:
    sidecar = world.two.sidecar()
    yield sidecar
    await sidecar.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def _inboxes(world: World) -> AsyncIterator[tuple[Inbox, Inbox]]:
    inboxes = Inbox(world.one, world.provider.missed), Inbox(world.two, world.provider.missed)
    for inbox in inboxes:
        await inbox.open()
    yield inboxes
    for inbox in inboxes:
        await inbox.close()


@pytest.fixture
def inbox_one(_inboxes: tuple[Inbox, Inbox]) -> Inbox:
    return _inboxes[0]


@pytest.fixture
def inbox_two(_inboxes: tuple[Inbox, Inbox]) -> Inbox:
    _inboxes[1].behaviours.clear()
    return _inboxes[1]


@pytest.fixture
def name() -> str:
    """What no other test uses: a key, or the beginning of event ids."""
    return uuid.uuid4().hex
