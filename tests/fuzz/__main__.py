"""`python -m tests.fuzz SECONDS [TARGET…]`: fuzzes each target, all by default, in a process of its own.

Corpora grow from run to run in out/fuzz, and what was found is kept beside them.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

OUT = Path("out") / "fuzz"
_OPTIONS = ("-timeout=60", "-rss_limit_mb=2048", "-max_len=65536", "-print_final_stats=1", "-verbosity=0")
_INSTRUMENTED = ("facetmesh", "PIL", "ast", "google.protobuf", "json", "jwt", "zipfile")


def main() -> None:
    """Fuzzes; with "one", does so with one target in this process."""
    if sys.argv[1] == "one":
        one(sys.argv[2], sys.argv[3:])
        return
    from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - who fuzzes imports them under the eyes of atheris

    found = []
    for name in sys.argv[2:] or TARGETS:
        corpus = OUT / name
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(TARGETS[name].seeds()):
            (corpus / f"seed-{number}").write_bytes(seed)
        limits = (f"-max_total_time={sys.argv[1]}", f"-artifact_prefix={OUT}/{name}-")
        command = [sys.executable, "-m", "tests.fuzz", "one", name, str(corpus), *limits, *_OPTIONS]
        done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True, errors="replace")
        runs = [line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line]
        sys.stdout.write(f"{name:10} {(*runs, '?')[0]:>10} runs\n")
        if done.returncode:
            told = [line for line in done.stderr.splitlines(keepends=True) if not line.startswith("INFO:")]
            sys.stdout.writelines(told)
            found.append(name)
        sys.stdout.flush()
    sys.exit(f"found something: {', '.join(found)}" if found else 0)


def one(name: str, options: list[str]) -> None:
    """Fuzzes a target until its time is over or something is found."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=list(_INSTRUMENTED)):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415 - as above
    target = TARGETS[name]
    for seed in target.seeds():
        target(seed)
    atheris.Setup([name, *options], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
