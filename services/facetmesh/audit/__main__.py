"""Runs the audit service."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import secrets
import time
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import yaml

from facetmesh.audit.announcements import announcement, in_order
from facetmesh.audit.connect import PASSWORD_SECRET, connector
from facetmesh.audit.files import LogFiles
from facetmesh.audit.history import History
from facetmesh.audit.intake import Intake
from facetmesh.audit.log import Log
from facetmesh.audit.note import LogSigner
from facetmesh.audit.receipts import Receipts
from facetmesh.audit.refused import RefusedEvents
from facetmesh.audit.retention import Retentions
from facetmesh.audit.rules import load_rules
from facetmesh.audit.servicer import AuditServicer
from facetmesh.audit.store import Store
from facetmesh.audit.subscriber import Subscriber
from facetmesh.audit.v1 import audit_pb2_grpc
from facetmesh.audit.watcher import Watcher
from facetmesh.kit.audit import TOPIC
from facetmesh.kit.dapr import Together
from facetmesh.kit.errors import FailedPrecondition
from facetmesh.kit.serve import Mesh, open_mesh, run
from facetmesh.kit.settings import ServiceSettings, load
from facetmesh.kit.signing import EventSigner
from facetmesh.verify.event import ServiceKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from facetmesh.audit.rules import Rule


_LARGEST_COMMIT = 1024
"""How many events a commit takes at most: a few of the sidecar's deliveries, where the log is behind."""


class AuditSettings(ServiceSettings):
    """What audit is told from outside."""

    service: ClassVar[str] = "audit"

    log_origin: str = "facetmesh.local/audit"
    """The log's name, as its checkpoints say it. It never changes: another name is another log."""
    log_file: Path = Path("audit.db")
    """The log's file; in the state folder when it is relative."""
    log_url: str = ""
    """The log in PostgreSQL instead, as postgresql://user@host/database; no password: that is a secret."""
    alert_rules: Path | None = None
    """A file with alert rules, instead of those that come with the service (alerts.yaml describes them)."""
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


def alert_rules(path: Path | None) -> list[Rule]:
    """The rules in a file, or those that come with the service.

    Raises:
        FailedPrecondition: ALERT_RULES_INVALID.
    """
    file = path or resources.files("facetmesh.audit") / "alerts.yaml"
    try:
        return load_rules(yaml.safe_load(file.read_text()))
    except (OSError, yaml.YAMLError) as error:
        raise FailedPrecondition(f"The alert rules cannot be read: {error}", reason="ALERT_RULES_INVALID") from error


@asynccontextmanager
async def _background(*work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Runs work beside what is done within."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _closing(log: Log, stopping: asyncio.Event) -> None:
    """Ends those who wait for the log to grow, when the process is to end."""
    await stopping.wait()
    log.close()


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
            log = await Log.open(store, keyring, signer, Intake(keys, settings.now))
            for key in in_order(keys):
                await log.announce(announcement(key, own, now_s=settings.now(), region=settings.region))
            retentions = Retentions(store, settings.now)
            watcher = Watcher(
                log, store, keyring, alert_rules(settings.alert_rules), mesh.alerts.publish, clock=settings.now,
                holder=secrets.token_hex(8),
            )
            refused = RefusedEvents(mesh.telemetry.metrics.registry, mesh.alerts.offer, time.monotonic)
            servicer = AuditServicer(
                log, LogFiles(log, store), Receipts(log, keyring), History(store, keyring), retentions
            )
            async with _background(retentions.run(), watcher.run(), _closing(log, mesh.stopping)):
                await mesh.serve(
                    lambda server: audit_pb2_grpc.add_AuditServiceServicer_to_server(servicer, server),
                    services=["facetmesh.audit.v1.AuditService"],
                    ready={"store": store.size},
                    handlers={TOPIC: Together(Subscriber(log, refused).handle, _LARGEST_COMMIT).handle},
                )


if __name__ == "__main__":
    run(main)
