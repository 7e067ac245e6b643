"""The noisy neighbour: what a tenant feels of another that behaves badly.

Tenant a asks at a steady rate, and tenant b as often, at random. Then b floods at twenty times
that rate, sends images that claim to be huge, and uploads one model after the other.
Then its runner is killed again and again, too: after some of that its model is not run any
more for a while, so that this spares the cores. The three cases are measured in turns.
`python -m bench.noisy [--seconds S] [--rate R] [--turns N] [--here]`; results go to
results/noisy.json, in short into detection.json too, and how long tenant a waited is drawn in
results/noisy.svg.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import chart, common, inputs, mesh, steady
from facetmesh.client import AsyncClient, Endpoints
from facetmesh.kit.errors import FacetmeshError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FLOOD = 20
"""How many times its share the neighbour asks for."""
_GOOD = "tenant-good"
"""The neighbour that behaves well."""
_KILL_EVERY_S = 0.5
_SETTLE_S = 5.0


def main() -> None:
    """Measures, and writes the results; with "upload", does that on a tenant's behalf."""
    if sys.argv[1:2] == ["upload"]:
        asyncio.run(upload(**json.loads(sys.argv[2])))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each case is measured in a turn")
    parser.add_argument("--turns", type=int, default=3, help="how often")
    parser.add_argument("--rate", type=float, default=8.0, help="images a second that each tenant's share is")
    parser.add_argument(
        "--here", action="store_true", help="the neighbour's clients compete for this machine's cores too; "
        "as a rule they take what is left, because they would run elsewhere",
    )  # fmt: skip
    options = parser.parse_args()
    busy = common.busy()
    machine = common.Machine.here("openvino", "grpcio", "facetmesh")
    cases = measure(options.seconds, options.rate, options.turns, aside=not options.here)
    figures = compare(cases, options.seconds * options.turns)
    print(json.dumps(figures, indent=2))
    setting = {"rate": options.rate, "flood": FLOOD, "turns": options.turns, "clients_here": options.here}
    written = common.write("noisy", machine, {**figures, **setting}, busy=busy or common.busy())
    short = ("p99_ratio", "p99_ratio_without_kills", "throughput_ratio", "errors")
    common.add("detection", {"noisy": {name: figures[name] for name in short}})
    waits = {f"beside a {name} neighbour": case["a"].times_s for name, case in cases.items()}
    print(written, chart.quantiles(written.with_suffix(".svg"), "How long a tenant waits for an answer", waits))


def measure(seconds: float, rate: float, turns: int, *, aside: bool) -> dict[str, dict[str, steady.Answers]]:
    """Both tenants' answers in each case, which take turns on one mesh.

    Args:
        seconds: How long a case is measured in a turn.
        rate: Images a second that are each tenant's share.
        turns: How often, each with another bad neighbour: one's quarantine outlasts its turn, and would make the next
            quiet case a quieter one.
        aside: Whether the neighbour's clients leave the cores to all others.
    """
    cases = {name: {"a": steady.Answers(), "b": steady.Answers()} for name in ("quiet", "flooding", "noisy")}
    with tempfile.TemporaryDirectory() as folder, mesh.running(Path(folder) / "home") as running:
        neighbours = [f"tenant-bad{turn}" for turn in range(turns)]
        for tenant in ("tenant-a", _GOOD, *neighbours):
            running.key(tenant)
        for neighbour in neighbours:
            # Not measured: what must start first, and what the neighbour has left from the turn before.
            _both(running, _GOOD, _SETTLE_S, rate, rate, aside=aside)
            _add(cases["quiet"], _both(running, _GOOD, seconds, rate, rate, aside=aside))
            with _uploading(running, neighbour, aside=aside):
                _add(cases["flooding"], _both(running, neighbour, seconds, rate, FLOOD * rate, aside=aside))
                with _killing(running, neighbour):
                    _add(cases["noisy"], _both(running, neighbour, seconds, rate, FLOOD * rate, aside=aside))
    return cases


def compare(cases: Mapping[str, Mapping[str, steady.Answers]], seconds: float) -> dict[str, Any]:
    """Tenant a's figures beside bad neighbours, relative to those beside a quiet one; and what was measured of both."""
    found = {name: {tenant: one.figures(seconds) for tenant, one in case.items()} for name, case in cases.items()}
    quiet, flooding, noisy = (case["a"] for case in found.values())
    return {
        "p99_ratio": round(noisy["p99_ms"] / quiet["p99_ms"], 2),
        "p99_ratio_without_kills": round(flooding["p99_ms"] / quiet["p99_ms"], 2),
        "throughput_ratio": round(min(flooding["ips"], noisy["ips"]) / quiet["ips"], 3),
        "errors": sum(sum(case["errors"].values()) for case in (flooding, noisy)),
        "seconds": seconds,
        **found,
    }


async def upload(home: str, key: str, *, aside: bool) -> None:
    """Uploads models, one after the other, each another file; until it is stopped."""
    if aside:
        common.stand_aside()
    file = inputs.model().read_bytes()
    async with AsyncClient(key, Endpoints.read(Path(home) / "endpoints.json")) as client:
        for number in itertools.count():
            with contextlib.suppress(FacetmeshError):  # its limits are its own affair
                await client.upload_model(f"upload-{number % 4}", _changed(file, number), licence=inputs.LICENCE)


def _changed(file: bytes, number: int) -> bytes:
    """The same model in another file: with one more entry in its metadata (ModelProto's field 14)."""
    entry = b"".join(
        bytes([tag, len(text)]) + text for tag, text in ((0x0A, b"bench"), (0x12, str(number).encode()))
    )
    return file + bytes([0x72, len(entry)]) + entry


def _add(case: Mapping[str, steady.Answers], found: Mapping[str, Mapping[str, Any]]) -> None:
    for tenant, answers in found.items():
        case[tenant].add(answers)


def _both(
    running: mesh.Mesh, neighbour: str, seconds: float, rate_a: float, rate_b: float, *, aside: bool
) -> dict[str, Any]:
    asking = {
        "a": steady.asking(running, "tenant-a", rate_a, seconds),
        "b": steady.asking(
            running, neighbour, rate_b, seconds, at_random=True, bombs=rate_b > rate_a, aside=aside
        ),
    }
    return {name: json.loads(process.communicate()[0]) for name, process in asking.items()}


@contextlib.contextmanager
def _uploading(running: mesh.Mesh, neighbour: str, *, aside: bool) -> Iterator[None]:
    """The neighbour uploads models meanwhile."""
    job = json.dumps({"home": str(running.home), "key": running.key(neighbour), "aside": aside})
    child = subprocess.Popen([sys.executable, "-m", "bench.noisy", "upload", job])
    try:
        yield
    finally:
        child.terminate()
        child.wait()


@contextlib.contextmanager
def _killing(running: mesh.Mesh, neighbour: str) -> Iterator[None]:
    """Kills the neighbour's runner again and again, as a model would that crashes it."""
    service = str(running.pid("detection"))
    child = subprocess.Popen([sys.executable, "-c", _KILLER, f"/{neighbour}", service, str(_KILL_EVERY_S)])
    try:
        yield
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait()


_KILLER = """
import sys, time
import psutil
from bench import common
common.stand_aside()
folder, service, every = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])  # only its runner may read its folder
while True:
    for child in psutil.Process(service).children():
        try:
            if folder in " ".join(child.cmdline()):
                child.kill()
        except psutil.Error:
            pass  # it was gone already
    time.sleep(every)
"""


if __name__ == "__main__":
    main()
