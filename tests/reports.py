"""Reports of what long tests saw: a JSON file of entries by name, and a chart of all of them beside it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def add(chart: Path, name: str, entry: dict[str, Any], draw: Callable[[dict[str, Any]], str]) -> None:
    """Writes an entry into report.json beside the chart, and draws all of them anew.

    Args:
        chart: Where the chart goes, an SVG file; its folder is made.
        name: Of what; what it had before is replaced.
        entry: What was seen.
        draw: The chart of all entries, by name.
    """
    chart.parent.mkdir(parents=True, exist_ok=True)
    path = chart.with_name("report.json")
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    known[name] = entry
    path.write_text(json.dumps(known, indent=2) + "\n")
    chart.write_text(draw(known))
