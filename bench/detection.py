"""facetmesh beside the bare engine and beside its peers: the same photo and model, JPEG in, boxes out.

`python -m bench.detection [--seconds S] [--turns N] [--peers NAME,…]`. Everything is
measured in one run, in turns: the limit, the floor (`bench.floor`), facetmesh, a peer,
and again, so that what else the machine does falls on all; each peer has several turns,
far from each other. facetmesh is asked directly, on the embedded sidecar; with daprd, and
through its gateway, stands beside that. Results go to results/detection.json, where what
`bench.noisy` found stays.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import common, floor, mesh, servers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MANY = 16
"""Clients at a time, where it is about throughput."""
_WARM_UP_S = 1.0
_WAYS: Mapping[str, Sequence[str]] = {"daprd": ("--sidecar", "daprd"), "gateway": ("--gateway",)}
_TURNS = 3
"""How often each of the ways is asked."""


def main() -> None:
    """Measures, prints a table, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="how long each is measured")
    parser.add_argument("--turns", type=int, default=2, help="how often each peer is measured")
    parser.add_argument("--peers", default=",".join(peer.name for peer in servers.PEERS), help="which, by name")
    options = parser.parse_args()
    busy = common.busy()
    bench = Bench(options.seconds)
    with tempfile.TemporaryDirectory() as home:
        bench.home = Path(home) / "home"
        bench.round()
        for _ in range(options.turns):
            for peer in servers.PEERS:
                if peer.name in options.peers.split(","):
                    bench.peer(peer)
                    bench.round()
        bench.ways()
    figures = bench.figures()
    table(figures)
    machine = common.Machine.here("openvino", "grpcio", "facetmesh")
    kept = common.read("detection", "noisy")
    print(common.write("detection", machine, {**figures, **kept}, busy=busy or common.busy()))


