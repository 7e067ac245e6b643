"""Signs checkpoints (C2SP signed-note); `facetmesh.verify.note` reads them."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from facetmesh.verify.checkpoint import Checkpoint
from facetmesh.verify.note import SIGNATURE_PREFIX, VerifierKey, valid_name


class LogSigner:
    """The log's own key.

    Args:
        origin: The log's name, such as facetmesh.local/audit: what its checkpoints begin with.
        seed: The 32 raw private bytes of an Ed25519 key.

    Raises:
        ValueError: The origin cannot be a key's name, or the seed is not 32 bytes long.
    """

    def __init__(self, origin: str, seed: bytes) -> None:
        if not valid_name(origin):
            raise ValueError(f"a log cannot be named {origin!r}")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = VerifierKey(origin, self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
        """What verifies the log."""

    def checkpoint(self, size: int, root: bytes) -> str:
        """The signed checkpoint of the log at this size. The same for the same log: it has no time in it."""
        return self.sign(str(Checkpoint(self.verifier.name, size, root)))

    def sign(self, text: str) -> str:
        """The signed note of a text that ends with a newline."""
        signature = base64.b64encode(self.verifier.hash + self._key.sign(text.encode())).decode()
        return f"{text}\n{SIGNATURE_PREFIX}{self.verifier.name} {signature}\n"
