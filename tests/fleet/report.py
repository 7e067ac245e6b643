"""out/fleet/report.json: what was seen of the fleet, and a chart of it over time."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from tests import reports

OUT = Path(__file__).resolve().parents[2] / "out" / "fleet"
_WIDTH, _HEIGHT, _LEFT, _ROW = 720, 150, 60, 220
_COLOURS = ("steelblue", "darkorange", "seagreen", "gray")


def add(name: str, entry: dict[str, Any]) -> None:
    """Writes what was seen into the report, and draws all of it anew.

    Args:
        name: Of what.
        entry: `what` in words, `seconds`, `lines`: values over time, [seconds, value] each, by their names; perhaps
            `marks`: [seconds, text] each; and whatever else is to be known.
    """
    reports.add(OUT / "fleet.svg", name, entry, _drawn)


def _drawn(entries: dict[str, Any]) -> str:
    rows = "".join(_row(name, entry, number * _ROW + 40) for number, (name, entry) in enumerate(entries.items()))
    size = f'width="{_WIDTH + _LEFT + 30}" height="{len(entries) * _ROW + 30}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="white"/>{rows}</svg>\n'
    )


def _row(name: str, entry: dict[str, Any], top: int) -> str:
    end = max(entry["seconds"], 0.1)
    highest = max([1.0, *(value for line in entry["lines"].values() for _, value in line)])
    parts = [
        f'<text x="{_LEFT}" y="{top - 22}" font-weight="bold">{escape(name)}: {escape(entry["what"])}</text>',
        f'<path d="M{_LEFT} {top}V{top + _HEIGHT}H{_LEFT + _WIDTH}" fill="none" stroke="gray"/>',
        f'<text x="{_LEFT - 6}" y="{top + 10}" text-anchor="end">{highest:g}</text>',
        f'<text x="{_LEFT - 6}" y="{top + _HEIGHT}" text-anchor="end">0</text>',
        f'<text x="{_LEFT + _WIDTH}" y="{top + _HEIGHT + 14}" text-anchor="end">{end:.0f} s</text>',
    ]
    for number, (label, line) in enumerate(entry["lines"].items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = [(_LEFT + _WIDTH * at / end, top + _HEIGHT * (1 - value / highest)) for at, value in line]
        # A value holds until the next.
        path = f"M{points[0][0]:.1f} {points[0][1]:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in points[1:])
        parts.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{_LEFT + 130 * number}" y="{top - 6}" fill="{colour}">{escape(label)}</text>')
    for at, text in entry.get("marks", []):
        x = _LEFT + _WIDTH * at / end
        parts.append(f'<path d="M{x:.1f} {top}v{_HEIGHT}" stroke="crimson" stroke-dasharray="3"/>')
        parts.append(f'<text x="{x + 3:.1f}" y="{top + 12}" fill="crimson">{escape(text)}</text>')
    return "".join(parts)
