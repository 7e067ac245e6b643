"""All apps' sidecars in one process: built from the components, served, and ended in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facetmesh.kit.store import Store, StoreError
from facetmesh.sidecar import queue, state
from facetmesh.sidecar.app import App
from facetmesh.sidecar.broker import Broker
from facetmesh.sidecar.channel import AppChannel
from facetmesh.sidecar.delivery import Delivery, Terms
from facetmesh.sidecar.metrics import Metrics
from facetmesh.sidecar.resources import Resources, in_scope, load
from facetmesh.sidecar.retry import NEVER
from facetmesh.sidecar.schema import PubsubSettings, SecretsSettings, StateSettings
from facetmesh.sidecar.secrets import SecretsFileError, SecretStore
from facetmesh.sidecar.server import PortTaken, grpc_server, http_server
from facetmesh.sidecar.servicer import DaprServicer
from facetmesh.sidecar.state import StateStore

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
    from pathlib import Path

    from facetmesh.sidecar.resources import Component

_SCHEMA = state.SCHEMA + queue.SCHEMA
_TIDY_EVERY_S = 30.0
_MOST_VACUUM_PAGES = 2000
_GRACE_S = 5.0
_log = logging.getLogger(__name__)


class StartError(Exception):
    """The sidecar cannot start; the message says why."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Where one replica of an app and its sidecar find each other, all on the loopback. Port 0 asks the system."""

    app: str
    grpc_port: int
    """The sidecar's API."""
    http_port: int
    """The sidecar's health."""
    callback_port: int
    """Where the app takes events; 0 if it takes none."""
    api_token: str
    """What the sidecar asks of the app."""
    app_token: str
    """What the app asks of the sidecar."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a listener's servers really listen."""

    app: str
    grpc: int
    http: int


@contextlib.asynccontextmanager
async def open_sidecar(home: Path, components: Path, listeners: Sequence[Listener]) -> AsyncIterator[Sequence[Ports]]:
    """Serves all listeners' apps while the context is open; then settles what is under way.

    Args:
        home: Where files named in components lie.
        components: The folder of the components' files.
        listeners: The replicas of apps.

    Raises:
        ResourceError: A component's file is wrong.
        StartError: A file or a port cannot be had.
    """
    resources = load(components)
    metrics = Metrics.create()
    async with contextlib.AsyncExitStack() as stack:
        stores = _open_stores(home, resources, stack)
        names = list(dict.fromkeys(listener.app for listener in listeners))
        brokers = _brokers(resources, stores, names)
        apps = {name: _app(name, home, resources, stores, brokers) for name in names}
        try:
            for broker in brokers.values():
                await broker.start()
        except StoreError as error:
            raise StartError(str(error)) from error
        ports = [await _listen(listener, apps[listener.app], stores.values(), metrics, stack) for listener in listeners]
        deliveries = [
            delivery
            for listener in listeners
            for delivery in _deliveries(listener, apps[listener.app], resources, metrics, stack)
        ]
        async with asyncio.TaskGroup() as tasks:  # what should never fail ends the process when it does
            running = [tasks.create_task(delivery.run()) for delivery in deliveries]
            tidying = tasks.create_task(_tidy(stores.values(), brokers.values()))
            try:
                yield ports
            finally:
                tidying.cancel()
                for delivery in deliveries:
                    delivery.stop()
                if running:
                    _, late = await asyncio.wait(running, timeout=_GRACE_S)
                    for task in late:
                        task.cancel()


def _open_stores(home: Path, resources: Resources, stack: contextlib.AsyncExitStack) -> Mapping[str, Store]:
    """A store for each file that a component names, by that name."""
    stores: dict[str, Store] = {}
    for component in resources.components:
        if not isinstance(component.settings, StateSettings | PubsubSettings):
            continue
        name = component.settings.connection_string
        if name in stores:
            continue
        try:
            stores[name] = Store(home / name, _SCHEMA)
        except (StoreError, OSError) as error:
            raise StartError(f"{component.file}: spec.metadata.connectionString: {error}") from error
        stack.callback(stores[name].close)
    return stores


