"""Checks receipts and checkpoints offline. Imports nothing of the server and needs only the base install.

    event = verify_receipt(load_receipt(path.read_bytes()), verifier_key)
    matches_input(event, image.read_bytes())

The formats are other people's where there are some: RFC 6962's Merkle trees,
C2SP's signed notes and checkpoints. The audit service writes what is read here
with this package's own definitions.
"""

from facetmesh.verify.checkpoint import Checkpoint, open_checkpoint, verify_growth
from facetmesh.verify.errors import VerificationError
from facetmesh.verify.merkle import verify_consistency, verify_inclusion
from facetmesh.verify.monitor import Monitor
from facetmesh.verify.note import VerifierKey, open_note
from facetmesh.verify.receipt import dump_receipt, load_receipt, matches_input, matches_output, verify_receipt

__all__ = [
    "Checkpoint",
    "Monitor",
    "VerificationError",
    "VerifierKey",
    "dump_receipt",
    "load_receipt",
    "matches_input",
    "matches_output",
    "open_checkpoint",
    "open_note",
    "verify_consistency",
    "verify_growth",
    "verify_inclusion",
    "verify_receipt",
]
