"""What the sidecar counts, for Prometheus."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter


@dataclass(frozen=True, slots=True)
class Metrics:
    """Counters in a registry of their own."""

    registry: CollectorRegistry
    published: Counter
    """Events accepted."""
    deliveries: Counter
    """Deliveries tried, by what became of them."""
    dead_letters: Counter
    """Events given up, by where they went ("" when they were dropped)."""

    @classmethod
    def create(cls) -> Metrics:
        """New counters."""
        registry = CollectorRegistry()
        return cls(
            registry,
            Counter("facetmesh_sidecar_published", "Events accepted.", ["app", "topic"], registry=registry),
            Counter(
                "facetmesh_sidecar_deliveries", "Deliveries tried.", ["app", "topic", "result"], registry=registry
            ),
            Counter(
                "facetmesh_sidecar_dead_letters", "Events given up.", ["app", "topic", "target"], registry=registry
            ),
        )
