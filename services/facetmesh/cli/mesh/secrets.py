"""The secrets of a mesh on one machine, made once at its first start.

Each service gets a file of its own, which its sidecar's secret store serves to
it alone. All else that is derived from them (the admin's key file, the public
keys that audit trusts, the log's verifier key) is written again at each start.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from facetmesh.cli.mesh.ports import SERVICES
from facetmesh.kit import apikeys, credentials, errors, files
from facetmesh.verify import VerifierKey

if TYPE_CHECKING:
    from collections.abc import Mapping

    from facetmesh.cli.mesh.home import Home

LOG_ORIGIN = "facetmesh.local/audit"
"""The audit log's name, as its checkpoints say it."""
_PEM_END = "-----END PRIVATE KEY-----"
_COMMON = ("event-signing-key", "data-kek", "service-key")
_EXPECTED: Mapping[str, tuple[str, ...]] = {
    "auth": (*_COMMON, "admin-key", "service-keys", "key-pepper", "token-signing-key"),
    "detection": _COMMON,
    "fusion": _COMMON,
    "audit": (*_COMMON, "log-signing-key"),
}


def ensure(home: Home) -> None:
    """Makes the secrets at the first start, and checks that they are all there at any other.

    Raises:
        FailedPrecondition: SECRETS_INCOMPLETE; nothing is made anew, because what was encrypted
            or signed with the lost one could not be read or trusted again.
    """
    if not home.secrets.exists():
        _store(home, _fresh())
    _complete(home)
    stored = {service: _load(home, service) for service in SERVICES}
    files.write(home.admin_key, stored["auth"]["admin-key"] + "\n", mode=files.PRIVATE)
    public = {service: _encoded(_public(stored[service]["event-signing-key"])) for service in SERVICES}
    home.write(home.service_keys, public)
    log_key = VerifierKey(LOG_ORIGIN, _public(stored["audit"]["log-signing-key"]))
    files.write(home.log_key, f"{log_key}\n")


def rotate_token_key(home: Home, *, keep_old: bool) -> None:
    """Puts a new key that signs tokens before the one that does now; auth reads it within seconds.

    Args:
        home: The state folder.
        keep_old: Whether tokens that the key before signed are accepted until they expire.

    Raises:
        FailedPrecondition: SECRETS_INCOMPLETE; a secret is lost.
    """
    stored = dict(_load(home, "auth"))
    # The first signs. Of those before, only the last can have tokens that have not expired.
    last = "".join(stored["token-signing-key"].partition(_PEM_END)[:2])
    stored["token-signing-key"] = _token_key() + (f"{last}\n" if keep_old else "")
    files.write(home.secrets / "auth.json", json.dumps(stored, indent=2) + "\n", mode=files.PRIVATE)


def rotate_keks(home: Home) -> None:
    """Puts a new key-encryption key before those that each service has; the services read it within seconds.

    The old ones stay: what they wrapped is wrapped anew by services that run, and one that does not run now has
    to read it later.

    Raises:
        FailedPrecondition: SECRETS_INCOMPLETE; a secret is lost.
    """
    for service in SERVICES:
        stored = dict(_load(home, service))
        stored["data-kek"] = f"{_random()} {stored['data-kek']}"
        files.write(home.secrets / f"{service}.json", json.dumps(stored, indent=2) + "\n", mode=files.PRIVATE)


def _token_key() -> str:
    key = generate_private_key(SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _fresh() -> dict[str, dict[str, str]]:
    """New secrets for every service."""
    service_keys = {service: apikeys.new_key(apikeys.SERVICES, service) for service in SERVICES}
    made = {
        service: {
            "event-signing-key": _random(), "data-kek": _random(), "service-key": service_keys[service],
        }
        for service in SERVICES
    }
    made["auth"] |= {
        "admin-key": apikeys.new_key(apikeys.PLATFORM, "admin"),
        "service-keys": json.dumps(service_keys),
        "key-pepper": _random(),
        "token-signing-key": _token_key(),
    }
    made["audit"]["log-signing-key"] = _random()
    return made


def _complete(home: Home) -> None:
    """Adds what state folders of before do not have, and can get at any time."""
    path = home.secrets / "fusion.json"
    stored = dict(home.read(path))
    if stored and not stored.get(credentials.SECRET):
        stored[credentials.SECRET] = credentials.Credential.new(dt.datetime.now(dt.UTC)).pem()
        files.write(path, json.dumps(stored, indent=2) + "\n", mode=files.PRIVATE)


def _store(home: Home, made: Mapping[str, Mapping[str, str]]) -> None:
    """Writes all files or none, so that a start cut short can be repeated."""
    scratch = Path(tempfile.mkdtemp(dir=home.path, prefix=".secrets."))
    try:
        for service, content in made.items():
            files.write(scratch / f"{service}.json", json.dumps(content, indent=2) + "\n", mode=files.PRIVATE)
        scratch.rename(home.secrets)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    folder = os.open(home.path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _load(home: Home, service: str) -> Mapping[str, str]:
    """A service's secrets, all of them."""
    path = home.secrets / f"{service}.json"
    content = home.read(path)
    if missing := [name for name in _EXPECTED[service] if not content.get(name)]:
        raise errors.FailedPrecondition(
            f"{path} lacks {', '.join(missing)}. Restore the file from a backup; a new secret would not open what "
            "the lost one closed. To begin anew, choose another state folder.",
            reason="SECRETS_INCOMPLETE", metadata={"file": str(path)},
        )
    path.chmod(files.PRIVATE)
    return content


def _random() -> str:
    return _encoded(secrets.token_bytes(32))


def _encoded(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _public(seed: str) -> bytes:
    """The 32-byte Ed25519 public key of a base64 seed."""
    private = Ed25519PrivateKey.from_private_bytes(base64.b64decode(seed))
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
