"""What alerts, autoscalers and dashboards ask Prometheus for is what the services export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import promql_parser as promql
import pytest
import yaml

from .exported import exported

if TYPE_CHECKING:
    from collections.abc import Iterator

K8S = Path(__file__).resolve().parents[2] / "k8s"
RULES = K8S / "observability" / "rules.yaml"
DASHBOARDS = sorted((K8S / "observability" / "dashboards").glob("*.json"))
_GIVEN = {"$__rate_interval": "5m", "$__range": "1h", "$__interval": "1m"}
"""What Grafana puts into a query itself."""


def rules() -> Iterator[dict[str, Any]]:
    (resource,) = yaml.safe_load_all(RULES.read_text())
    for group in resource["spec"]["groups"]:
        yield from group["rules"]


def queries() -> Iterator[tuple[str, str]]:
    """Each query and where it stands."""
    for rule in rules():
        yield f"rules: {rule.get('record') or rule['alert']}", rule["expr"]
    yield from autoscalers()
    yield from dashboards()


def autoscalers() -> Iterator[tuple[str, str]]:
    """Each trigger's query."""
    for file in sorted((K8S / "autoscaling").glob("*.yaml")):
        for resource in yaml.safe_load_all(file.read_text()):
            for trigger in resource.get("spec", {}).get("triggers", ()):
                if trigger["type"] == "prometheus":
                    yield f"{file.stem}: {trigger['name']}", trigger["metadata"]["query"]


def dashboards() -> Iterator[tuple[str, str]]:
    """Each panel's query, and each variable's."""
    for file in DASHBOARDS:
        dashboard = json.loads(file.read_text())
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                yield f"{file.stem}: {panel['title']}", target["expr"]
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                yield f"{file.stem}: ${variable['name']}", variable["definition"]


def as_asked(query: str) -> str:
    """A query with what Grafana puts into it; for the values of a label, what they are values of."""
    for variable, value in _GIVEN.items():
        query = query.replace(variable, value)
    if query.startswith("label_values("):
        query = query.removeprefix("label_values(").rpartition(",")[0]
    return query


def unknown(query: str) -> set[str]:
    """The metrics and labels in a query that nobody exports."""
    known = exported()
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    query = as_asked(query)
    found: set[str] = set()
    labels: set[str] = set()
    asked: set[str] = set()

    def visit(node: Any) -> None:
        if isinstance(node, promql.VectorSelector):
            matched = {matcher.name for matcher in node.matchers.matchers}
            if node.name in recorded:
                labels.update(matched, *known.values())
            elif node.name in known:
                labels.update(known[node.name])
                found.update(f"{node.name}{{{label}}}" for label in matched - known[node.name])
            else:
                found.add(str(node.name))
        elif isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            asked.update(node.modifier.labels)

    promql.walk(promql.parse(query), visit)
    return found | (asked - labels)


@pytest.mark.parametrize(("where", "query"), [pytest.param(*one, id=one[0]) for one in queries()])
def test_a_query_asks_for_what_is_exported(where: str, query: str) -> None:
    assert not unknown(query), where


def test_what_nobody_exports_is_found() -> None:
    assert unknown("sum(rate(facetmesh_queue_seconds_bucket[1m]))") == {"facetmesh_queue_seconds_bucket"}
    assert unknown('rate(facetmesh_calls_total{service="detection"}[1m])') == {"facetmesh_calls_total{service}"}
    assert unknown("sum by (tenant) (facetmesh_calls_total)") == {"tenant"}
    assert unknown("rate(facetmesh_call_latency_seconds[1m])") == {"facetmesh_call_latency_seconds"}


def test_an_alert_says_how_bad_it_is_and_what_it_is_about() -> None:
    for rule in rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in {"page", "ticket"}
            assert rule["annotations"]["summary"]
