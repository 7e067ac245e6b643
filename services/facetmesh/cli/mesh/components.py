"""Whether daprd will understand a folder of components as it was meant.

daprd 1.18 reads past a field that it does not know, and past some values: a component
with a misspelt setting runs with the default. So everything is looked at before the
start, by the names that Dapr's own types and component specifications have. Types of
components that facetmesh does not ship are daprd's to judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from facetmesh.cli.mesh.dapr_fields import METADATA, RESOURCES, Rule, topics_by_app
from facetmesh.kit import errors, shipped
from facetmesh.kit.manifests import ManifestError, documents

if TYPE_CHECKING:
    from pathlib import Path

_Resource = tuple["Path", Mapping[str, Any]]
_Problem = tuple[str, str]


def own() -> Path:
    """The components for daprd over Redis that come with facetmesh."""
    return shipped.folder("components", "redis")


def check(folder: Path) -> None:
    """Returns when all of folder is as it should be.

    Raises:
        FailedPrecondition: COMPONENT_INVALID, with the file and the field.
    """
    try:
        resources = list(documents(folder))
    except ManifestError as error:
        raise errors.FailedPrecondition(str(error), reason="COMPONENT_INVALID") from None
    for file, field, problem in _problems(resources):
        raise errors.FailedPrecondition(
            f"{file}: {field}: {problem}", reason="COMPONENT_INVALID", metadata={"file": str(file), "field": field},
        )


def _problems(resources: Sequence[_Resource]) -> Iterator[tuple[Path, str, str]]:
    names: dict[tuple[str, str], Path] = {}
    for file, resource in resources:
        kind = resource.get("kind")
        if not isinstance(kind, str) or kind not in RESOURCES:
            yield file, "kind", f"must be one of {', '.join(RESOURCES)}, not {kind!r}"
            return
        for field, problem in _unlike(resource, RESOURCES[kind]):
            yield file, field, problem
        name = kind, resource["metadata"]["name"]
        if other := names.get(name):
            yield file, "metadata.name", f"there is a {kind} {name[1]} already, in {other}"
        names[name] = file
    components = frozenset(name for kind, name in names if kind == "Component")
    for file, resource in resources:
        for field, problem in _CHECKS.get(resource["kind"], _nothing)(resource, resources, components):
            yield file, field, problem


def _unlike(value: Any, rule: Rule, path: str = "") -> Iterator[_Problem]:
    """Where value is not what rule says: the field, and what is wrong with it."""
    if isinstance(rule, Mapping):
        if isinstance(value, Mapping):
            yield from _unlike_fields(value, rule, path)
        else:
            yield path, "must have fields"
    elif isinstance(rule, list):
        if isinstance(value, list):
            for number, item in enumerate(value):
                yield from _unlike(item, rule[0], f"{path}.{number}")
        else:
            yield path, "must be a list"
    elif problem := rule(value):
        yield path, problem


def _unlike_fields(value: Mapping[Any, Any], rule: Mapping[str, Rule], path: str) -> Iterator[_Problem]:
    prefix = f"{path}." if path else ""
    for name, inner in value.items():
        known = rule.get(str(name), rule.get(f"{name}!", rule.get("*")))
        if known is None:
            yield f"{prefix}{name}", "is not known to daprd"
        else:
            yield from _unlike(inner, known, f"{prefix}{name}")
    for name in rule:
        if name.endswith("!") and name[:-1] not in value:
            yield f"{prefix}{name[:-1]}", "is missing"


def _component(
    resource: Mapping[str, Any], resources: Sequence[_Resource], components: frozenset[str],
) -> Iterator[_Problem]:
    del resources, components
    known = METADATA.get((resource["spec"]["type"], resource["spec"]["version"]))
    if known is None:
        return
    for item in resource["spec"].get("metadata", []):
        field = f"spec.metadata.{item['name']}"
        if item["name"] not in known:
            yield field, f"is not known to {resource['spec']['type']}"
        elif "value" in item and (problem := known[item["name"]](item["value"])):
            yield field, problem
        elif not item.keys() & {"value", "envRef", "secretKeyRef"}:
            yield field, "has no value"


def _subscription(
    resource: Mapping[str, Any], resources: Sequence[_Resource], components: frozenset[str],
) -> Iterator[_Problem]:
    spec = resource["spec"]
    if spec["pubsubname"] not in components:
        yield "spec.pubsubname", f"there is no pub/sub component {spec['pubsubname']!r}"
    elif dead := spec.get("deadLetterTopic"):
        # daprd publishes it on behalf of the app that could not handle the event.
        allowed = _publishing_scopes(spec["pubsubname"], resources)
        for app in resource.get("scopes", ()):
            if app in allowed and dead not in allowed[app]:
                yield "spec.deadLetterTopic", f"{app} may not publish to {dead}: see publishingScopes"


def _publishing_scopes(pubsub: str, resources: Sequence[_Resource]) -> Mapping[str, frozenset[str]]:
    for _, resource in resources:
        if resource["kind"] == "Component" and resource["metadata"]["name"] == pubsub:
            for item in resource["spec"].get("metadata", []):
                if item["name"] == "publishingScopes":
                    return topics_by_app(str(item["value"]))
    return {}


def _resiliency(
    resource: Mapping[str, Any], resources: Sequence[_Resource], components: frozenset[str],
) -> Iterator[_Problem]:
    del resources
    given = resource["spec"]["policies"]
    policies = {
        "timeout": given.get("timeouts", {}), "retry": given.get("retries", {}),
        "circuitBreaker": given.get("circuitBreakers", {}),
    }
    for name, target in resource["spec"]["targets"].get("components", {}).items():
        where = f"spec.targets.components.{name}"
        if name not in components:
            yield where, "there is no such component"
        for direction, chosen in target.items():
            for kind, policy in chosen.items():
                if policy not in policies[kind]:
                    yield f"{where}.{direction}.{kind}", f"there is no policy {policy!r}"


def _nothing(*_: object) -> Iterator[_Problem]:
    yield from ()


_Check = Callable[[Mapping[str, Any], Sequence[_Resource], frozenset[str]], Iterator[_Problem]]
_CHECKS: Mapping[str, _Check] = {
    "Component": _component, "Subscription": _subscription, "Resiliency": _resiliency,
}  # fmt: skip
