"""Runs the audit service."""

from __future__ import annotations

import base64
import binascii
import json
import time
from pathlib import Path
from typing import ClassVar

from facetmesh.audit.announcements import announcement, in_order
from facetmesh.audit.connect import PASSWORD_SECRET, connector
from facetmesh.audit.history import History
from facetmesh.audit.intake import Intake
from facetmesh.audit.log import Log
from facetmesh.audit.note import LogSigner
from facetmesh.audit.receipts import Receipts
from facetmesh.audit.servicer import AuditServicer
from facetmesh.audit.store import Store
from facetmesh.audit.subscriber import Subscriber
from facetmesh.audit.v1 import audit_pb2_grpc
from facetmesh.kit.audit import TOPIC
from facetmesh.kit.errors import FailedPrecondition
from facetmesh.kit.serve import Mesh, open_mesh, run
from facetmesh.kit.settings import ServiceSettings, load
from facetmesh.kit.signing import EventSigner
from facetmesh.verify.event import ServiceKey


class AuditSettings(ServiceSettings):
    """What audit is told from outside."""

    service: ClassVar[str] = "audit"

    log_origin: str = "facetmesh.local/audit"
    """The log's name, as its checkpoints say it. It never changes: another name is another log."""
    log_file: Path = Path("audit.db")
    """The log's file; in the state folder when it is relative."""
    log_url: str = ""
    """The log in PostgreSQL instead, as postgresql://user@host/database; no password: that is a secret."""
    service_keys: Path = Path("service-keys.json")
    """The services' public keys, a JSON object of base64 by service; in the state folder when it is relative."""


def service_keys(path: Path) -> list[ServiceKey]:
    """The services' keys that the operator listed in the file at path.

    Raises:
        FailedPrecondition: They cannot be read.
    """
    try:
        listed = json.loads(path.read_text())
        keys = [ServiceKey(service, base64.b64decode(key, validate=True)) for service, key in listed.items()]
    except (OSError, ValueError, AttributeError, TypeError, binascii.Error) as error:
        raise FailedPrecondition(
            f"The services' public keys cannot be read from {path}: {error}", reason="SERVICE_KEYS_INVALID"
        ) from error
    if any(len(key.public_key) != 32 for key in keys):  # noqa: PLR2004 - Ed25519's length
        raise FailedPrecondition(f"A public key in {path} does not have 32 bytes.", reason="SERVICE_KEYS_INVALID")
    return keys


async def _password(mesh: Mesh, settings: AuditSettings) -> str | None:
    """The password of the log's database user; None where there is none."""
    if not settings.log_url:
        return None
    try:
        return await mesh.dapr.secrets().get(PASSWORD_SECRET)
    except FailedPrecondition:
        return None  # libpq has ways of its own: a password file, a certificate, the socket's owner


async def main() -> None:
    """Builds the service and serves it."""
    settings = load(AuditSettings)
    async with open_mesh(settings) as mesh:
        keys = service_keys(settings.home / settings.service_keys)
        keyring = await mesh.keyring(reopens=True)  # what is done to a purged tenant is logged too
        signer = LogSigner(settings.log_origin, await mesh.secret_bytes("log-signing-key"))
        own = EventSigner(settings.service, await mesh.secret_bytes("event-signing-key"))
        connect = connector(settings.home / settings.log_file, settings.log_url, await _password(mesh, settings))
        async with Store.open(connect) as store:
            log = await Log.open(store, keyring, signer, Intake(keys, time.time))
            for key in in_order(keys):
                await log.announce(announcement(key, own, now_s=time.time(), region=settings.region))
            servicer = AuditServicer(log, Receipts(log, keyring), History(store, keyring))
            await mesh.serve(
                lambda server: audit_pb2_grpc.add_AuditServiceServicer_to_server(servicer, server),
                services=["facetmesh.audit.v1.AuditService"],
                ready={"store": store.size},
                handlers={TOPIC: Subscriber(log).handle},
            )


if __name__ == "__main__":
    run(main)
