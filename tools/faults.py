"""Tries each fault of tests/chaos on real processes, and writes docs/faults.md from what was seen.

python tools/faults.py                try each fault ten times (an hour), then write
python tools/faults.py --rounds 2     fewer, which says nothing of memory
python tools/faults.py --write        write the page again from the last run's results

What else is given goes to pytest, such as the tests to run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.common import RESULTS, Machine, busy, write  # noqa: E402 - bench is no installed package

PAGE = ROOT / "docs" / "faults.md"
NAME = "faults"
INTRODUCTION = """\
# What happens when something breaks

Each fault is done to real processes while clients detect and fuse. What a client was told (an answer with a receipt, a
fusion that was accepted) must be in the audit log once and finished, or the test fails: so the table has no column for
what was lost. Nothing was. `make test-chaos` runs it and writes this page; `tests/chaos` has the faults.

*Back after* is from the fault's end (for a kill: from the kill; for what is so from the start: from the start of what
came last) until all four services answered, in seconds: the median and the longest of all tries. A call that was
refused meanwhile had a reason; clients of ours try again by themselves, so that few faults are seen at all. *Memory* is
that of all processes after the last try, as a part of that after the second, where there were ten tries. What is
killed again within half a minute waits before it is started anew, three seconds at the most: the longest times of ten
tries have that in them.
"""


def main() -> None:
    """Runs the faults and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10, help="how often each fault is tried")
    parser.add_argument("--write", action="store_true", help="only write the page, from the last results")
    given, pytest_arguments = parser.parse_known_args()
    failed = 0
    if not given.write:
        failed = _run(given.rounds, pytest_arguments)
    PAGE.write_text(_page(json.loads((RESULTS / f"{NAME}.json").read_text())))
    sys.exit(failed)


def _run(rounds: int, pytest_arguments: list[str]) -> int:
    lines = RESULTS / f"{NAME}.jsonl"
    lines.unlink(missing_ok=True)
    lines.parent.mkdir(exist_ok=True)
    others = busy()
    variables = {"FACETMESH_CHAOS_RESULTS": str(lines), "FACETMESH_CHAOS_ROUNDS": str(rounds)}
    command = [sys.executable, "-m", "pytest", "-m", "full", *(pytest_arguments or ["tests/chaos"])]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **variables}, check=False)  # noqa: S603 - ourselves
    found = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    lines.unlink(missing_ok=True)
    figures = {"complete": done.returncode == 0, "faults": found}
    write(NAME, Machine.here("grpcio", "dapr"), figures, busy=others or busy())
    return done.returncode


def _page(results: dict[str, Any]) -> str:
    machine = results["machine"]
    noise = "\nOther work ran on it meanwhile, which makes every time longer." if results["busy"] else ""
    early = "" if results["complete"] else "\nThe run did not go through: what has no line was not tried."
    rows = [
        ("fault", "provider", "tries", "receipts, all found", "fusions, all finished", "calls refused", "back after",
         "memory"),
        ("---",) * 8,
        *(_row(one) for one in results["faults"]),
    ]  # fmt: skip
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}"
    return f"{INTRODUCTION}\nMeasured {results['measured']} on {where}.{noise}{early}\n\n{table}\n"


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    back = one["back_s"]
    ratio = one["memory_ratio"]
    return (
        one["fault"], one["provider"], str(len(back)), f"{one['receipts']:,}", f"{one['fusions']:,}",
        f"{one['refusals']:,}", f"{median(back):.1f}, {max(back):.1f}", "" if ratio is None else f"{ratio:.2f}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
