"""The ids of audit events: nobody can guess one, and they sort by time.

They are those of UUIDs of version 7 (RFC 9562), which spend six bits on saying so. That
they sort keeps the audit log cheap: it knows each id for ever, to recognise repeats, and
an index that grows at its end writes a few pages where one of random ids writes a page
for each event.
"""

from __future__ import annotations

import secrets
import time

_TIME_BYTES = 6
_RANDOM_BYTES = 10


def new_event_id() -> str:
    """32 hex characters: the time in milliseconds, then 80 random bits."""
    return (time.time_ns() // 1_000_000).to_bytes(_TIME_BYTES, "big").hex() + secrets.token_hex(_RANDOM_BYTES)
