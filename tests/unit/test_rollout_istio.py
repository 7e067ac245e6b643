"""Rollouts in Istio: the route of a rollout, and what is made of it and of aliases at each step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer
from tests.unit.test_rollout_rollouts import models

from facetmesh.detection.rollout import routes
from facetmesh.detection.rollout.__main__ import RolloutSettings
from facetmesh.detection.rollout.istio import CANARY, GATEWAY, MESH, Istio
from facetmesh.detection.rollout.kubernetes import FIELD_MANAGER, Account, Resources
from facetmesh.detection.rollout.plan import Plan, Step
from facetmesh.detection.rollout.record import Rollout, State
from facetmesh.detection.splits import Traffic
from facetmesh.kit.errors import Aborted, FacetmeshError, FailedPrecondition, NotFound, Unavailable

from .certificates import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from facetmesh.detection.models import Models

__all__ = ["models"]
K8S = Path(__file__).resolve().parents[2] / "k8s"
NAME = "tenants/acme/models/faces/rollouts/first"
OTHER = Rollout("tenants/globex/models/faces/rollouts/first", 1, 2)
PLAN = Plan((Step(0, 10), Step(25), Step(100)))


def at(step: int) -> Rollout:
    return Rollout(NAME, 1, 2, PLAN, state=State.RUNNING, step=step)


def services() -> dict[str, Any]:
    """The VirtualServices of our manifests, by name."""
    found = yaml.safe_load_all((K8S / "istio" / "mesh" / "routes.yaml").read_text())
    return {one["metadata"]["name"]: one for one in found if one["metadata"]["name"].startswith("detection")}


def test_the_manifests_give_the_controller_what_it_reads_and_what_it_changes() -> None:
    found = {one["kind"]: one for one in yaml.safe_load_all((K8S / "base" / "rollout.yaml").read_text())}
    (container,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    given = {one["name"] for one in container["env"]}
    assert given <= {f"FACETMESH_{name.upper()}" for name in RolloutSettings.model_fields}
    (rule,) = found["Role"]["rules"]
    assert (set(rule["resourceNames"]), rule["verbs"]) == ({GATEWAY, MESH}, ["get", "patch"])
    subset = yaml.safe_load((K8S / "base" / "detection" / "subset" / "deployment.yaml").read_text())
    assert {"name": "FACETMESH_ROLLOUTS", "value": "elsewhere"} in (
        subset["spec"]["template"]["spec"]["containers"][0]["env"]
    )


class Server:
    """Kubernetes' API in memory, as far as a rollout uses it."""

    def __init__(self) -> None:
        self.services = services()
        for one in self.services.values():
            one["metadata"]["resourceVersion"] = "1"
        self.applied = 0

    async def get(self, path: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self.services[path.rpartition("/")[2]]
        except KeyError:
            raise NotFound("There is none.", reason="KUBERNETES_NOT_FOUND") from None
        return found

    async def apply(self, path: str, fields: Mapping[str, Any]) -> None:
        there = self.services[path.rpartition("/")[2]]
        assert fields["metadata"]["resourceVersion"] == there["metadata"]["resourceVersion"]
        there["spec"]["http"] = fields["spec"]["http"]
        self.applied += 1

    def weights(self, name: str = "detection-ingress") -> dict[str, int]:
        """Of the rollout's route; nothing where there is none."""
        own = [one for one in self.services[name]["spec"]["http"] if one["name"].startswith("rollout.")]
        return {one["destination"]["subset"]: one["weight"] for route in own for one in route["route"]}


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def istio(models: Models, server: Server) -> Istio:
    return Istio(models, server, "facetmesh")


def test_the_route_leaves_rehearsals_alone() -> None:
    (component,) = yaml.safe_load_all((K8S / "variants" / "faults" / "kustomization.yaml").read_text())
    patches = {one["target"]["name"]: yaml.safe_load(one["patch"]) for one in component["patches"]}
    (operation,) = patches[GATEWAY]
    before = services()[GATEWAY]["spec"]["http"]
    before.insert(int(operation["path"].rpartition("/")[2]), operation["value"])
    after = routes.with_rollout(before, at(1), 25, claims=True)
    assert [one["name"] for one in after] == ["testers", "rehearsal", "rollout.acme.faces", "streams", "split"]


def test_the_route_comes_after_those_for_testers_and_before_all_others() -> None:
    before = services()["detection-ingress"]["spec"]["http"]
    after = routes.with_rollout(before, at(1), 25, claims=True)
    assert [one["name"] for one in after] == ["testers", "rollout.acme.faces", "streams", "split"]
    assert after[1]["match"] == [{
        **before[2]["match"][0],
        "headers": {"x-facetmesh-model": {"exact": "tenants/acme/models/faces"},
                    "x-facetmesh-tenant": {"exact": "tenants/acme"}},
    }]  # fmt: skip
    assert [one["weight"] for one in after[1]["route"]] == [75, 25]
    assert [one["weight"] for one in after[3]["route"]] == [100, 0]
    assert after[1]["retries"] == before[2]["retries"]


def test_rollouts_of_tenants_stand_side_by_side_and_go_one_by_one() -> None:
    before = services()["detection"]["spec"]["http"]
    both = routes.with_rollout(routes.with_rollout(before, OTHER, 50, claims=False), at(1), 25, claims=False)
    assert routes.with_rollout(both, at(1), 25, claims=False) == both
    assert routes.without_rollout(routes.without_rollout(both, at(1)), OTHER) == before
    assert [one["name"] for one in routes.without_rollout(both, OTHER)][1] == "rollout.acme.faces"


async def test_steps_change_weights_and_the_end_leaves_no_trace(
    istio: Istio, server: Server, models: Models
) -> None:
    await istio.apply(at(0))
    model = await models.get("acme", "faces")
    assert (model.traffic, server.weights()) == (Traffic((), "none", "2", 10), {})
    await istio.apply(at(1))
    model = await models.get("acme", "faces")
    assert (model.traffic, model.aliases[CANARY]) == (Traffic(), 2)
    assert server.weights() == server.weights("detection") == {"v1": 75, "v2": 25}
    applied = server.applied
    await istio.apply(at(1))
    assert server.applied == applied  # it is so already
    await istio.apply(at(2))
    assert server.weights() == {"v1": 0, "v2": 100}
    await istio.promote(at(2))
    assert (await models.get("acme", "faces")).aliases == {"stable": 2}
    assert server.services == {**Server().services}


async def test_a_rollback_leaves_no_trace_either(istio: Istio, server: Server, models: Models) -> None:
    await istio.apply(at(1))
    await istio.withdraw(at(1))
    assert (await models.get("acme", "faces")).aliases == {"stable": 1}
    assert server.services == Server().services
    await models.delete(await models.get("acme", "faces"))
    await istio.withdraw(at(1))


async def test_what_is_gone_has_nothing_to_be_taken_away(istio: Istio, server: Server, models: Models) -> None:
    await istio.apply(at(1))
    server.services.clear()
    with pytest.raises(NotFound):
        await istio.apply(at(1))
    await istio.withdraw(at(1))
    assert (await models.get("acme", "faces")).aliases == {"stable": 1}


async def test_a_virtual_service_without_routes_is_refused(istio: Istio, server: Server) -> None:
    del server.services["detection-ingress"]["spec"]["http"]
    with pytest.raises(FailedPrecondition) as refused:
        await istio.apply(at(1))
    assert refused.value.reason == "ROUTE_MISSING"


async def test_routes_that_are_not_ours_are_left_alone(istio: Istio, server: Server) -> None:
    server.services["detection-ingress"]["spec"]["http"].pop()
    with pytest.raises(FailedPrecondition) as refused:
        await istio.apply(at(1))
    assert refused.value.reason == "ROUTE_MISSING"


async def _page(_: web.Request) -> web.Response:
    return web.Response(text="<html>Please log in.</html>", content_type="text/html")


@pytest.fixture
async def answering(tmp_path: Path) -> AsyncIterator[tuple[Resources, list[Any]]]:
    """An API server that answers with the status in the path, and what it was asked."""
    asked: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.method, request.query_string, request.headers["Authorization"]))
        return web.json_response({"kind": "Thing"}, status=int(request.match_info["status"]))

    app = web.Application()
    app.router.add_route("*", "/{status}", answer)
    app.router.add_get("/page/200", _page)
    token, authority = tmp_path / "token", tmp_path / "ca.pem"
    token.write_text("secret\n")
    authority.write_bytes(Authority().pem)
    async with TestServer(app) as server:
        resources = Resources(Account(str(server.make_url("")).rstrip("/"), token, authority))
        yield resources, asked
        await resources.close()


