"""The log's entries: fixed-size records that commit to an event and reveal nothing of it.

    entry = one byte of format, SHA-256 of ("facetmesh-entry-v1\n", salt, signed event)

The salt is 32 random bytes, so that nobody can find out by trying which event an
entry stands for. Who holds event and salt can show that they are what was logged.
"""  # noqa: D301 - the \n is the format's

from __future__ import annotations

import hashlib

SALT_BYTES = 32
ENTRY_BYTES = 33
_FORMAT = b"\x01"
_CONTEXT = b"facetmesh-entry-v1\n"


def entry(salt: bytes, signed_event: bytes) -> bytes:
    """The entry of an event, 33 bytes.

    Args:
        salt: 32 random bytes.
        signed_event: The serialized facetmesh.event.v1.SignedEvent.

    Raises:
        ValueError: The salt has another length, which would let its end pass for the event's beginning.
    """
    if len(salt) != SALT_BYTES:
        raise ValueError(f"the salt must have {SALT_BYTES} bytes, not {len(salt)}")
    return _FORMAT + hashlib.sha256(_CONTEXT + salt + signed_event).digest()
