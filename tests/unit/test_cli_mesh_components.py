"""A component file with a wrong field ends the start before there is a process, with the file and the field named."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from facetmesh.cli.mesh import components
from facetmesh.kit import shipped
from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of components/redis, to be spoilt."""
    copy = tmp_path / "components"
    shutil.copytree(shipped.folder("components", "redis"), copy)
    return copy


def spoil(file: Path, change: Callable[[Any], object]) -> None:
    """Changes the first resource in file."""
    documents = list(yaml.safe_load_all(file.read_text()))
    change(documents[0])
    file.write_text(yaml.safe_dump_all(documents))


def refusal(folder: Path) -> FailedPrecondition:
    with pytest.raises(FailedPrecondition) as caught:
        components.check(folder)
    assert caught.value.reason == "COMPONENT_INVALID"
    return caught.value


def test_those_for_daprd_are_as_they_should_be() -> None:
    resources = components.check(components.own())
    assert set(resources.components) == {"state", "pubsub", "secrets"}
    assert [app for app in ("auth", "detection", "fusion", "audit") if resources.subscribes(app)] == [
        "detection", "fusion", "audit",
    ]  # fmt: skip


def setting(name: str, value: str) -> Callable[[Any], object]:
    """Gives a component's setting another value, or adds it."""

    def change(component: Any) -> None:
        metadata = component["spec"]["metadata"]
        metadata[:] = [item for item in metadata if item["name"] != name]
        metadata.append({"name": name, "value": value})

    return change


@pytest.mark.parametrize(
    ("file", "change", "field"),
    [
        ("pubsub.yaml", setting("redeliverIntervall", "5000"), "spec.metadata.redeliverIntervall"),
        ("pubsub.yaml", setting("redeliverInterval", "15s"), "spec.metadata.redeliverInterval"),
        ("pubsub.yaml", setting("concurrency", "many"), "spec.metadata.concurrency"),
        ("pubsub.yaml", setting("publishingScopes", "auth"), "spec.metadata.publishingScopes"),
        ("pubsub.yaml", setting("allowedTopics", "audit.events"), "spec.metadata.publishingScopes"),
        ("pubsub.yaml", lambda one: one["spec"].update(verion="v1"), "spec.verion"),
        ("pubsub.yaml", lambda one: one["spec"].pop("version"), "spec.version"),
        ("pubsub.yaml", lambda one: one["metadata"].pop("name"), "metadata.name"),
        ("pubsub.yaml", lambda one: one.update(kind="Komponent"), "kind"),
        ("pubsub.yaml", lambda one: one.update(apiVersion="dapr.io/v2"), "apiVersion"),
        ("pubsub.yaml", lambda one: one.update(scopes="audit"), "scopes"),
        ("pubsub.yaml", lambda one: one.update(spec=[]), "spec"),
        ("state.yaml", lambda one: one["metadata"].update(name="pubsub"), "metadata.name"),
        ("subscriptions.yaml", lambda one: one["spec"].update(pubsubname="nowhere"), "spec.pubsubname"),
        ("subscriptions.yaml", lambda one: one["spec"].update(deadLetterTopic="x"), "spec.deadLetterTopic"),
        ("subscriptions.yaml", lambda one: one["spec"].update(topic="fusion.jobs"), "spec.topic"),
        ("resiliency.yaml", lambda one: one["spec"]["policies"]["timeouts"].update(handling="soon"),
         "spec.policies.timeouts.handling"),
        ("resiliency.yaml", lambda one: one["spec"]["targets"]["components"]["pubsub"]["inbound"].update(retry="no"),
         "spec.targets.components.pubsub.inbound.retry"),
        ("resiliency.yaml", lambda one: one["spec"]["targets"]["components"].update(other={"inbound": {}}),
         "spec.targets.components.other"),
        ("configuration.yaml", lambda one: one["spec"]["api"]["allowed"].append({"name": "invoke"}),
         "spec.api.allowed.6.version"),
        ("configuration.yaml", lambda one: one["spec"]["accessControl"].update(defaultAction="refuse"),
         "spec.accessControl.defaultAction"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_its_file(
    folder: Path, file: str, change: Callable[[Any], object], field: str
) -> None:
    spoil(folder / file, change)
    refused = refusal(folder)
    assert refused.metadata["field"] == field
    assert field in refused.message
    # Of two with one name, the later file is told.
    assert refused.metadata["file"] in {str(folder / file), *map(str, folder.glob("s*.yaml"))}


def test_a_type_that_we_do_not_ship_is_daprds_to_judge(folder: Path) -> None:
    spoil(folder / "state.yaml", lambda one: one["spec"].update(type="state.mongodb"))
    components.check(folder)


def test_what_is_no_yaml_is_named(folder: Path) -> None:
    (folder / "more.yml").write_text("a: [")
    assert str(folder / "more.yml") in refusal(folder).message
    (folder / "more.yml").write_bytes(b"\xff")
    assert str(folder / "more.yml") in refusal(folder).message
    (folder / "more.yml").write_text("just text")
    assert refusal(folder).metadata["field"] == "kind"


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    assert str(tmp_path) in refusal(tmp_path).message
