"""Whether daprd will understand a folder of components as it was meant.

daprd 1.18 reads past a field that it does not know, and past some values: a component
with a misspelt setting runs with the default. So everything is looked at before the
start, by the names that Dapr's own types and component specifications have. Types of
components that facetmesh does not ship are daprd's to judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from facetmesh.cli.mesh.dapr_fields import METADATA, RESOURCES, Rule, topics_by_app
from facetmesh.kit import errors, shipped
from facetmesh.kit.manifests import ManifestError, documents

if TYPE_CHECKING:
    from pathlib import Path

_Resource = Mapping[str, Any]
_Problem = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Resources:
    """The resources of a folder, each with its file."""

    all: tuple[tuple[Path, _Resource], ...]

    def of(self, kind: str) -> Iterator[_Resource]:
        """Those of a kind."""
        return (resource for _, resource in self.all if resource["kind"] == kind)

    @property
    def components(self) -> Mapping[str, Mapping[str, Any]]:
        """The settings of each component, by its name."""
        return {
            one["metadata"]["name"]: {item["name"]: item.get("value") for item in one["spec"].get("metadata", [])}
            for one in self.of("Component")
        }

    def subscribes(self, app: str) -> bool:
        """Whether events are delivered to app."""
        return any(app in one.get("scopes", (app,)) for one in self.of("Subscription"))


def own() -> Path:
    """The components for daprd over Redis that come with facetmesh."""
    return shipped.folder("components", "redis")


def check(folder: Path) -> Resources:
    """What a folder says, when all of it is as it should be.

    Raises:
        FailedPrecondition: COMPONENT_INVALID, with the file and the field.
    """
    try:
        resources = Resources(tuple(documents(folder)))
    except ManifestError as error:
        raise errors.FailedPrecondition(str(error), reason="COMPONENT_INVALID") from None
    for file, field, problem in _problems(resources):
        raise errors.FailedPrecondition(
            f"{file}: {field}: {problem}", reason="COMPONENT_INVALID", metadata={"file": str(file), "field": field},
        )
    return resources


def _problems(resources: Resources) -> Iterator[tuple[Path, str, str]]:
    names: dict[tuple[str, str], Path] = {}
    for file, resource in resources.all:
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
    for file, resource in resources.all:
        if inspect := _CHECKS.get(resource["kind"]):
            for field, problem in inspect(resource, resources):
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


def _component(resource: _Resource, resources: Resources) -> Iterator[_Problem]:
    spec = resource["spec"]
    known = METADATA.get((spec["type"], spec["version"]))
    if known is None:
        return
    for item in spec.get("metadata", []):
        field = f"spec.metadata.{item['name']}"
        if item["name"] not in known:
            yield field, f"is not known to {spec['type']}"
        elif "value" in item and (problem := known[item["name"]](item["value"])):
            yield field, problem
        elif not item.keys() & {"value", "envRef", "secretKeyRef"}:
            yield field, "has no value"
    settings = resources.components[resource["metadata"]["name"]]
    if allowed := set(filter(None, str(settings.get("allowedTopics", "")).split(","))):
        for name in ("publishingScopes", "subscriptionScopes"):
            for app, topics in topics_by_app(settings.get(name, "")).items():
                if unknown := topics - allowed:
                    yield f"spec.metadata.{name}", f"{app}: {min(unknown)} is not among allowedTopics"


def _subscription(resource: _Resource, resources: Resources) -> Iterator[_Problem]:
    spec = resource["spec"]
    settings = resources.components.get(spec["pubsubname"])
    if settings is None:
        yield "spec.pubsubname", f"there is no pub/sub component {spec['pubsubname']!r}"
        return
    may_hear = topics_by_app(settings.get("subscriptionScopes", ""))
    # daprd publishes a dead letter on behalf of the app that could not handle the event.
    may_publish = topics_by_app(settings.get("publishingScopes", ""))
    for app in resource.get("scopes", ()):
        if spec["topic"] not in may_hear.get(app, {spec["topic"]}):
            yield "spec.topic", f"{app} may not subscribe to {spec['topic']}: see subscriptionScopes"
        dead = spec.get("deadLetterTopic")
        if dead and dead not in may_publish.get(app, {dead}):
            yield "spec.deadLetterTopic", f"{app} may not publish to {dead}: see publishingScopes"


def _resiliency(resource: _Resource, resources: Resources) -> Iterator[_Problem]:
    given = resource["spec"]["policies"]
    policies = {
        "timeout": given.get("timeouts", {}), "retry": given.get("retries", {}),
        "circuitBreaker": given.get("circuitBreakers", {}),
    }
    for name, target in resource["spec"]["targets"].get("components", {}).items():
        where = f"spec.targets.components.{name}"
        if name not in resources.components:
            yield where, "there is no such component"
        for direction, chosen in target.items():
            for kind, policy in chosen.items():
                if policy not in policies[kind]:
                    yield f"{where}.{direction}.{kind}", f"there is no policy {policy!r}"


_CHECKS: Mapping[str, Callable[[_Resource, Resources], Iterator[_Problem]]] = {
    "Component": _component, "Subscription": _subscription, "Resiliency": _resiliency,
}
