"""Follows a log from outside: keeps the checkpoints that were seen, and compares each new one with them.

What a log says to one monitor it can deny to another. Monitors that exchange
their files (`Monitor.compare`) notice.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from facetmesh.verify.checkpoint import Checkpoint, open_checkpoint, verify_growth
from facetmesh.verify.errors import VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_BEGINNING = '{"time_s": '
"""How each line of a monitor's file begins."""

Prove: TypeAlias = "Callable[[int, int], Sequence[bytes]]"
"""Gets the consistency proof between two sizes of the log."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A checkpoint that was seen."""

    time_s: float
    """When it was seen first, in seconds since the epoch."""
    note: str
    checkpoint: Checkpoint


class Monitor:
    """The checkpoints of one log, in a file of JSON lines.

    Args:
        verifier_key: The log's key as name+hash+key, from elsewhere than the log.
        file: Where they are kept; made with the first.
        clock: Seconds since the epoch.

    Raises:
        VerificationError: The file has something that is no checkpoint of this log.
    """

    def __init__(self, verifier_key: str, file: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._key = verifier_key
        self._file = file
        self._clock = clock
        self.seen = _read_own(file, verifier_key) if file.exists() else []
        """The checkpoints, the oldest first."""

    def check(self, note: str, prove: Prove) -> Checkpoint:
        """The checkpoint in a note, which continues all that were seen before.

        Args:
            note: The log's newest checkpoint.
            prove: Gets the consistency proof between two sizes.

        Raises:
            VerificationError: LOG_ROLLED_BACK, LOG_FORKED, or what is wrong with the note.
        """
        new = open_checkpoint(note, self._key)
        old = self.seen[-1].checkpoint if self.seen else None
        if old is not None:
            compare(old, new, prove)
            if new.size == old.size:
                return new
        self._keep(Seen(self._clock(), note, new))
        return new

    def compare(self, others: Sequence[Seen], prove: Prove) -> None:
        """Returns when what another monitor saw is of the same log.

        Raises:
            VerificationError: LOG_FORKED: the log showed two faces.
        """
        everything = sorted([*self.seen, *others], key=lambda seen: seen.checkpoint.size)
        for older, newer in itertools.pairwise(everything):
            compare(older.checkpoint, newer.checkpoint, prove)

    def idle_s(self) -> float:
        """How long the log has not grown, in seconds; 0 when nothing was seen yet."""
        return self._clock() - self.seen[-1].time_s if self.seen else 0.0

    def _keep(self, seen: Seen) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps({"time_s": seen.time_s, "note": seen.note}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.seen.append(seen)


def compare(old: Checkpoint, new: Checkpoint, prove: Prove) -> None:
    """Returns when the newer checkpoint's log continues the older one's.

    Raises:
        VerificationError: LOG_ROLLED_BACK or LOG_FORKED.
    """
    if new.size < old.size:
        raise VerificationError(
            "LOG_ROLLED_BACK", f"The log had {old.size} entries, and now says that it has {new.size}."
        )
    try:
        proof = prove(old.size, new.size) if 0 < old.size < new.size else []
        verify_growth(old, new, proof)
    except VerificationError as error:
        raise VerificationError("LOG_FORKED", error.message) from None


def read(file: Path, verifier_key: str) -> list[Seen]:
    """The checkpoints in a monitor's file. A line without an end is none: a full disk or a crash cut it off.

    Raises:
        VerificationError: CHECKPOINTS_MALFORMED, or what is wrong with one.
    """
    whole, _, rest = file.read_text().rpartition("\n")
    lines = whole.splitlines()
    if rest[: len(_BEGINNING)] != _BEGINNING[: len(rest)]:
        lines.append(rest)
    seen = []
    for line in lines:
        try:
            kept = json.loads(line)
            note, time_s = str(kept["note"]), float(kept["time_s"])
        except (ValueError, TypeError, KeyError):
            raise VerificationError("CHECKPOINTS_MALFORMED", f"{file} is no monitor's file.") from None
        seen.append(Seen(time_s, note, open_checkpoint(note, verifier_key)))
    return seen


def _read_own(file: Path, verifier_key: str) -> list[Seen]:
    """As `read`; what was cut off is gone from the file then, so that it can go on."""
    seen = read(file, verifier_key)
    os.truncate(file, file.read_bytes().rfind(b"\n") + 1)
    return seen
