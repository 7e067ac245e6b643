"""Charts of what was measured, as SVG: a line of text for each mark, so that a change of one shows in its diff."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_WIDTH, _HEIGHT = 720, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 60, 50
_COLOURS = ("#1b6ca8", "#d1495b", "#66a182", "#8d6a9f")
_SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)


def quantiles(path: Path, title: str, times_s: Mapping[str, Sequence[float]]) -> Path:
    """Draws how many of some durations are at most how long, from the median's surroundings far into the tail.

    Across stands the share of the answers, stretched so that each nine has as much room as the one
    before; upwards the duration in milliseconds, by its logarithm.

    Args:
        path: Where it is written.
        title: What stands above.
        times_s: The durations in seconds, one or more, by the name of their line.

    Returns:
        The path.
    """
    lines = {name: sorted(1000 * time for time in times) for name, times in times_s.items()}
    low = 10 ** math.floor(math.log10(min(times[0] for times in lines.values())))
    high = 10 ** math.ceil(math.log10(max(times[-1] for times in lines.values())))

    def across(share: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * math.log10(1 - min(share, _SHARES[-1])) / math.log10(1 - _SHARES[-1])

    def upwards(ms: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * math.log(ms / low) / math.log(high / low)

    marks = [_text(_LEFT, 24, title, size=16), _text(_LEFT, _HEIGHT - 8, "share of the answers that came within")]
    for share in _SHARES[1:]:
        x = across(share)
        marks += [_line(x, _TOP, x, _HEIGHT - _BOTTOM), _text(x - 14, _HEIGHT - _BOTTOM + 18, f"{100 * share:g}%")]
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        y = upwards(10.0**power)
        marks += [_line(_LEFT, y, _WIDTH - _RIGHT, y), _text(8, y + 4, f"{10.0**power:g} ms")]
    for number, (name, times) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = [(across(index / len(times)), upwards(ms)) for index, ms in enumerate(times)]
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        marks.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"/>')
        marks.append(_text(_LEFT + 220 * number, 46, name, colour=colour))
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">'
    path.write_text("\n".join([frame, '<rect width="100%" height="100%" fill="white"/>', *marks, "</svg>"]) + "\n")
    return path


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'


def _text(x: float, y: float, text: str, *, size: int = 12, colour: str = "#333") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}">{escape(text)}</text>'
