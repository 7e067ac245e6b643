"""Dashboards are what Grafana takes them for: read by the types that Grafana Labs generates from Grafana's schema."""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard as schema
from grafana_foundation_sdk.models import prometheus, units

if TYPE_CHECKING:
    from collections.abc import Iterator

DASHBOARDS = sorted((Path(__file__).resolve().parents[2] / "k8s" / "observability" / "dashboards").glob("*.json"))
WIDTH = 24
"""Columns of Grafana's grid."""
_UNDESCRIBED = ".definition"
"""A variable's query as its editor shows it: Grafana writes it, its schema does not have it."""
_UNITS = {value for name, value in vars(units).items() if not name.startswith("_") and isinstance(value, str)}
register_default_plugins()


def strangers(dashboard: Any) -> list[str]:
    """Fields that Grafana's schema does not have, or has another value for, once read and written."""
    read = schema.Dashboard.from_json(copy.deepcopy(dashboard))
    written = json.loads(JSONEncoder().encode(read))
    return [path for path in _lost(dashboard, written) if not path.endswith(_UNDESCRIBED)]


def _lost(before: Any, after: Any, path: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name, value in before.items():
            yield from _lost(value, after[name], f"{path}.{name}") if name in after else [f"{path}.{name}"]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, pair in enumerate(zip(before, after, strict=True)):
            yield from _lost(*pair, f"{path}[{number}]")
    elif before != after:
        yield path


@pytest.fixture(params=DASHBOARDS, ids=[one.stem for one in DASHBOARDS])
def dashboard(request: pytest.FixtureRequest) -> Any:
    return json.loads(request.param.read_text())


def test_grafana_knows_every_field(dashboard: Any) -> None:
    assert strangers(dashboard) == []


def test_panels_are_of_known_kinds_and_ask_prometheus(dashboard: Any) -> None:
    for panel in schema.Dashboard.from_json(dashboard).panels or []:
        assert isinstance(panel, schema.Panel)
        assert type(panel.options).__module__.startswith("grafana_foundation_sdk.models."), panel.title
        assert panel.targets, panel.title
        assert all(isinstance(one, prometheus.Dataquery) for one in panel.targets), panel.title


def test_values_are_of_those_that_grafana_has(dashboard: Any) -> None:
    for variable in dashboard["templating"]["list"]:
        schema.VariableType(variable["type"])
        schema.VariableRefresh(variable.get("refresh", 0))
        schema.VariableSort(variable.get("sort", 0))
    assert {panel["fieldConfig"]["defaults"]["unit"] for panel in dashboard["panels"]} <= _UNITS
    assert "reqps" in _UNITS


def test_panels_lie_within_the_grid_beside_each_other(dashboard: Any) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] + place["w"] <= WIDTH for place in places)
    for one, other in itertools.combinations(places, 2):
        apart = any(
            one[at] + one[size] <= other[at] or other[at] + other[size] <= one[at]
            for at, size in (("x", "w"), ("y", "h"))
        )
        assert apart, (one, other)


def test_dashboards_have_names_of_their_own() -> None:
    found = [json.loads(one.read_text()) for one in DASHBOARDS]
    for name in ("uid", "title"):
        assert len({one[name] for one in found}) == len(found) > 1


def test_what_grafana_does_not_know_is_found() -> None:
    made = json.loads(DASHBOARDS[0].read_text())
    made["pannels"] = []
    made["panels"][0]["gridPos"]["width"] = 3
    made["panels"][1]["options"]["legend"]["position"] = "bottom"
    made["panels"][2]["targets"][0]["expression"] = "up"
    assert sorted(strangers(made)) == [
        ".panels[0].gridPos.width", ".panels[1].options.legend.position", ".panels[2].targets[0].expression",
        ".pannels",
    ]  # fmt: skip