async def test_the_api_server_is_asked_as_our_field_manager(answering: tuple[Resources, list[Any]]) -> None:
    resources, asked = answering
    assert await resources.get("/200") == {"kind": "Thing"}
    await resources.apply("/200", {})
    assert asked == [
        ("GET", "", "Bearer secret"), ("PATCH", f"fieldManager={FIELD_MANAGER}&force=true", "Bearer secret"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, NotFound), (409, Aborted), (403, FailedPrecondition), (422, FailedPrecondition), (500, Unavailable),
     (429, Unavailable)],
)  # fmt: skip
async def test_what_the_api_server_refuses(
    answering: tuple[Resources, list[Any]], status: int, error: type[FacetmeshError]
) -> None:
    with pytest.raises(error):
        await answering[0].get(f"/{status}")


async def test_an_api_server_that_is_gone_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    (tmp_path / "ca.pem").write_bytes(Authority().pem)
    resources = Resources(Account("http://127.0.0.1:9", tmp_path / "token", tmp_path / "ca.pem"))
    with pytest.raises(Unavailable) as away:
        await resources.get("/200")
    assert away.value.reason == "KUBERNETES_UNAVAILABLE"
    (tmp_path / "token").unlink()  # it is being renewed, say
    with pytest.raises(Unavailable):
        await resources.get("/200")
    await resources.close()


async def test_who_answers_in_its_place_is_not_believed(answering: tuple[Resources, list[Any]]) -> None:
    with pytest.raises(Unavailable) as away:
        await answering[0].get("/page/200")
    assert away.value.reason == "KUBERNETES_UNAVAILABLE"
