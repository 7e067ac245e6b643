"""The servers that people would pick instead, each in an environment of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench import inputs
from facetmesh.kit import catalog
from facetmesh.runners.probe import probe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PROGRAMS = Path(__file__).parent / "peers"
_START_S = 120.0
_STOP_S = 20.0
_ENGINE = ("openvino==2026.4.1", "opencv-python-headless", "numpy")


@dataclass(frozen=True, slots=True)
class Peer:
    """A server."""

    name: str
    requirements: tuple[str, ...]
    """What its environment has beside the engine."""
    command: tuple[str, ...]
    """What starts it in that environment; {python}, {port}, {port2}, {folder} and {programs} are filled in."""
    path: str = "/detect"
    """Where images are posted."""
    form: str = ""
    """The form's field that the image is posted in; it is the body where there is none."""
    prepare: tuple[str, ...] = ()
    """What is run before, to write its configuration into {folder}."""
    kind: str = "http"
    base: str = ""
    """The environment in the cache that its own stands on, which `make` makes, for what has gigabytes."""
    interpreter: str = sys.executable
    """The Python that its environment is made with."""
    environment: Mapping[str, str] = field(default_factory=dict)


PEERS: Sequence[Peer] = (
    Peer(
        "MLServer", ("mlserver==1.7.1", "uvloop<0.22"), ("{bin}/mlserver", "start", "{folder}"), kind="v2",
        prepare=("{python}", "{programs}/serve_mlserver.py", "{folder}", "{photo}", "{port2}", "{port}", "{port3}"),
    ),
    Peer("mosec", ("mosec==0.9.8",), ("{python}", "{programs}/serve_mosec.py", "--port", "{port}"), path="/inference"),
    Peer(
        "LitServe", ("litserve==0.2.19", "python-multipart"), ("{python}", "{programs}/serve_litserve.py"),
        path="/predict", form="photo",
    ),
    Peer(
        "BentoML", ("bentoml",),
        ("{bin}/bentoml", "serve", "serve_bentoml:Detect", "--working-dir", "{programs}", "--host", "127.0.0.1",
         "--port", "{port}", "--api-workers", "1"),
        form="photo", environment={"BENTOML_DO_NOT_TRACK": "True"},
    ),
    Peer(
        "Triton", ("nvidia-pytriton==0.7.0",),
        ("{python}", "{programs}/serve_triton.py", "serve", "{port2}", "{port3}"), kind="v2",
        prepare=("{python}", "{programs}/serve_triton.py", "prepare", "{folder}", "{photo}"),
        # It has a first Python 3.11 in itself, which a last one's standard library does not fit: Debian's is 3.11.2.
        interpreter="/usr/bin/python3",
    ),
    Peer("FastAPI", ("fastapi", "uvicorn[standard]"), ("{python}", "{programs}/serve_fastapi.py")),
    Peer(
        "ultralytics", ("fastapi", "uvicorn[standard]", "python-multipart", "onnxruntime>=1.23"),
        ("{python}", "{programs}/serve_ultralytics.py"), form="photo", base="convert-env",
        environment={"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"},
    ),
    Peer(
        "Ray Serve", ("ray[serve]",), ("{python}", "{programs}/serve_ray.py"),
        environment={"RAY_USAGE_STATS_ENABLED": "0"},
    ),
)  # fmt: skip

VARIANTS: Sequence[Mapping[str, str]] = (
    {"PEER_HINT": "LATENCY", "PEER_WORKERS": "1"},
    {"PEER_HINT": "THROUGHPUT", "PEER_WORKERS": str(len(os.sched_getaffinity(0)))},
)
"""How a server can be set up here: a process that has all cores, or one for each."""


def install(peer: Peer) -> Path:
    """The Python of the peer's environment, which is made at the first time.

    Raises:
        RuntimeError: What it stands on is not there.
    """
    place = inputs.folder() / "peers" / peer.name.lower().replace(" ", "-")
    python = place / "bin" / "python"
    done = place / ".done"
    base = catalog.cache_folder() / peer.base
    engine = () if peer.base else _ENGINE
    if peer.base and not (base / "done").exists():
        raise RuntimeError(f"{peer.name} stands on an environment that `make {peer.base}` makes")
    wanted = " ".join((*peer.requirements, *engine))
    if not done.exists() or done.read_text() != wanted:
        shutil.rmtree(place, ignore_errors=True)
        print(f"installing {peer.name}", flush=True)
        if shutil.which(peer.interpreter) is None:
            raise RuntimeError(f"{peer.name} needs {peer.interpreter}")
        subprocess.run([peer.interpreter, "-m", "venv", "--without-pip", str(place)], check=True)
        pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
        subprocess.run([*pip, "install", "-q", *peer.requirements, *engine], check=True)
        if peer.base:
            (packages,) = place.glob("lib/python*/site-packages")
            (theirs,) = base.glob("lib/python*/site-packages")
            (packages / "base.pth").write_text(f"{theirs}\n")
        done.write_text(wanted)
    return python


@contextmanager
def serving(peer: Peer, variant: Mapping[str, str]) -> Iterator[dict[str, object]]:
    """Runs a peer; gives what `load` needs to ask it.

    Raises:
        RuntimeError: It did not start.
    """
    python = install(peer)
    with tempfile.TemporaryDirectory() as folder:
        ports = [free_port() for _ in range(3)]
        names = {
            "python": str(python), "bin": str(python.parent), "folder": folder, "programs": str(PROGRAMS),
            "photo": str(inputs.photo()), "port": ports[0], "port2": ports[1], "port3": ports[2],
        }  # fmt: skip
        precision = probe(catalog.cache_folder()).chosen().precision
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ},
            **peer.environment, **variant, "PYTHONPATH": str(PROGRAMS), "PEER_PORT": str(ports[0]),
            "PEER_MODEL": str(inputs.model()), "PEER_PRECISION": precision or "",
        }  # fmt: skip
        if peer.prepare:
            subprocess.run([part.format(**names) for part in peer.prepare], env=environment, check=True)
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(
                [part.format(**names) for part in peer.command], env=environment, stdout=log, stderr=log,
                cwd=folder, start_new_session=True,
            )  # fmt: skip
        try:
            _await(process, ports[0], Path(folder) / "log", peer.name)
            address = f"127.0.0.1:{ports[0]}" if peer.kind == "v2" else f"http://127.0.0.1:{ports[0]}{peer.path}"
            yield {
                "kind": peer.kind, "pid": process.pid, "address": address, "field": peer.form,
                "request": f"{folder}/request",
            }  # fmt: skip
        finally:
            _stop(process)


def _await(process: subprocess.Popen[bytes], port: int, log: Path, name: str) -> None:
    """Waits until the port is open; clients wait for the model."""
    until = time.monotonic() + _START_S
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port), 1)):
            return
        time.sleep(0.2)
    raise RuntimeError(f"{name} did not start: {log.read_text(errors='replace')[-800:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
    process.wait()


def free_port() -> int:
    """A port that nobody has now."""
    with closing(socket.socket()) as probing:
        probing.bind(("127.0.0.1", 0))
        return int(probing.getsockname()[1])
