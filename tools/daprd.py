"""Sees to it that there are a daprd and its sentry, and prints where.

Run by `make daprd`. Those that are on the machine are taken when daprd's version will
do; otherwise they are built from the module in tools/daprd.
"""

from __future__ import annotations

from golang import Module

from facetmesh.cli.mesh import binaries

DAPR = Module(
    "daprd",
    pins="github.com/dapr/dapr",
    programs={
        "daprd": ".",
        **{name: f"github.com/dapr/dapr/cmd/{name}" for name in ("sentry", "injector")},
    },
    stamps=(
        "github.com/dapr/dapr/pkg/buildinfo.version={version}",
        "github.com/dapr/kit/logger.DaprVersion={version}",
    ),
)


def main() -> None:
    """Prints the paths of daprd and sentry."""
    installed = binaries.installed_daprd()
    beside = installed.with_name("sentry") if installed else None
    print(installed or DAPR.ensure("daprd"))  # noqa: T201 - the answer
    print(beside if beside and beside.exists() else DAPR.ensure("sentry"))  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
