"""What the faults did, for docs/faults.md: kept where FACETMESH_CHAOS_RESULTS names a file, as JSON lines."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .load import Load

VARIABLE = "FACETMESH_CHAOS_RESULTS"
ROUNDS = int(os.environ.get("FACETMESH_CHAOS_ROUNDS", "1"))
"""How often each fault is tried: once, in the short form."""
LASTS_S = 10 if ROUNDS > 1 else 6
"""How long a fault lasts, in seconds: in the short form only longer than any call's patience."""


@dataclass
class Result:
    """One fault, tried so often. What was lost is not here: a test that finds anything lost fails."""

    fault: str
    """In words, as the table has it."""
    provider: str
    back_s: list[float] = field(default_factory=list)
    """Of each try: from the fault's end (for a kill: from the kill) until all services answered, in seconds."""
    receipts: int = 0
    """Answers with a receipt that were acknowledged, all of them found in the log, once."""
    fusions: int = 0
    """Fusions that were accepted, all of them finished."""
    refusals: int = 0
    """Calls that were refused meanwhile, each with a reason."""
    memory_ratio: float | None = None
    """Memory of all processes after the last try, as a part of that after the second; None for fewer than ten."""

    def count(self, load: Load) -> None:
        """Adds what a load was told."""
        self.receipts += len(load.receipts)
        self.fusions += len(load.operations)
        self.refusals += load.refusals.total()

    def keep(self) -> None:
        """Writes it down."""
        if path := os.environ.get(VARIABLE):
            with Path(path).open("a") as file:
                file.write(json.dumps(asdict(self)) + "\n")
