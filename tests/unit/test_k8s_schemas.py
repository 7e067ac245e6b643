"""Our resources of Istio, Dapr, KEDA and the Prometheus operator, held to the schemas of their definitions.

What the API server does with its expressions on top of these, tests/cluster sees.
"""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]
GROUPS = ("istio.io", "dapr.io", "keda.sh", "monitoring.coreos.com")
_OWN = {"apiVersion", "kind", "metadata"}
_FETCH_S = 600

Key = tuple[str, str]


def resources() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each resource of a kind that others define, and where it stands."""
    for folder in ("k8s", "components/kubernetes"):
        for path in sorted((ROOT / folder).rglob("*.yaml")):
            for document in yaml.safe_load_all(path.read_text()):
                group = (document or {}).get("apiVersion", "").rpartition("/")[0]
                if any(group == known or group.endswith(f".{known}") for known in GROUPS):
                    where = f"{path.relative_to(ROOT)}: {document['kind']} {document['metadata']['name']}"
                    yield where, document


@pytest.fixture(scope="module")
def schemas() -> Mapping[Key, Any]:
    """The schemas that are needed, by apiVersion and kind."""
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "definitions.py"], stdout=subprocess.PIPE, text=True, check=True,
        timeout=_FETCH_S,
    )
    wanted = {document["kind"] for _, document in resources()}
    found: dict[Key, Any] = {}
    for place in map(Path, json.loads(done.stdout)):
        for file in sorted(place.glob("*.yaml")) if place.is_dir() else [place]:
            for text in re.split(r"^---$", file.read_text(), flags=re.MULTILINE):
                # All of them together are megabytes of YAML.
                if (kind := re.search(r"^    kind: (\w+)$", text, re.MULTILINE)) and kind[1] in wanted:
                    found |= _versions(yaml.load(text, Loader=yaml.CSafeLoader))
    return found


def _versions(definition: Mapping[str, Any]) -> dict[Key, Any]:
    spec = definition["spec"]
    return {
        (f"{spec['group']}/{version['name']}", spec["names"]["kind"]): strict(version["schema"]["openAPIV3Schema"])
        for version in spec["versions"]
        if version["served"]
    }


def strict(schema: Any, *, top: bool = True) -> Any:
    """The schema as JSON Schema: unknown fields are refused, as `kubectl apply` has the API server do."""
    if isinstance(schema, list):
        return [strict(one, top=False) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _each(name, value) for name, value in schema.items()}
    if made.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    keeps = made.get("x-kubernetes-preserve-unknown-fields")
    if "properties" in made and not keeps and "additionalProperties" not in made:
        made["additionalProperties"] = False
    if made.get("nullable") and isinstance(made.get("type"), str):
        made["type"] = [made["type"], "null"]
    if top:
        made["properties"] |= dict.fromkeys(_OWN, True)
    return made


def _each(name: str, value: Any) -> Any:
    if name == "properties":  # a mapping of names, which may be words of the schema too
        return {field: strict(inner, top=False) for field, inner in value.items()}
    # What is said in these does not declare fields.
    return copy.deepcopy(value) if name in {"oneOf", "anyOf", "allOf", "not", "default"} else strict(value, top=False)


@pytest.mark.parametrize(("where", "document"), [pytest.param(*one, id=one[0]) for one in resources()])
def test_a_resource_is_what_its_definition_says(
    schemas: Mapping[Key, Any], where: str, document: dict[str, Any]
) -> None:
    schema = schemas[document["apiVersion"], document["kind"]]
    problems = jsonschema.Draft202012Validator(schema).iter_errors(document)
    assert not [f"{error.json_path}: {error.message}" for error in problems], where


@pytest.mark.parametrize("kind", ["VirtualService", "Component", "ScaledObject", "PrometheusRule"])
def test_a_wrong_field_and_a_wrong_type_would_be_found(schemas: Mapping[Key, Any], kind: str) -> None:
    document = next(document for _, document in resources() if document["kind"] == kind)
    validator = jsonschema.Draft202012Validator(schemas[document["apiVersion"], kind])
    assert validator.is_valid(document)
    assert not validator.is_valid({**document, "spec": {**document["spec"], "nonsense": 1}})
    assert not validator.is_valid({**document, "spec": dict.fromkeys(document["spec"], 1.5)})
