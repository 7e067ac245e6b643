"""The shipped folders of components say the same of who may do what, whatever is behind them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from facetmesh.cli.mesh import components
from facetmesh.cli.mesh.dapr_fields import topics_by_app

ROOT = Path(__file__).resolve().parents[2] / "components"
FOLDERS = {
    "embedded": [ROOT / "embedded"],
    "redis": [ROOT / "redis"],
    "kubernetes with kafka": [ROOT / "kubernetes" / "base", ROOT / "kubernetes" / "kafka"],
    "kubernetes with redis": [ROOT / "kubernetes" / "base", ROOT / "kubernetes" / "redis"],
}
SERVICES = {"auth", "detection", "fusion", "audit"}


@pytest.fixture(params=FOLDERS)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The files of one, together."""
    for part in FOLDERS[request.param]:
        for file in part.glob("*.yaml"):
            if file.name != "kustomization.yaml":
                shutil.copy(file, tmp_path)
    return tmp_path


def resources(folder: Path, kind: str) -> list[Any]:
    found = [one for file in folder.glob("*.yaml") for one in yaml.safe_load_all(file.read_text())]
    return [one for one in found if one["kind"] == kind]


def setting(folder: Path, name: str) -> str:
    (pubsub,) = (one for one in resources(folder, "Component") if one["metadata"]["name"] == "pubsub")
    (value,) = (item["value"] for item in pubsub["spec"]["metadata"] if item["name"] == name)
    return str(value)


def test_daprd_understands_all_of_it(folder: Path) -> None:
    if (folder / "configuration.yaml").exists():
        components.check(folder)


def test_each_component_is_for_the_services_alone(folder: Path) -> None:
    found = resources(folder, "Component")
    assert {one["metadata"]["name"] for one in found} == {"state", "pubsub", "secrets"}
    assert all(set(one["scopes"]) == SERVICES for one in found)


def test_who_subscribes_to_what_is_the_same_everywhere(folder: Path) -> None:
    def subscriptions(of: Path) -> dict[str, tuple[str, frozenset[str]]]:
        return {
            one["spec"]["topic"]: (one["spec"]["deadLetterTopic"], frozenset(one["scopes"]))
            for one in resources(of, "Subscription")
        }

    assert subscriptions(folder) == subscriptions(ROOT / "redis")
    heard = {app: set() for app in SERVICES}
    for topic, (_, apps) in subscriptions(folder).items():
        for app in apps:
            heard[app].add(topic)
    assert heard == topics_by_app(setting(folder, "subscriptionScopes"))


def test_who_publishes_what_is_the_same_everywhere(folder: Path) -> None:
    def published(of: Path) -> dict[str, set[str]]:
        scopes = topics_by_app(setting(of, "publishingScopes"))
        return {app: {topic for topic in topics if not topic.endswith(".dead")} for app, topics in scopes.items()}

    assert published(folder) == published(ROOT / "redis")
    assert set(published(folder)) == SERVICES
    assert setting(folder, "allowedTopics") == setting(ROOT / "redis", "allowedTopics")


def test_what_a_sidecar_offers_is_the_same_in_a_cluster() -> None:
    here, there = (
        yaml.safe_load((folder / "configuration.yaml").read_text())["spec"]
        for folder in (ROOT / "redis", ROOT / "kubernetes" / "base")
    )
    assert here["api"] == there["api"]
    assert here["accessControl"]["defaultAction"] == there["accessControl"]["defaultAction"] == "deny"


@pytest.mark.parametrize("broker", ["kafka", "redis"])
def test_a_kustomization_names_every_file(broker: str) -> None:
    for folder in (ROOT / "kubernetes" / "base", ROOT / "kubernetes" / broker):
        named = set(yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]) - {"../base"}
        assert named == {file.name for file in folder.glob("*.yaml")} - {"kustomization.yaml"}
