"""What one app sees of the sidecar: the components that are for it, under their names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from facetmesh.sidecar.broker import Broker
    from facetmesh.sidecar.resources import Component, Subscription
    from facetmesh.sidecar.secrets import SecretStore
    from facetmesh.sidecar.state import StateStore


@dataclass(frozen=True, slots=True)
class App:
    """An app and its components."""

    id: str
    states: Mapping[str, StateStore] = field(default_factory=dict)
    brokers: Mapping[str, Broker] = field(default_factory=dict)
    secrets: Mapping[str, SecretStore] = field(default_factory=dict)
    components: Sequence[Component] = ()
    """All of them, as their files say."""
    subscriptions: Sequence[Subscription] = ()
    """What it subscribes to."""
