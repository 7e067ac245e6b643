"""`dapr run -f .` runs what `facetmesh up --sidecar daprd` runs."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from facetmesh.cli.mesh import components
from facetmesh.cli.mesh.home import Home
from facetmesh.cli.mesh.layout import Layout, Sidecar
from facetmesh.cli.mesh.ports import DEFAULT_BASE, SERVICES, Ports
from facetmesh.cli.mesh.programs import Place, programs

if TYPE_CHECKING:
    from facetmesh.cli.mesh.process import Program

ROOT = Path(__file__).resolve().parents[2]
FLAGS = {
    "daprGRPCPort": "dapr-grpc-port", "daprHTTPPort": "dapr-http-port",
    "daprInternalGRPCPort": "dapr-internal-grpc-port", "metricsPort": "metrics-port", "appPort": "app-port",
    "enableAppHealthCheck": "enable-app-health-check",
    "appHealthProbeInterval": "app-health-probe-interval", "appHealthProbeTimeout": "app-health-probe-timeout",
    "appHealthThreshold": "app-health-threshold",
}  # fmt: skip
SET_BY_DAPR = {"APP_ID", "APP_PORT", "DAPR_GRPC_PORT", "DAPR_HTTP_PORT"}


@pytest.fixture
def template() -> Any:
    return yaml.safe_load((ROOT / "dapr.yaml").read_text())


@pytest.fixture
def ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Program]:
    """What `up` runs, by name, told nothing by this environment."""
    for name in set(os.environ) - {"PATH", "HOME"}:
        monkeypatch.delenv(name)
    home = Home(tmp_path / "home")
    home.prepare()
    made = programs(Place(home, Ports(DEFAULT_BASE), 0), Layout(Sidecar.DAPRD))
    return {program.name: program for program in made}


def flags(program: Program) -> dict[str, str]:
    return dict(one[2:].split("=", 1) for one in program.command if one.startswith("--"))


def test_it_runs_the_four_services(template: Any) -> None:
    assert [app["appID"] for app in template["apps"]] == list(SERVICES)
    for app in template["apps"]:
        assert app["command"] == ["python", "-P", "-m", f"facetmesh.{app['appID']}"]
        assert importlib.util.find_spec(app["command"][-1]) is not None
        assert app["appDirPath"] == ".facetmesh"


def test_its_components_are_there(template: Any) -> None:
    (folder,) = template["common"]["resourcesPaths"]
    assert ROOT / folder == components.own()
    assert ROOT / template["common"]["configFilePath"] == components.own() / "configuration.yaml"
    assert template["common"]["appProtocol"] == "grpc"


@pytest.mark.parametrize("service", SERVICES)
def test_each_sidecar_is_told_what_up_tells_it(template: Any, ours: dict[str, Program], service: str) -> None:
    app = next(app for app in template["apps"] if app["appID"] == service)
    told = flags(ours[f"daprd-{service}"])
    here = {flag: str(app[name]).lower() for name, flag in FLAGS.items() if name in app}
    assert here == {flag: told[flag] for flag in FLAGS.values() if flag in told}


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_is_told_what_up_tells_it(template: Any, ours: dict[str, Program], service: str) -> None:
    app = next(app for app in template["apps"] if app["appID"] == service)
    here = {name: str(value) for name, value in (template["common"]["env"] | app["env"]).items()}
    told = {name: value for name, value in ours[service].environment.items() if name not in {"PATH", "HOME"}}
    assert here.pop("FACETMESH_HOME") == "."
    del told["FACETMESH_HOME"]
    secret = {name for name in told if name.endswith("_TOKEN")}
    assert secret >= {"APP_API_TOKEN", "DAPR_API_TOKEN"}
    assert here == {name: value for name, value in told.items() if name not in SET_BY_DAPR | secret}
