"""What the YAML files in a components folder say: the same files that daprd reads.

An unknown or wrong field ends the start, with the file and the field named. The
embedded sidecar knows fewer fields than daprd; it never ignores one silently.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from facetmesh.kit.manifests import ManifestError, documents
from facetmesh.sidecar import schema
from facetmesh.sidecar.retry import NEVER, RetryPolicy
from facetmesh.sidecar.schema import PubsubSettings, SecretsSettings, StateSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path


class ResourceError(Exception):
    """A file that cannot be used; the message names it and the field."""


Settings = StateSettings | PubsubSettings | SecretsSettings
_SETTINGS: Mapping[str, type[Settings]] = {
    "state.sqlite": StateSettings,
    "pubsub.sqlite": PubsubSettings,
    "secretstores.local.file": SecretsSettings,
}


@dataclass(frozen=True, slots=True, eq=False)
class Component:
    """A state store, a broker or a secret store."""

    name: str
    type: str
    settings: Settings
    scopes: frozenset[str]
    """The apps that may use it; empty for all."""
    file: Path


@dataclass(frozen=True, slots=True)
class Subscription:
    """Which events apps get, and how."""

    pubsub: str
    topic: str
    path: str
    """What the app is told as the event's route."""
    scopes: frozenset[str]
    """The apps that subscribe; empty for all."""
    dead_letter_topic: str = ""
    """Where messages go that cannot be handled; "" to drop them."""
    raw: bool = False
    """Deliver messages as they were published, not taken apart as CloudEvents."""
    bulk: bool = False
    """Deliver many at once."""
    largest_batch: int = 1
    """At most so many at once."""
    patience_s: float = 0.0
    """How long to wait for a batch to fill, in seconds."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How often a broker's deliveries are tried, and how long each may take."""

    pubsub: str
    scopes: frozenset[str]
    retry: RetryPolicy
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class Resources:
    """All that a components folder says."""

    components: tuple[Component, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()
    policies: tuple[Policy, ...] = ()

    def of(self, app: str) -> Mapping[str, Component]:
        """The components that app may use, by name."""
        return {component.name: component for component in in_scope(self.components, app)}

    def policy(self, app: str, pubsub: str) -> Policy | None:
        """What was set for the deliveries of pubsub to app."""
        return next((policy for policy in in_scope(self.policies, app) if policy.pubsub == pubsub), None)


_Scoped = TypeVar("_Scoped", Component, Subscription, Policy)


def in_scope(resources: Iterable[_Scoped], app: str) -> Iterator[_Scoped]:
    """Those that are for app."""
    return (resource for resource in resources if not resource.scopes or app in resource.scopes)


_KINDS: Mapping[str, type[schema.Component | schema.Subscription | schema.Resiliency]] = {
    "Component": schema.Component, "Subscription": schema.Subscription, "Resiliency": schema.Resiliency,
}  # fmt: skip


def load(folder: Path) -> Resources:
    """Reads every .yaml and .yml file in folder.

    Raises:
        ResourceError: A file cannot be read, or says something that is not known here.
    """
    components: list[Component] = []
    subscriptions: list[Subscription] = []
    policies: list[Policy] = []
    uses: list[tuple[str, str]] = []
    for file, resource in _named(folder):
        match resource:
            case schema.Component() as component:
                components.append(_component(file, component))
            case schema.Subscription() as subscription:
                subscriptions.append(_subscription(subscription))
                uses.append((f"{file}: spec.pubsubname", subscription.spec.pubsubname))
            case schema.Resiliency() as resiliency:
                policies.extend(_policies(file, resiliency))
                uses += [(f"{file}: spec.targets.components", pubsub) for pubsub in resiliency.spec.targets.components]
    pubsubs = {component.name for component in components if isinstance(component.settings, PubsubSettings)}
    for where, pubsub in uses:
        if pubsub not in pubsubs:
            raise ResourceError(f"{where}: there is no pub/sub component '{pubsub}'")
    return Resources(tuple(components), tuple(subscriptions), tuple(policies))


def _named(folder: Path) -> Iterator[tuple[Path, schema.Component | schema.Subscription | schema.Resiliency]]:
    """The resources in folder. No two of a kind have the same name, whatever their scopes: daprd takes none such."""
    names: dict[tuple[str, str], Path] = {}
    try:
        found = list(documents(folder))
    except ManifestError as error:
        raise ResourceError(str(error)) from error
    for file, document in found:
        resource = _parsed(file, document)
        name = resource.kind, resource.metadata.name
        if other := names.get(name):
            raise ResourceError(f"{file}: metadata.name: there is a {name[0]} {name[1]} already, in {other}")
        names[name] = file
        yield file, resource


def _parsed(
    file: Path, document: Mapping[Any, Any]
) -> schema.Component | schema.Subscription | schema.Resiliency:
    kind = document.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ResourceError(f"{file}: kind: must be one of {', '.join(_KINDS)}, not {kind!r}")
    return _validated(_KINDS[kind], document, f"{file}: ")


_Validated = TypeVar("_Validated", bound=schema.Model)


def _validated(model: type[_Validated], value: Any, where: str) -> _Validated:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise ResourceError("\n".join(where + _problem(problem) for problem in error.errors())) from None


def _problem(problem: Any) -> str:
    field = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"{field}: is not known to the embedded sidecar"
    return f"{field}: {problem['msg'].removeprefix('Value error, ')}"


def _component(file: Path, component: schema.Component) -> Component:
    spec = component.spec
    if spec.type not in _SETTINGS:
        raise ResourceError(f"{file}: spec.type: must be one of {', '.join(_SETTINGS)}, not '{spec.type}'")
    values = {item.name: item.value for item in spec.metadata}
    settings = _validated(_SETTINGS[spec.type], values, f"{file}: spec.metadata.")
    return Component(component.metadata.name, spec.type, settings, frozenset(component.scopes), file)


def _subscription(subscription: schema.Subscription) -> Subscription:
    spec = subscription.spec
    bulk = spec.bulk_subscribe
    return Subscription(
        pubsub=spec.pubsubname,
        topic=spec.topic,
        path=spec.routes.default,
        scopes=frozenset(subscription.scopes),
        dead_letter_topic=spec.dead_letter_topic,
        raw=spec.metadata.raw_payload,
        bulk=bulk.enabled,
        largest_batch=bulk.max_messages_count if bulk.enabled else 1,
        patience_s=bulk.max_await_duration_ms / 1000 if bulk.enabled else 0.0,
    )


def _policies(file: Path, resiliency: schema.Resiliency) -> Sequence[Policy]:
    spec = resiliency.spec
    found = []
    for pubsub, target in spec.targets.components.items():
        names = target.inbound
        where = f"{file}: spec.targets.components.{pubsub}.inbound"
        if names.retry is not None and names.retry not in spec.policies.retries:
            raise ResourceError(f"{where}.retry: there is no policy {names.retry}")
        if names.timeout is not None and names.timeout not in spec.policies.timeouts:
            raise ResourceError(f"{where}.timeout: there is no policy {names.timeout}")
        retry = NEVER
        if names.retry is not None:
            given = spec.policies.retries[names.retry]
            retry = RetryPolicy(
                exponential=given.policy == "exponential",
                duration_s=given.duration,
                max_interval_s=given.max_interval,
                max_retries=given.max_retries,
            )
        timeout_s = None if names.timeout is None else spec.policies.timeouts[names.timeout]
        found.append(Policy(pubsub, frozenset(resiliency.scopes), retry, timeout_s))
    return found
