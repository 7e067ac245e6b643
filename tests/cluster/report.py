"""out/cluster/report.json: what was seen of rollouts, and a chart of their weights."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from tests import reports

OUT = Path(__file__).resolve().parents[2] / "out" / "cluster"
_WIDTH, _HEIGHT, _LEFT, _ROW = 640, 100, 60, 150


def add(name: str, entry: dict[str, Any]) -> None:
    """Writes what was seen of a rollout into the report, and draws all of them anew."""
    reports.add(OUT / "rollouts.svg", name, entry, _drawn)


def _drawn(entries: dict[str, Any]) -> str:
    rows = "".join(_row(entry, number * _ROW + 30) for number, entry in enumerate(entries.values()))
    size = f'width="{_WIDTH + _LEFT + 20}" height="{len(entries) * _ROW + 20}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">{rows}</svg>\n'


def _row(entry: dict[str, Any], top: int) -> str:
    """The candidate's percent over time, as decided: copies dashed; why it changed above."""
    end = max(entry["seconds"], 0.1)
    moments = [(one["at_s"], *_parts(one), one["cause"]) for one in entry["decisions"]]
    title = f'{entry["version"]}: {entry["state"]}, {entry["harmed"]} of {entry["calls"]} calls harmed'
    lines = [
        f'<text x="{_LEFT}" y="{top - 8}" font-weight="bold">{escape(title)}</text>',
        f'<path d="M{_LEFT} {top}V{top + _HEIGHT}H{_LEFT + _WIDTH}" fill="none" stroke="gray"/>',
        f'<text x="{_LEFT - 6}" y="{top + 10}" text-anchor="end">100 %</text>',
        f'<text x="{_LEFT + _WIDTH}" y="{top + _HEIGHT + 12}" text-anchor="end">{end:.0f} s</text>',
    ]
    for number, (at_s, percent, copies, cause) in enumerate(moments):
        until = moments[number + 1][0] if number + 1 < len(moments) else end
        x, to = (_LEFT + _WIDTH * moment / end for moment in (at_s, until))
        for share, style in ((percent, ""), (copies, ' stroke-dasharray="4"')):
            if share is not None:
                y = top + _HEIGHT * (1 - share / 100)
                lines.append(f'<path d="M{x:.1f} {y:.1f}H{to:.1f}" stroke="steelblue" stroke-width="2"{style}/>')
        lines.append(f'<text x="{x + 2:.1f}" y="{top + 12 + 12 * number}">{escape(cause)}</text>')
    return "".join(lines)


def _parts(decision: dict[str, Any]) -> tuple[int, int | None]:
    """What the candidate answers from then on, and what it gets copies of."""
    if decision["state"] in {"rolling_back", "rolled_back"}:
        return 0, None
    if decision["state"] in {"promoting", "done"}:
        return 100, None
    return decision["percent"], decision["shadow_percent"] or None
