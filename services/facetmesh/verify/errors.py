"""What a verification that fails says."""

from __future__ import annotations


class VerificationError(Exception):
    """Something is not what it claims to be.

    Args:
        reason: UPPER_SNAKE_CASE, stable, for programs:

            RECEIPT_MALFORMED        not a receipt, or a part of it is missing
            KEY_MALFORMED            the verifier key is not one
            NOTE_MALFORMED           not a signed note
            NOTE_UNSIGNED            no signature by the given key
            NOTE_SIGNATURE_WRONG     a signature in the key's name that the key did not make
            CHECKPOINT_MALFORMED     a signed note, but not a checkpoint
            ORIGIN_MISMATCH          a checkpoint of another log than the key's
            PROOF_MALFORMED          a proof whose length or hashes cannot be right
            NOT_INCLUDED             the entry is not in the checkpoint's log
            SERVICE_KEY_NOT_INCLUDED the signing key's announcement is not in the checkpoint's log
            NOT_CONSISTENT           the newer log does not continue the older one
            EVENT_MALFORMED          not a signed event
            EVENT_KEY_UNKNOWN        signed with a key that nobody vouches for
            EVENT_SIGNATURE_WRONG    not signed with the key that it names
            SERVICE_MISMATCH         signed by another service than the one it is said to come from
            ANNOUNCEMENT_MALFORMED   not the announcement of a service's key
            LOG_ROLLED_BACK          the log is shorter than it was
            LOG_FORKED               the log does not continue what it showed before, or showed another
            CHECKPOINTS_MALFORMED    not the file of a monitor
            NAME_MISMATCH            the receipt's name is not its event's

        message: One sentence for people.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
