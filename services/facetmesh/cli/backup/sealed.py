"""Secrets that leave the machine: encrypted under a passphrase, and bound to the backup they go with.

The key is derived by scrypt (RFC 7914), the cipher is AES-256-GCM. The authenticated data is
the digest of the backup's manifest, which has the digests of all files: who changes one of them
without the passphrase makes a backup that does not open.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import stat
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from facetmesh.kit.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAME = "secrets.sealed"
MIN_PASSPHRASE = 16
"""Characters. It stands between whoever gets hold of a backup and all that it holds."""
MAX_BYTES = 1 << 20
"""The largest file of sealed secrets that is read."""
# OWASP's choice for scrypt: 128 MiB of memory a try.
_COST, _BLOCK, _PARALLEL = 1 << 17, 8, 1
_KEY_BYTES = 32
_NONCE_BYTES = 12
_SALT_BYTES = 16


def passphrase(file: Path) -> bytes:
    """The passphrase in a file: its first line.

    Raises:
        FailedPrecondition: PASSPHRASE_EXPOSED; others may read the file.
        InvalidArgument: PASSPHRASE_WEAK; it is too short.
    """
    if stat.S_IMODE(file.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        raise FailedPrecondition(
            f"Others may read {file}: `chmod 600 {file}` first.", reason="PASSPHRASE_EXPOSED",
        )
    text = (file.read_text().splitlines() or [""])[0].strip()
    if len(text) < MIN_PASSPHRASE:
        raise InvalidArgument(
            f"The passphrase in {file} has {len(text)} characters; {MIN_PASSPHRASE} are the least. "
            f"`openssl rand -base64 32 > {file}` makes a good one.", reason="PASSPHRASE_WEAK",
        )
    return text.encode()


def seal(secrets: Mapping[str, str], phrase: bytes, manifest: bytes) -> bytes:
    """Secrets, by file name, as a file that only the passphrase opens, and only beside this manifest."""
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    sealed = AESGCM(_key(phrase, salt)).encrypt(nonce, json.dumps(dict(secrets)).encode(), _bound(manifest))
    content = {
        "kdf": "scrypt", "n": _COST, "r": _BLOCK, "p": _PARALLEL, "cipher": "AES-256-GCM",
        "salt": _text(salt), "nonce": _text(nonce), "sealed": _text(sealed),
    }  # fmt: skip
    return json.dumps(content, indent=1).encode() + b"\n"


def unseal(data: bytes, phrase: bytes, manifest: bytes) -> Mapping[str, str]:
    """The secrets, by file name.

    Raises:
        FailedPrecondition: SECRETS_INVALID: the file is not one of ours; SECRETS_LOCKED: the passphrase is another,
            or the manifest or the file was changed.
    """
    try:
        content = json.loads(data)
        parameters = tuple(content[name] for name in ("kdf", "n", "r", "p", "cipher"))
        salt, nonce, sealed = (base64.b64decode(content[name], validate=True) for name in ("salt", "nonce", "sealed"))
    except (ValueError, KeyError, TypeError) as error:
        raise FailedPrecondition(f"{NAME} is damaged: {error}.", reason="SECRETS_INVALID") from error
    # Others would be a way to make us use all memory.
    if parameters != ("scrypt", _COST, _BLOCK, _PARALLEL, "AES-256-GCM") or len(nonce) != _NONCE_BYTES:
        raise FailedPrecondition(f"{NAME} was not sealed by this version.", reason="SECRETS_INVALID")
    try:
        opened: dict[str, str] = json.loads(AESGCM(_key(phrase, salt)).decrypt(nonce, sealed, _bound(manifest)))
    except InvalidTag:
        raise FailedPrecondition(
            f"{NAME} does not open: the passphrase is another one, or the manifest was changed after it was sealed.",
            reason="SECRETS_LOCKED",
        ) from None
    return opened


def _key(phrase: bytes, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=_KEY_BYTES, n=_COST, r=_BLOCK, p=_PARALLEL).derive(phrase)


def _bound(manifest: bytes) -> bytes:
    return b"facetmesh-backup-v1\n" + hashlib.sha256(manifest).digest()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
