"""The fleet that its tests share."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.cluster.controlplane import control_plane

from .fleet import LONG, aggregation, start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .fleet import Fleet

_TOOL = Path(__file__).resolve().parents[2] / "tools" / "fleet.py"
_BUILD_S = 3600


@pytest.fixture(scope="package")
def parts() -> Any:
    """The programs, resource definitions and stages, built and fetched if they are not here."""
    command = [sys.executable, _TOOL, *(["--keda"] if LONG else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=_BUILD_S)
    return json.loads(done.stdout)


@pytest.fixture(scope="package")
def fleet(parts: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Nodes that are ready, and nothing on them."""
    folder = tmp_path_factory.mktemp("fleet")
    with control_plane(folder, parts["programs"], aggregation(folder)) as cluster:
        cluster.define(parts["definitions"])
        yield start(cluster, parts["stages"])
