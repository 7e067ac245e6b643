"""The audit log of a real mesh: what anybody may ask of it, and what only some may."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from typing import TYPE_CHECKING

import psutil
import pytest

from facetmesh.audit.note import LogSigner
from facetmesh.cli.mesh.home import Home
from facetmesh.client import ROLE_AUDITOR, InvalidArgument, NotFound, PermissionDenied, Unauthenticated
from facetmesh.event.v1.event_pb2 import AuditEvent
from facetmesh.kit.dapr import DaprSidecar
from facetmesh.kit.signing import EventSigner
from facetmesh.verify import open_checkpoint, verify_growth, verify_inclusion
from facetmesh.verify.merkle import leaf_hash

from .rig import Cli, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from facetmesh.audit.v1.audit_pb2 import LoggedEvent
    from facetmesh.verify import Checkpoint

    from .conftest import Mesh


def checkpoint(mesh: Mesh) -> Checkpoint:
    """The log's newest checkpoint, which needs no key."""
    with mesh.client() as anybody:
        return open_checkpoint(anybody.checkpoint().note, (mesh.home / "log.vkey").read_text())


def test_anybody_may_see_that_the_log_only_grows(mesh: Mesh) -> None:
    old = checkpoint(mesh)
    with mesh.client(mesh.tenant("acme")) as client:
        client.list_models()
        client.list_keys()
    new = until(lambda: found if (found := checkpoint(mesh)).size > old.size else None, "the log has grown")
    with mesh.client() as anybody:
        verify_growth(old, new, anybody.consistency_proof(old.size, new.size).hashes)
        for sizes in ((new.size, old.size), (1, new.size + 1_000_000)):
            with pytest.raises(InvalidArgument) as error:
                anybody.consistency_proof(*sizes)
            assert error.value.reason == "SIZE_OUT_OF_RANGE"


def test_the_platform_sees_all_and_a_tenant_its_own(mesh: Mesh) -> None:
    for tenant in ("acme", "globex"):
        with mesh.client(mesh.tenant(tenant)) as client:
            client.list_models()
    with mesh.client(mesh.admin_key) as admin:

        def both() -> list[LoggedEvent] | None:
            found = admin.list_events(tenant="-", limit=10_000)
            return found if {"tenants/acme", "tenants/globex", ""} <= {one.event.tenant for one in found} else None

        everything = until(both, "events of both tenants and of the platform are in the log")
        indices = [one.index for one in everything]
        assert sorted(indices) == list(range(max(indices) + 1))
        announced = [one.event.resource.split("/")[1] for one in everything if one.event.service_public_key]
        assert announced[-1] == "audit"
        assert set(announced) == {"audit", "auth", "detection", "fusion"}
        assert {one.event.tenant for one in admin.list_events(tenant="acme")} == {"tenants/acme"}
    with mesh.client(mesh.tenant("acme")) as client:
        assert {one.event.tenant for one in client.list_events()} == {"tenants/acme"}


def test_reading_the_log_is_logged(mesh: Mesh) -> None:
    with mesh.client(mesh.tenant("acme")) as client:
        client.list_events(limit=1)
        newest = until(
            lambda: [one for one in client.list_events() if one.event.method.endswith("/ListEvents")], "it is logged"
        )
    assert newest[0].event.service == "audit"


def test_a_receipt_that_never_comes(mesh: Mesh) -> None:
    with mesh.client(mesh.tenant("acme")) as client, pytest.raises(NotFound) as error:
        client.receipt(f"tenants/acme/receipts/{'0' * 32}", wait_s=0.2)
    assert error.value.reason == "RECEIPT_NOT_FOUND"


def test_events_are_filtered_followed_and_exported(mesh: Mesh) -> None:
    with mesh.client(mesh.tenant("globex")) as client:
        mine = until(lambda: client.list_events(filter="kind = CreateModel AND outcome = OK"), "it is logged")
        assert {one.event.method.rpartition("/")[2] for one in mine} == {"CreateModel"}
        with pytest.raises(InvalidArgument) as error:
            client.list_events(filter="kind")
        assert error.value.reason == "FILTER_INVALID"
        with pytest.raises(PermissionDenied):
            client.list_events(tenant="acme")
        start = mine[0].index
        assert next(iter(client.watch_events(filter="kind = CreateModel", start_index=start))) == mine[0]
        lines = b"".join(client.export_events(filter="kind = CreateModel")).decode().splitlines()
        assert [json.loads(line)["index"] for line in lines] == [one.index for one in mine]
        with pytest.raises(PermissionDenied):
            next(iter(client.export_events(tenant="acme")))
        with pytest.raises(PermissionDenied):
            next(iter(client.watch_events(tenant="-")))


def test_who_is_shut_out_sees_no_more(mesh: Mesh) -> None:
    """A stream that was opened with a key ends when the key is revoked: nothing more comes."""
    with mesh.client(mesh.tenant("acme")) as acme:
        key = acme.create_key(roles=[ROLE_AUDITOR])
        with mesh.client(key.secret) as auditor:
            newest = auditor.list_events(limit=1)[0].index
            watching = auditor.watch_events(start_index=newest)
            next(watching)
            acme.revoke_key(key.name)

            def shut_out() -> bool:
                acme.list_events(limit=1)  # an event, so that there is something to be seen
                return ended(watching)

            until(shut_out, "the stream has ended")


