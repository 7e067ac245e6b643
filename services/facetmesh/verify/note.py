"""Signed notes (C2SP signed-note), with Ed25519 signatures.

A note is a text, an empty line, and a line for each signature:

    — name base64(4 bytes of the key's hash, the signature)

Source: https://c2sp.org/signed-note. Signatures by keys that are not asked for
are ignored, as the specification wants: witnesses may add theirs.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from facetmesh.verify.errors import VerificationError

ED25519 = b"\x01"
"""The byte that stands for the signature's type."""
KEY_HASH_BYTES = 4
SIGNATURE_PREFIX = "— "
_PUBLIC_KEY_BYTES = 32
_MAX_BYTES = 1_000_000
_MAX_SIGNATURES = 100


def key_hash(name: str, public_key: bytes) -> bytes:
    """What tells keys of one name apart: 4 bytes of SHA-256.

    Args:
        name: The key's name.
        public_key: 32 bytes.
    """
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public_key).digest()[:KEY_HASH_BYTES]


def valid_name(name: str) -> bool:
    """Whether a key may be named so: not empty, no spaces, no plus, nothing unprintable."""
    return bool(name) and name.isprintable() and not any(c.isspace() or c == "+" for c in name)


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A named Ed25519 public key."""

    name: str
    """Such as facetmesh.local/audit: for a log, its origin."""
    public_key: bytes
    """32 bytes."""

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """The key that text encodes as name+hash+key.

        Raises:
            VerificationError: KEY_MALFORMED.
        """
        # The key's own base64 may contain a plus: it comes last.
        name, _, rest = text.strip().partition("+")
        hashed, _, encoded = rest.partition("+")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not valid_name(name) or key[:1] != ED25519 or len(key) != len(ED25519) + _PUBLIC_KEY_BYTES:
            raise VerificationError("KEY_MALFORMED", "Not an Ed25519 verifier key of the form name+hash+key.")
        verifier = cls(name, key[len(ED25519) :])
        if hashed != verifier.hash.hex():
            raise VerificationError("KEY_MALFORMED", "The verifier key's hash is not that of its name and key.")
        return verifier

    @property
    def hash(self) -> bytes:
        """4 bytes that stand for the key in a signature line."""
        return key_hash(self.name, self.public_key)

    def __str__(self) -> str:
        """The key as name+hash+key, which `parse` reads."""
        return f"{self.name}+{self.hash.hex()}+{base64.b64encode(ED25519 + self.public_key).decode()}"


def open_note(note: str, verifier: VerifierKey) -> str:
    """The text of a note that the verifier's key signed, with its last newline.

    Raises:
        VerificationError: NOTE_MALFORMED, NOTE_UNSIGNED or NOTE_SIGNATURE_WRONG.
    """
    text, signatures = _split(note)
    found = next((s for s in signatures if s[:2] == (verifier.name, verifier.hash)), None)
    if found is None:
        raise VerificationError("NOTE_UNSIGNED", f"The note carries no signature by {verifier.name}.")
    try:
        Ed25519PublicKey.from_public_bytes(verifier.public_key).verify(found[2], text.encode())
    except InvalidSignature:
        raise VerificationError("NOTE_SIGNATURE_WRONG", f"{verifier.name} did not sign this note.") from None
    return text


def _split(note: str) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """A note's text, and for each signature the key's name, its hash and the signature."""
    if len(note) > _MAX_BYTES or any(c < " " and c != "\n" for c in note):
        raise VerificationError("NOTE_MALFORMED", "Not a note: too large, or it contains control characters.")
    text, separator, block = note.rpartition("\n\n")
    if not separator or not text or not block.endswith("\n"):
        raise VerificationError("NOTE_MALFORMED", "Not a note: a text, an empty line and signatures are expected.")
    lines = block[:-1].split("\n")
    if len(lines) > _MAX_SIGNATURES:
        raise VerificationError("NOTE_MALFORMED", f"The note carries more than {_MAX_SIGNATURES} signatures.")
    return text + "\n", [_signature(line) for line in lines]


def _signature(line: str) -> tuple[str, bytes, bytes]:
    name, _, encoded = line.removeprefix(SIGNATURE_PREFIX).partition(" ")
    try:
        signature = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        signature = b""
    if base64.b64encode(signature).decode() != encoded:
        signature = b""  # the last character has bits that mean nothing: one spelling only
    if not line.startswith(SIGNATURE_PREFIX) or not valid_name(name) or len(signature) <= KEY_HASH_BYTES:
        raise VerificationError("NOTE_MALFORMED", "A line below the note's text is not a signature.")
    return name, signature[:KEY_HASH_BYTES], signature[KEY_HASH_BYTES:]
