"""Durations as Go and Dapr write them."""

from __future__ import annotations

import re

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")


def seconds(text: str) -> float:
    """The seconds in a text such as 500ms, 1m30s or, for whole seconds, 90.

    Raises:
        ValueError: It is no duration.
    """
    if re.fullmatch(r"\d+", text):
        return float(text)
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"'{text}' is not a duration such as 500ms, 5s or 1m30s")
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