def ended(watching: Iterator[LoggedEvent]) -> bool:
    """Whether the next that comes is that the token no longer counts."""
    try:
        next(watching)
    except Unauthenticated:
        return True
    return False


def test_retention_is_the_platforms_to_choose(mesh: Mesh) -> None:
    with mesh.client(mesh.tenant("acme")) as client:
        assert client.get_retention("acme").retention_days == 0
        with pytest.raises(PermissionDenied):
            client.update_retention("acme", days=1)
    with mesh.client(mesh.admin_key) as admin:
        try:
            held = admin.update_retention("acme", days=30, hold_reason="case 17")
            assert (held.retention_days, held.legal_hold, held.hold_reason) == (30, True, "case 17")
        finally:
            free = admin.update_retention("acme", days=0, hold_reason="")
        assert (free.retention_days, free.legal_hold) == (0, False)


def test_anybody_may_copy_and_follow_the_log(mesh: Mesh, tmp_path: Path) -> None:
    mesh.tenant("acme")
    cli = Cli(Home(mesh.home))
    copied = cli.ok("audit", "export-log", str(tmp_path / "log"))
    assert copied["size"] > 3
    hashes = b""
    for file in sorted((tmp_path / "log" / "tile" / "entries").rglob("*")):
        data = file.read_bytes() if file.is_file() else b""
        while data:
            length = int.from_bytes(data[:2], "big")
            hashes += leaf_hash(data[2 : 2 + length])
            data = data[2 + length :]
    tile = min(file for file in (tmp_path / "log" / "tile" / "0").rglob("*") if file.is_file())
    assert tile.read_bytes() == hashes[:8192]
    with mesh.client() as anybody:
        known = open_checkpoint((tmp_path / "log" / "checkpoint").read_text(), (mesh.home / "log.vkey").read_text())
        proof = anybody.inclusion_proof(2, known.size)
        verify_inclusion(leaf=hashes[64:96], index=2, size=known.size, proof=proof.hashes, root=known.root)
    monitored = tmp_path / "checkpoints"
    assert cli.ok("audit", "monitor", str(monitored), "--once")["size"] >= copied["size"]
    stalled = cli("audit", "monitor", str(monitored), "--once", "--stall-s=1")
    assert stalled.returncode in {0, 5}  # whether it has grown meanwhile
    signer = LogSigner(open_checkpoint(json.loads(monitored.read_text().splitlines()[0])["note"],
                                       (mesh.home / "log.vkey").read_text()).origin, bytes(32))  # fmt: skip
    key = tmp_path / "other.vkey"
    key.write_text(str(signer.verifier))
    unsigned = cli("audit", "monitor", str(tmp_path / "new"), "--once", f"--log-key={key}")
    assert unsigned.returncode == 6


def test_fsck_while_it_is_written(mesh: Mesh) -> None:
    mesh.tenant("acme")
    found = Cli(Home(mesh.home)).ok("audit", "fsck")
    assert found["size"] > 3
    assert found["problems"] == []
    assert found["opened"]


async def test_what_is_no_event_goes_to_the_dead_letters_with_a_reason(mesh: Mesh) -> None:
    """Somebody who reaches the broker publishes what he likes: none of it is logged, and somebody is told."""
    told = psutil.Process(mesh.pid("detection")).environ()
    own = json.loads((mesh.home / "secrets" / "detection.json").read_text())
    signer = EventSigner("detection", base64.b64decode(own["event-signing-key"]))
    good = AuditEvent(id=secrets.token_hex(16), service="detection", method="facetmesh.x/Y", tenant="tenants/acme")
    good.time.GetCurrentTime()
    bad = {
        "EVENT_MALFORMED": b"\xff\xff no protobuf",
        "EVENT_TOO_LARGE": bytes(1_000_000),
        "EVENT_KEY_UNKNOWN": EventSigner("detection", bytes(32)).sign(good),
        "SERVICE_MISMATCH": signer.sign(changed(good, service="auth")),
        "TENANT_INVALID": signer.sign(changed(good, tenant="tenants/ACME")),
        "EVENT_UNPRINTABLE": signer.sign(changed(good, resource="tenants/acme\x1b[2J")),
        "EVENT_IN_FUTURE": signer.sign(changed(good, days=1)),
        "EVENT_TOO_OLD": signer.sign(changed(good, days=-400)),
    }
    sidecar = DaprSidecar(int(told["DAPR_GRPC_PORT"]), int(told["DAPR_HTTP_PORT"]), told["DAPR_API_TOKEN"])
    for reason, data in bad.items():
        await sidecar.publisher().publish(
            "audit.events", data, event_id=f"bad-{reason}-{secrets.token_hex(4)}", type="facetmesh.event.v1.SignedEvent"
        )
    await sidecar.close()

    def refused() -> bool:
        told = [line for line in mesh.log("audit") if "an event was refused" in line["message"]]
        return {line.get("reason") for line in told} >= set(bad)

    await asyncio.to_thread(until, refused, "all were refused")
    log = mesh.home / "logs" / "audit.jsonl"
    await asyncio.to_thread(until, lambda: '"events-refused"' in log.read_text(), "somebody is told")


def changed(event: AuditEvent, *, days: int = 0, **fields: str) -> AuditEvent:
    """An event of another time, or with other fields."""
    made = AuditEvent.FromString(event.SerializeToString())
    made.id = secrets.token_hex(16)
    made.time.seconds += days * 24 * 3600
    for name, value in fields.items():
        setattr(made, name, value)
    return made
