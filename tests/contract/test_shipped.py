"""The components that facetmesh ships keep the services apart, and let each do what it must."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import pytest
import pytest_asyncio
import yaml
from dapr.proto import api_v1

from facetmesh.kit.errors import FailedPrecondition

from .harness import App, Inbox, until
from .providers import BY_NAME, PROVIDERS, Provider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVICES = ("auth", "detection", "fusion", "audit")


@dataclass(frozen=True)
class Mesh:
    """The four services' sidecars."""

    provider: Provider
    apps: dict[str, App]

    def scopes(self, setting: str) -> dict[str, frozenset[str]]:
        """What pubsub.yaml says of each service."""
        component = yaml.safe_load((self.provider.components / "pubsub.yaml").read_text())
        (value,) = (item["value"] for item in component["spec"]["metadata"] if item["name"] == setting)
        apps = (part.partition("=") for part in value.split(";"))
        return {app: frozenset(filter(None, topics.split(","))) for app, _, topics in apps}

    @property
    def topics(self) -> list[str]:
        """All that there are."""
        component = yaml.safe_load((self.provider.components / "pubsub.yaml").read_text())
        (value,) = (item["value"] for item in component["spec"]["metadata"] if item["name"] == "allowedTopics")
        return sorted(value.split(","))


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PROVIDERS)
async def mesh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Mesh]:
    apps = {name: App(name) for name in SERVICES}
    home = tmp_path_factory.mktemp(request.param)
    provider = BY_NAME[request.param](home, list(apps.values()), resources="shipped")
    try:
        provider.start()
        await provider.ready()
        yield Mesh(provider, apps)
        provider.stop()
    finally:
        provider.close()


async def test_nobody_reads_anothers_state(mesh: Mesh) -> None:
    key = uuid.uuid4().hex
    for name, app in mesh.apps.items():
        sidecar = app.sidecar()
        assert await sidecar.state().get(key) is None
        await sidecar.state().put(key, name.encode(), create=True)
        for other in SERVICES:
            with pytest.raises(FailedPrecondition):
                await sidecar.state().get(f"{other}||{key}")
        await sidecar.close()
    for name, app in mesh.apps.items():
        sidecar = app.sidecar()
        entry = await sidecar.state().get(key)
        assert entry is not None
        assert entry.value == name.encode()
        await sidecar.close()


async def test_nobody_reads_anothers_secrets(mesh: Mesh) -> None:
    for name, app in mesh.apps.items():
        async with app.stub() as stub:
            found = await stub.GetBulkSecret(
                api_v1.GetBulkSecretRequest(store_name="secrets"), metadata=app.metadata
            )
            assert found.data["password"].secrets == {"password": f"secret of {name}"}
            assert set(found.data) == {"password", "nested:inner"}
            for path in ("../audit.json", "secrets/audit.json", "audit"):
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub.GetSecret(
                        api_v1.GetSecretRequest(store_name="secrets", key=path), metadata=app.metadata
                    )


@pytest.mark.parametrize("name", SERVICES)
async def test_each_publishes_what_is_its_own_and_nothing_else(mesh: Mesh, name: str) -> None:
    allowed = mesh.scopes("publishingScopes")[name]
    assert allowed
    sidecar = mesh.apps[name].sidecar()
    for topic in (*mesh.topics, "another"):
        publishing = sidecar.publisher().publish(topic, b"x", event_id=uuid.uuid4().hex, type="t")
        if topic in allowed:
            await publishing
        else:
            with pytest.raises(FailedPrecondition):
                await publishing
    await sidecar.close()


async def test_each_hears_what_it_subscribes_to_and_nothing_else(mesh: Mesh) -> None:
    heard = mesh.scopes("subscriptionScopes")
    inboxes = {name: Inbox(mesh.apps[name], mesh.provider.missed, mesh.topics) for name in SERVICES if heard[name]}
    for inbox in inboxes.values():
        await inbox.open()
    event_id = uuid.uuid4().hex
    publishers = {topic: name for name, topics in mesh.scopes("publishingScopes").items() for topic in topics}
    for topic in sorted(publishers):
        sidecar = mesh.apps[publishers[topic]].sidecar()
        await sidecar.publisher().publish(topic, b"x", event_id=event_id, type="t")
        await sidecar.close()

    def had() -> dict[str, set[str]]:
        return {name: {t for t in mesh.topics if inbox.ids(t, event_id)} for name, inbox in inboxes.items()}

    await until(lambda: all(had()[name] >= heard[name] for name in inboxes), f"all that is theirs arrives: {heard}")
    assert had() == {name: set(heard[name]) for name in inboxes}
    for inbox in inboxes.values():
        await inbox.close()


async def test_nobody_calls_another_through_its_sidecar(mesh: Mesh) -> None:
    app = mesh.apps["detection"]
    async with app.stub() as stub:
        for target in ("auth", "detection"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.InvokeService(api_v1.InvokeServiceRequest(id=target), metadata=app.metadata)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