class Bench:
    """One run.

    Args:
        seconds: How long each thing is measured.
    """

    home: Path

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._bare: list[dict[str, float]] = []
        self._floor: list[dict[str, Any]] = []
        self._ours: list[dict[str, Any]] = []
        self._peers: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self._ways: dict[str, list[float]] = {name: [] for name in _WAYS}

    def round(self) -> None:
        """The limit, the floor and facetmesh, one after the other."""
        cores = len(os.sched_getaffinity(0))
        one = _json("bench.bare", "0", self._seconds)
        ways = ((cores,), (cores + 1,), (cores, "--copies"))
        best = max((_json("bench.bare", *way, self._seconds) for way in ways), key=lambda it: it["ips"])
        self._bare.append({"ips": best["ips"], "p50_ms": one["p50_ms"], "cpu_ms": best["cpu_ms"]})
        with floor.serving() as job:
            self._floor.append(self._clients(lambda n: {**job, "clients": n, "seconds": self._seconds}))
        with mesh.running(self.home) as running:
            cold = _json("bench.load", json.dumps(running.job("acme", 1, _WARM_UP_S)))
            before = running.stages()
            one = _json("bench.load", json.dumps(running.job("acme", 1, self._seconds)))
            stages = {
                name: round(1000 * (total - before[name][0]) / (count - before[name][1]), 2)
                for name, (total, count) in running.stages().items()
                if count > before[name][1]  # nothing is loaded any more
            }
            many = _json("bench.load", json.dumps(running.job("acme", MANY, self._seconds)))
            self._ours.append({"one": one, "many": many, "stages_ms": stages, "cold_ms": cold["first_ms"]})
        print(f"bare {self._bare[-1]}\nfloor {self._floor[-1]}\nours {self._ours[-1]}", flush=True)

    def peer(self, peer: servers.Peer) -> None:
        """A peer's turn, set up in each way; the better figures count."""
        found = []
        for variant in servers.VARIANTS:
            try:
                with servers.serving(peer, variant) as job:
                    found.append(self._clients(lambda n, job=job: {**job, "clients": n, "seconds": self._seconds}))
            except (RuntimeError, subprocess.CalledProcessError) as problem:
                print(f"{peer.name} {variant}: {problem}", flush=True)
        if found:
            self._peers[peer.name].append({
                "rounds": len(self._ours),
                "one": min((each["one"] for each in found), key=lambda it: it["p50_ms"]),
                "many": max((each["many"] for each in found), key=lambda it: it["ips"]),
            })  # fmt: skip
            print(peer.name, self._peers[peer.name][-1], flush=True)

    def ways(self) -> None:
        """A mesh on daprd, and one that is asked through its gateway, in turns with each other."""
        for _ in range(_TURNS):
            for name, options in _WAYS.items():
                with tempfile.TemporaryDirectory() as home, mesh.running(Path(home) / "home", options=options) as it:
                    job = it.job("acme", MANY, self._seconds, through="gateway" if name == "gateway" else "detection")
                    self._ways[name].append(_json("bench.load", json.dumps(job))["ips"])
            print(self._ways, flush=True)

    def figures(self) -> dict[str, Any]:
        """What goes into the results."""
        bare_ms = statistics.median(each["p50_ms"] for each in self._bare)
        ours_ms = statistics.median(each["one"]["p50_ms"] for each in self._ours)
        bare = [each["ips"] for each in self._bare]
        lowest, ours = ([each["many"]["ips"] for each in rounds] for rounds in (self._floor, self._ours))
        return {
            "bare_best_ips": round(statistics.median(bare), 1),
            "bare_p50_ms": round(bare_ms, 2),
            "facetmesh_ips": round(statistics.median(ours), 1),
            "facetmesh_of_bare": _part(ours, bare),
            **{f"facetmesh_{name}_ips": statistics.median(found) for name, found in self._ways.items()},
            "facetmesh_p50_ms": round(ours_ms, 2),
            "facetmesh_many_p50_ms": statistics.median(each["many"]["p50_ms"] for each in self._ours),
            "facetmesh_many_p99_ms": statistics.median(each["many"]["p99_ms"] for each in self._ours),
            "floor_ips": statistics.median(lowest),
            "floor_p50_ms": statistics.median(each["one"]["p50_ms"] for each in self._floor),
            "floor_of_bare": _part(lowest, bare),
            "facetmesh_of_floor": _part(ours, lowest),
            "bare_cpu_ms": round(statistics.median(each["cpu_ms"] for each in self._bare), 2),
            "facetmesh_cpu_ms": round(statistics.median(each["many"]["cpu_ms"] for each in self._ours), 2),
            "overhead_p50_ms": round(ours_ms - bare_ms, 2),
            "stages_ms": {
                stage: statistics.median(each["stages_ms"][stage] for each in self._ours)
                for stage in self._ours[0]["stages_ms"]
            },
            "cold_start_ms": statistics.median(each["cold_ms"] for each in self._ours),
            "rounds": len(self._ours),
            "clients": MANY,
            "peers": {
                name: {
                    **_medians([each["many"] for each in turns]),
                    "turns_ips": [each["many"]["ips"] for each in turns],
                    "facetmesh_of_it": self._beside(turns, "many", "ips"),
                    "facetmesh_p50_of_it": self._beside(turns, "one", "p50_ms"),
                    "one_client_p50_ms": round(statistics.median(each["one"]["p50_ms"] for each in turns), 2),
                    "one_client_ips": statistics.median(each["one"]["ips"] for each in turns),
                }
                for name, turns in self._peers.items()
            },
        }  # fmt: skip

    def _beside(self, turns: Sequence[Mapping[str, Any]], load: str, figure: str) -> float:
        """Facetmesh's part of a peer's figure, by the rounds before and after each of its turns: the median."""
        parts = [
            sum(self._ours[turn["rounds"] + beside][load][figure] for beside in (-1, 0)) / 2 / turn[load][figure]
            for turn in turns
        ]
        return round(statistics.median(parts), 3)

    def _clients(self, job: Any) -> dict[str, Any]:
        return {name: _json("bench.load", json.dumps(job(n))) for name, n in (("one", 1), ("many", MANY))}


def table(figures: dict[str, Any]) -> None:
    """Prints the figures as people read them."""
    print(f"{'':12} {'1 client':>20} {f'{MANY} clients':>28}")
    print(f"{'bare engine':12} {figures['bare_p50_ms']:>17} ms {figures['bare_best_ips']:>20} img/s")
    print(f"{'floor':12} {figures['floor_p50_ms']:>17} ms {figures['floor_ips']:>20} img/s")
    print(f"{'facetmesh':12} {figures['facetmesh_p50_ms']:>17} ms {figures['facetmesh_ips']:>20} img/s")
    for name in _WAYS:
        print(f"{name:12} {'':20} {figures[f'facetmesh_{name}_ips']:>20} img/s")
    for name, found in figures["peers"].items():
        print(f"{name:12} {found['one_client_p50_ms']:>17} ms {found['ips']:>20} img/s")


def _part(some: Sequence[float], others: Sequence[float]) -> float:
    """Which part of the others' images a second some reach: the median of the rounds."""
    return round(statistics.median(a / b for a, b in zip(some, others, strict=True)), 3)


def _medians(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(each[name] for each in measured), 2) for name in measured[0]}


def _json(module: str, *arguments: object) -> Any:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


if __name__ == "__main__":
    main()
