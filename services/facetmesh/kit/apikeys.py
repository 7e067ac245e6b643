"""The text of API keys: fm_{owner}_{id}_{secret}{checksum}.

The prefix and the checksum let scanners recognise a leaked key, and let us refuse
a mistyped one without looking anything up. Owner and id are no secrets.
"""

from __future__ import annotations

import re
import secrets
import string
import zlib
from dataclasses import dataclass

PREFIX = "fm"
PLATFORM = "platform"
"""The owner of the administrator's key."""
SERVICES = "services"
"""The owner of the keys of the mesh's own services; the id is the service."""
_ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
_SECRET_CHARS = 43  # 256 bits
_CHECKSUM_CHARS = 6
_TEXT = re.compile(
    rf"{PREFIX}_([a-z][a-z0-9-]{{1,38}}[a-z0-9])_([a-z0-9-]{{1,64}})"
    rf"_([0-9A-Za-z]{{{_SECRET_CHARS}}})([0-9A-Za-z]{{{_CHECKSUM_CHARS}}})"
)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The parts of a key."""

    owner: str
    """A tenant's id, PLATFORM or SERVICES."""
    id: str
    """Which of the owner's keys."""


def new_key(owner: str, key_id: str) -> str:
    """The text of a new key, with 256 random bits."""
    body = f"{PREFIX}_{owner}_{key_id}_{''.join(secrets.choice(_ALPHABET) for _ in range(_SECRET_CHARS))}"
    return body + _checksum(body)


def parse(text: str) -> ApiKey | None:
    """The parts of a key; None when it was not made by new_key."""
    match = _TEXT.fullmatch(text)
    if match is None or _checksum(text[:-_CHECKSUM_CHARS]) != match[4]:
        return None
    return ApiKey(match[1], match[2])


def _checksum(text: str) -> str:
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(_CHECKSUM_CHARS):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
