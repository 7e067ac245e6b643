"""`facetmesh` and `python -m facetmesh.cli`. Apart from main.py, so that Ctrl-C while that is read is an interrupt."""

import sys

_INTERRUPTED = 130


def main() -> None:
    """Runs the command line, as main.py says."""
    try:
        from facetmesh.cli.main import main as run  # noqa: PLC0415 - it takes a while
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
