"""What the manifests say that can be checked without a cluster; tests/cluster has the real API server."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from facetmesh.kit.settings import ServiceSettings

BASE = Path(__file__).resolve().parents[2] / "k8s" / "base"
SERVICES = ("auth", "detection", "fusion", "audit")
DAPRS_OWN = {"APP_PORT"}
OTHERS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "FACETMESH_CACHE"}
"""What libraries, or all programs of ours, read."""


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def settings(service: str) -> type[ServiceSettings]:
    module = importlib.import_module(f"facetmesh.{service}.__main__")
    (found,) = (
        one for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, ServiceSettings) and one is not ServiceSettings
    )
    return found


def variables(service: str) -> set[str]:
    """What the service reads from its environment."""
    fields = settings(service).model_fields.items()
    return {str(field.validation_alias or f"FACETMESH_{name.upper()}") for name, field in fields}


def given(service: str) -> set[str]:
    """What the manifests tell a service."""
    files = [*BASE.glob(f"{service}.yaml"), *(BASE / service).rglob("*.yaml")]
    found = [document for file in files for document in documents(file)]
    deployments = [document for document in found if document["kind"] == "Deployment"]
    patches = [patch["patch"] for document in found for patch in document.get("patches", ())]
    templates = [one["spec"].get("template") for one in (*deployments, *map(yaml.safe_load, patches))]
    containers = [one for template in templates if template for one in template["spec"]["containers"]]
    return {variable["name"] for container in containers for variable in container.get("env", ())}


def common() -> set[str]:
    (kustomization,) = documents(BASE / "kustomization.yaml")
    (mesh,) = (one for one in kustomization["configMapGenerator"] if one["name"] == "mesh")
    return {literal.partition("=")[0] for literal in mesh["literals"]}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_told_only_what_it_reads(service: str) -> None:
    assert given(service) <= variables(service) | OTHERS


def test_all_services_are_told_only_what_some_read() -> None:
    assert common() <= set.union(*(variables(service) for service in SERVICES)) | OTHERS


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_told_all_that_it_needs(service: str) -> None:
    needed = {
        f"FACETMESH_{name.upper()}" for name, field in settings(service).model_fields.items() if field.is_required()
    }
    assert needed <= given(service) | common()


def test_a_service_and_its_sidecar_recognise_each_other() -> None:
    """Dapr's injector puts tokens into the sidecar alone."""
    (every,) = documents(BASE / "every-service.yaml")
    template = every["spec"]["template"]
    (service,) = template["spec"]["containers"]
    held = {one["name"]: one["valueFrom"]["secretKeyRef"] for one in service["env"]}
    for variable, token in (("DAPR_API_TOKEN", "api"), ("APP_API_TOKEN", "app")):
        name = template["metadata"]["annotations"][f"dapr.io/{token}-token-secret"]
        assert held[variable] == {"name": name, "key": "token"}


def test_where_prometheus_is_is_said_once() -> None:
    """Else rollouts and autoscalers could ask different ones."""
    said = [path.name for path in BASE.parent.rglob("*.yaml") if "prometheus-operated" in path.read_text()]
    assert said == ["rollout.yaml"]
    (component,) = documents(BASE.parent / "autoscaling" / "prometheus" / "kustomization.yaml")
    (replacement,) = component["replacements"]
    assert replacement["source"]["fieldPath"].endswith("[name=FACETMESH_PROMETHEUS_URL].value")
    for scaled in documents(BASE.parent / "autoscaling" / "detection.yaml"):
        for trigger in scaled["spec"]["triggers"]:
            assert (trigger["type"], trigger["metadata"].get("serverAddress")) == ("prometheus", None)


def test_istio_is_told_of_each_service_by_its_name() -> None:
    """`istioctl analyze` of a cluster knows no service by a pattern, and warns."""
    rules = documents(BASE.parent / "istio" / "mesh" / "destinations.yaml")
    hosts = sorted(rule["spec"]["host"] for rule in rules)
    assert hosts == [f"{service}.facetmesh.svc.cluster.local" for service in sorted(SERVICES)]


def test_no_secret_stands_in_a_manifest() -> None:
    for path in BASE.parent.rglob("*.yaml"):
        for document in documents(path):
            assert document.get("kind") != "Secret", path


@pytest.mark.parametrize("signal", ["traces", "logs"])
def test_the_collectors_pipeline_is_of_parts_that_are_there(signal: str) -> None:
    folder = BASE.parent / "collector"
    (config,) = documents(folder / "config" / f"{signal}.yaml")
    (pipeline,) = config["service"]["pipelines"].values()
    for part in ("receivers", "processors", "exporters"):
        assert set(pipeline[part]) == set(config[part]), part
    assert set(config["service"]["extensions"]) == set(config["extensions"])
    # Whatever else is done to what comes: memory is limited first, and it leaves in batches.
    assert (pipeline["processors"][0], pipeline["processors"][-1]) == ("memory_limiter", "batch")
    (pods,) = (one for one in documents(folder / f"{signal}.yaml") if one["kind"] in {"Deployment", "DaemonSet"})
    (container,) = pods["spec"]["template"]["spec"]["containers"]
    assert container["args"] == [f"--config=/etc/otel/{signal}.yaml"]


def test_services_send_their_traces_where_the_collector_listens() -> None:
    (overlay,) = documents(BASE.parent / "overlays" / "production" / "kustomization.yaml")
    (mesh,) = overlay["configMapGenerator"]
    (literal,) = mesh["literals"]
    service = next(one for one in documents(BASE.parent / "collector" / "traces.yaml") if one["kind"] == "Service")
    (grpc,) = (port["port"] for port in service["spec"]["ports"] if port["name"].startswith("grpc"))
    name = service["metadata"]["name"]
    assert literal == f"OTEL_EXPORTER_OTLP_ENDPOINT=http://{name}.observability:{grpc}"
