"""Receipts: proof of what was done, checked offline with the log's public key alone.

The chain, from the key that you hold to the event that you want to believe:

1. The log signed the checkpoint: this is the log, at this size and root hash.
2. The event's entry is under that root hash. The entry commits to exactly this
   event and salt, so the log cannot deny it or show somebody else another one.
3. The service that the event names signed it, with the key in the second proof.
4. That key's announcement is under the same root hash.

What is left to trust is that the log announces no key that is not the service's.
It takes in announcements from nobody but itself, at its start, from the operator's
list of keys; audit's own key comes first and signs itself. So a false key can
only be the operator's doing, it is in the log for ever, and every receipt that
rests on it carries the evidence: the operator can lie, but not unsay it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from google.protobuf import json_format
from google.protobuf.message import DecodeError

from facetmesh.audit.v1.audit_pb2 import LogProof, Receipt
from facetmesh.verify.checkpoint import Checkpoint, open_checkpoint
from facetmesh.verify.entry import SALT_BYTES, entry
from facetmesh.verify.errors import VerificationError
from facetmesh.verify.event import open_announcement, open_event
from facetmesh.verify.merkle import leaf_hash, verify_inclusion

if TYPE_CHECKING:
    from facetmesh.event.v1.event_pb2 import AuditEvent

_MAX_BYTES = 1 << 20


def load_receipt(data: bytes) -> Receipt:
    """The receipt in a file: protobuf's JSON form, or binary.

    Raises:
        VerificationError: RECEIPT_MALFORMED.
    """
    try:
        if len(data) > _MAX_BYTES:
            raise VerificationError("RECEIPT_MALFORMED", "Too large for a receipt.")
        if data.lstrip().startswith(b"{"):
            return json_format.Parse(data, Receipt())
        return Receipt.FromString(data)
    except (DecodeError, json_format.ParseError, UnicodeDecodeError, RecursionError):
        raise VerificationError("RECEIPT_MALFORMED", "Not a receipt, neither in JSON nor in binary form.") from None


def dump_receipt(receipt: Receipt) -> str:
    """The receipt in protobuf's JSON form, as it is kept in files."""
    return json_format.MessageToJson(receipt, indent=2) + "\n"


def verify_receipt(receipt: Receipt, verifier_key: str) -> AuditEvent:
    """What the receipt proves.

    Args:
        receipt: The receipt.
        verifier_key: The log's key as name+hash+key. Have it from elsewhere than the receipt.

    Raises:
        VerificationError: With the reason why the receipt proves nothing.
    """
    checkpoint = open_checkpoint(receipt.checkpoint, verifier_key)
    _verify_proof(receipt.event, checkpoint, "NOT_INCLUDED")
    _verify_proof(receipt.service_key, checkpoint, "SERVICE_KEY_NOT_INCLUDED")
    key = open_announcement(receipt.service_key.signed_event)
    event = open_event(receipt.event.signed_event, {key.id: key})
    if receipt.name != f"{event.tenant}/receipts/{event.id}":
        raise VerificationError("NAME_MISMATCH", f"The receipt of event {event.id} is named {receipt.name!r}.")
    return event


def matches_input(event: AuditEvent, content: bytes) -> bool:
    """Whether content, such as an image file's bytes, was an input of what the event records."""
    return _salted(event, content) in event.input_hashes


def matches_output(event: AuditEvent, content: bytes) -> bool:
    """Whether content, such as a result's bytes, is what the event records as its output."""
    return _salted(event, content) == event.output_hash


def _salted(event: AuditEvent, content: bytes) -> bytes:
    return hashlib.sha256(event.content_salt + hashlib.sha256(content).digest()).digest()


def _verify_proof(proof: LogProof, checkpoint: Checkpoint, reason: str) -> None:
    """Returns when the proof's event is what stands at its index under the checkpoint's root hash."""
    if len(proof.salt) != SALT_BYTES or not proof.signed_event:
        raise VerificationError("RECEIPT_MALFORMED", "The receipt lacks an event or its salt.")
    try:
        verify_inclusion(
            leaf=leaf_hash(entry(proof.salt, proof.signed_event)), index=proof.index, size=checkpoint.size,
            proof=proof.hashes, root=checkpoint.root,
        )
    except VerificationError as error:
        if error.reason != "NOT_INCLUDED":
            raise
        raise VerificationError(reason, error.message) from None
