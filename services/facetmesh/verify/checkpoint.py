"""Checkpoints of a log (C2SP tlog-checkpoint): its size and root hash, signed.

Source: https://c2sp.org/tlog-checkpoint.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facetmesh.verify.errors import VerificationError
from facetmesh.verify.merkle import HASH_BYTES, verify_consistency
from facetmesh.verify.note import VerifierKey, open_note

if TYPE_CHECKING:
    from collections.abc import Sequence

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_LINES = 3


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log says of itself at one moment."""

    origin: str
    """The log's name."""
    size: int
    """How many entries it has."""
    root: bytes
    """Its root hash, 32 bytes."""

    def __str__(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """The checkpoint in a note's text. Extension lines are allowed and ignored.

        Raises:
            VerificationError: CHECKPOINT_MALFORMED.
        """
        lines = text.split("\n")
        if len(lines) <= _LINES or lines[-1] or not all(lines[:-1]) or not _SIZE.fullmatch(lines[1]):
            raise VerificationError("CHECKPOINT_MALFORMED", "Lines of origin, size and root hash are expected.")
        try:
            root = base64.b64decode(lines[2], validate=True)
        except (binascii.Error, ValueError):
            root = b""
        if len(root) != HASH_BYTES:
            raise VerificationError("CHECKPOINT_MALFORMED", "The root hash is not one.")
        return cls(lines[0], int(lines[1]), root)


def open_checkpoint(note: str, verifier_key: str) -> Checkpoint:
    """The checkpoint in a note that the log signed.

    Args:
        note: The signed note.
        verifier_key: The log's key as name+hash+key. Have it from elsewhere than the log.

    Raises:
        VerificationError: KEY_MALFORMED, NOTE_*, CHECKPOINT_MALFORMED or ORIGIN_MISMATCH.
    """
    verifier = VerifierKey.parse(verifier_key)
    checkpoint = Checkpoint.parse(open_note(note, verifier))
    if checkpoint.origin != verifier.name:
        raise VerificationError("ORIGIN_MISMATCH", f"A checkpoint of {checkpoint.origin}, not of {verifier.name}.")
    return checkpoint


def verify_growth(old: Checkpoint, new: Checkpoint, proof: Sequence[bytes]) -> None:
    """Returns when the newer checkpoint's log continues the older one's: nothing was changed or taken away.

    Raises:
        VerificationError: ORIGIN_MISMATCH, PROOF_MALFORMED or NOT_CONSISTENT.
    """
    if old.origin != new.origin:
        raise VerificationError("ORIGIN_MISMATCH", f"Checkpoints of two logs: {old.origin} and {new.origin}.")
    verify_consistency(
        old_size=old.size, new_size=new.size, old_root=old.root, new_root=new.root, proof=proof,
    )
