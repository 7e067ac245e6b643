"""The runners that a test has started."""

from __future__ import annotations

import contextlib

import psutil


def runner_processes() -> list[psutil.Process]:
    """This process's children that are runners: other tests' servers may be among its children too."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "facetmesh.runners.worker" in child.cmdline():
                found.append(child)
    return found