def _brokers(resources: Resources, stores: Mapping[str, Store], apps: Sequence[str]) -> Mapping[Component, Broker]:
    """A broker for each component that is one; the apps share it."""
    return {
        component: Broker(
            component.name,
            component.settings,
            stores[component.settings.connection_string],
            [app for app in apps if not component.scopes or app in component.scopes],
            resources.subscriptions,
        )
        for component in resources.components
        if isinstance(component.settings, PubsubSettings)
    }


def _app(
    name: str, home: Path, resources: Resources, stores: Mapping[str, Store], brokers: Mapping[Component, Broker]
) -> App:
    """An app with what is for it."""
    states: dict[str, StateStore] = {}
    secrets: dict[str, SecretStore] = {}
    own = resources.of(name).values()
    for component in own:
        settings = component.settings
        if isinstance(settings, StateSettings):
            states[component.name] = StateStore(stores[settings.connection_string])
        elif isinstance(settings, SecretsSettings):
            file = home / settings.secrets_file.replace("{appID}", name)
            try:
                secrets[component.name] = SecretStore(file, settings.nested_separator)
            except SecretsFileError as error:
                raise StartError(f"{component.file}: spec.metadata.secretsFile: {error}") from error
    return App(
        id=name,
        states=states,
        brokers={component.name: brokers[component] for component in own if component in brokers},
        secrets=secrets,
        components=list(own),
        subscriptions=list(in_scope(resources.subscriptions, name)),
    )


async def _listen(
    listener: Listener, app: App, stores: Iterable[Store], metrics: Metrics, stack: contextlib.AsyncExitStack
) -> Ports:
    async def healthy() -> bool:
        try:
            for store in stores:
                await store.check()
        except StoreError:
            return False
        return True

    try:
        server, grpc_port = grpc_server(DaprServicer(app, metrics), listener.api_token, listener.grpc_port)
        stack.push_async_callback(server.stop, _GRACE_S)
        await server.start()
        http, http_port = await http_server(healthy, metrics, listener.http_port)
        stack.push_async_callback(http.cleanup)
    except PortTaken as error:
        raise StartError(str(error)) from error
    return Ports(listener.app, grpc_port, http_port)


def _deliveries(
    listener: Listener, app: App, resources: Resources, metrics: Metrics, stack: contextlib.AsyncExitStack
) -> Sequence[Delivery]:
    if not listener.callback_port:
        return []
    channel = AppChannel(listener.callback_port, listener.app_token)
    stack.push_async_callback(channel.close)
    deliveries = []
    for broker in app.brokers.values():
        policy = resources.policy(app.id, broker.name)
        terms = Terms(
            retry=policy.retry if policy else NEVER,
            timeout_s=(policy.timeout_s if policy else None) or broker.settings.processing_timeout,
            concurrency=broker.settings.concurrency,
        )
        deliveries += [
            Delivery(broker, subscribed, channel, terms, metrics)
            for subscribed in broker.subscribed
            if subscribed.app == app.id
        ]
    return deliveries


async def _tidy(stores: Iterable[Store], brokers: Iterable[Broker]) -> None:
    """Keeps the files small."""
    while True:
        await asyncio.sleep(_TIDY_EVERY_S)
        for broker in brokers:
            await broker.tidy()
        for store in stores:
            try:
                await store.run(state.remove_expired)
                await store.run(_vacuum)
            except StoreError as error:
                _log.warning("the file could not be tidied", extra={"path": str(store.path), "detail": str(error)})


def _vacuum(connection: sqlite3.Connection) -> None:
    """Gives free pages back to the file system."""
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    for _ in range(min(free, _MOST_VACUUM_PAGES)):
        connection.execute("PRAGMA incremental_vacuum(1)")  # sqlite3 takes one step of it, whatever the number
