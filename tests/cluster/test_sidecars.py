"""Our Pods, as the API server has them after Dapr's injector, its real mutating webhook, has seen them."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from . import injector
from .conftest import K8S

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

    from .controlplane import ControlPlane

pytestmark = pytest.mark.full

SIDECAR, SERVICE = "daprd", "service"
REPLICASETS = "system:serviceaccount:kube-system:replicaset-controller"
"""Who makes the Pods of Deployments: the injector asks who does."""


@pytest.fixture(scope="module")
def webhook(cluster: ControlPlane) -> Iterator[ControlPlane]:
    """A cluster in which Dapr's injector is asked about each new Pod."""
    try:
        injector.start(cluster)
        yield cluster
    finally:
        injector.stop(cluster)


@pytest.fixture(scope="module")
def rendered(webhook: ControlPlane) -> list[dict[str, Any]]:
    """What an overlay makes, of which what Pods need to be admitted is there."""
    made = list(yaml.safe_load_all(webhook.kubectl("kustomize", str(K8S / "overlays" / "production")).stdout))
    webhook.apply(*(one for one in made if one["kind"] in {"Namespace", "ServiceAccount", "PriorityClass"}))
    return made


def pod(deployment: Any) -> dict[str, Any]:
    """A Pod as a Deployment's would be."""
    template, own = deployment["spec"]["template"], deployment["metadata"]
    metadata = {**template["metadata"], "name": own["name"], "namespace": own["namespace"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def admission(cluster: ControlPlane, *pods: Any, check: bool = True) -> subprocess.CompletedProcess[str]:
    """What the API server says of Pods, of which none comes to be."""
    listed = {"apiVersion": "v1", "kind": "List", "items": pods}
    return cluster.kubectl(
        "create", "--dry-run=server", "--output=yaml", "--filename=-", f"--as={REPLICASETS}",
        stdin=json.dumps(listed), check=check,
    )  # fmt: skip


@pytest.fixture(scope="module")
def admitted(webhook: ControlPlane, rendered: list[dict[str, Any]]) -> list[Any]:
    """One Pod of each of our Deployments, as it would come to be."""
    said = admission(webhook, *(pod(one) for one in rendered if one["kind"] == "Deployment"))
    return list(yaml.safe_load_all(said.stdout))


def containers(pod: Any) -> tuple[Any, Any]:
    """The sidecar and the service."""
    by_name = {one["name"]: one for one in pod["spec"]["containers"]}
    assert by_name.keys() == {SIDECAR, SERVICE}, pod["metadata"]["name"]
    return by_name[SIDECAR], by_name[SERVICE]


def arguments(container: Any) -> dict[str, str]:
    """Its program's options; those that are flags have no value."""
    words = container["args"]
    pairs = zip(words, [*words[1:], "--"], strict=True)
    return {one: "" if two.startswith("--") else two for one, two in pairs if one.startswith("--")}


def environment(container: Any) -> dict[str, Any]:
    """Its variables: values, or where those are."""
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def test_each_of_our_pods_comes_back_with_its_sidecar(admitted: list[Any], rendered: list[dict[str, Any]]) -> None:
    apps = {}
    for pod in admitted:
        sidecar, _ = containers(pod)
        given = arguments(sidecar)
        assert sidecar["image"] == injector.IMAGE
        assert given["--mode"] == "kubernetes"
        assert "--enable-mtls" in given
        assert "--enable-app-health-check" in given
        assert sidecar["resources"]["limits"]["memory"] == "512Mi"
        apps[pod["metadata"]["name"]] = given["--app-id"]
    assert apps == {
        "audit": "audit", "auth": "auth", "detection-v1": "detection", "detection-v2": "detection",
        "fusion": "fusion", "fusion-worker": "fusion", "rollout": "detection",
    }  # fmt: skip
    # A component that names an app that is none would be nobody's.
    scoped = {app for one in rendered for app in one.get("scopes", ())}
    assert scoped == set(apps.values())


def test_a_sidecar_has_our_configuration_and_reaches_its_service(
    admitted: list[Any], rendered: list[dict[str, Any]]
) -> None:
    configurations = {one["metadata"]["name"] for one in rendered if one["kind"] == "Configuration"}
    (mesh,) = (
        one["data"] for one in rendered if one["kind"] == "ConfigMap" and one["metadata"]["name"].startswith("mesh")
    )
    for pod in admitted:
        sidecar, service = containers(pod)
        given, told = arguments(sidecar), environment(service)
        assert {given["--config"]} == configurations
        assert given["--app-port"] == mesh["APP_PORT"]
        assert given["--app-protocol"] == "grpc"
        assert told["DAPR_GRPC_PORT"] == given["--dapr-grpc-port"]
        assert told["DAPR_HTTP_PORT"] == given["--dapr-http-port"]


def test_sidecar_and_service_recognise_each_other(admitted: list[Any]) -> None:
    for pod in admitted:
        sidecar, service = map(environment, containers(pod))
        for token, secret in (("DAPR_API_TOKEN", "dapr-api-token"), ("APP_API_TOKEN", "dapr-app-token")):
            held = {"secretKeyRef": {"name": secret, "key": "token"}}
            assert sidecar[token] == service[token] == held, pod["metadata"]["name"]


def test_only_sidecars_and_the_controller_of_rollouts_may_ask_the_api_server(admitted: list[Any]) -> None:
    for pod in admitted:
        for container in containers(pod):
            has = any(one["name"] == "kube-api" for one in container["volumeMounts"])
            assert has == (container["name"] == SIDECAR or pod["metadata"]["name"] == "rollout")


def test_the_namespace_takes_no_sidecar_with_capabilities(webhook: ControlPlane, admitted: list[Any]) -> None:
    """Which is why Dapr's chart must be told to drop them (docs/kubernetes.md): by itself it does not."""
    (auth,) = (copy.deepcopy(one) for one in admitted if one["metadata"]["name"] == "auth")
    del auth["spec"]["topologySpreadConstraints"]  # the server has filled them in, and takes them so from nobody
    sidecar, _ = containers(auth)
    assert sidecar["securityContext"].pop("capabilities") == {"drop": ["ALL"]}
    refused = admission(webhook, auth, check=False)
    assert refused.returncode != 0
    assert "violates PodSecurity" in refused.stderr
    assert SIDECAR in refused.stderr


def test_who_wants_no_sidecar_gets_none(webhook: ControlPlane, rendered: list[dict[str, Any]]) -> None:
    (auth,) = (pod(one) for one in rendered if (one["kind"], one["metadata"]["name"]) == ("Deployment", "auth"))
    del auth["metadata"]["annotations"]["dapr.io/enabled"]
    made = yaml.safe_load(admission(webhook, auth).stdout)
    assert [one["name"] for one in made["spec"]["containers"]] == [SERVICE]
