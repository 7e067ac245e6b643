"""Sees to it that there is a promtool, by which alerts are tested, and prints where. Run by `make promtool`.

Given the name prometheus, it is that which is seen to.
"""

from __future__ import annotations

import sys

from golang import Module

PROMETHEUS = Module(
    "prometheus",
    pins="github.com/prometheus/prometheus",
    programs={name: f"github.com/prometheus/prometheus/cmd/{name}" for name in ("promtool", "prometheus")},
)


if __name__ == "__main__":
    print(PROMETHEUS.ensure(*(sys.argv[1:] or ["promtool"])))  # noqa: T201 - the answer
