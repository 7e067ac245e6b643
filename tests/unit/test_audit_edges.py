"""Where the audit service meets the world: events from the sidecar, and the list of keys from the operator."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from facetmesh.audit.__main__ import service_keys
from facetmesh.audit.servicer import AuditServicer
from facetmesh.audit.subscriber import Subscriber
from facetmesh.audit.v1 import audit_pb2
from facetmesh.kit.dapr import Disposition, Event
from facetmesh.kit.errors import FailedPrecondition

from .audit_world import World, b64, service_key

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Services and their keys."""
    return World(tmp_path / "audit.db")


def delivered(data: bytes, event_id: str = "1") -> Event:
    """An event as the sidecar delivers it."""
    return Event(event_id, "facetmesh.event.v1.SignedEvent", "detection", data, "", "audit.events")


async def test_bad_events_go_to_the_dead_letters_with_a_reason(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[str, str]] = []
    async with world.log() as (log, _):
        dispositions = await Subscriber(log, lambda *what: told.append(what)).handle(
            [delivered(world.signed()), delivered(b"\xff", "bad"), delivered(world.signed("auth"))]
        )
        assert dispositions == [Disposition.OK, Disposition.DROP, Disposition.OK]
        assert log.head.size == 5
    assert told == [("EVENT_MALFORMED", "detection")]
    (record,) = caplog.records
    assert (record.__dict__["event"], record.__dict__["reason"]) == ("bad", "EVENT_MALFORMED")


async def test_the_checkpoint_comes_with_its_key(world: World) -> None:
    async with world.log() as (log, _):
        servicer = AuditServicer(log, None, None, None, None)  # type: ignore[arg-type] - none is asked here
        answer = await servicer.GetCheckpoint(audit_pb2.GetCheckpointRequest(), None)
    assert answer.verifier_key == world.verifier_key
    assert answer.note.startswith("log.test/audit\n3\n")


def test_the_operators_list_of_keys(tmp_path: Path) -> None:
    path = tmp_path / "service-keys.json"
    keys = [service_key("auth"), service_key("detection")]
    path.write_text(json.dumps({key.service: b64(key.public_key) for key in keys}))
    assert service_keys(path) == keys


@pytest.mark.parametrize("text", ["", "[]", "{", '{"auth": 3}', '{"auth": "AA=="}', '{"auth": "?"}', '{"auth": null}'])
def test_a_list_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "service-keys.json"
    path.write_text(text)
    with pytest.raises(FailedPrecondition) as error:
        service_keys(path)
    assert error.value.reason == "SERVICE_KEYS_INVALID"
    assert str(path) in error.value.message


def test_there_must_be_a_list(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition):
        service_keys(tmp_path / "missing.json")


def test_verify_brings_nothing_of_the_server() -> None:
    """Of our own, the package loads itself and generated code; of others', neither grpc nor dapr."""
    program = "import facetmesh.verify, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    ours = {name.split(".")[1] for name in loaded if name.startswith("facetmesh.")}
    assert ours == {"verify", "audit", "event", "access", "buf"}
    assert {name for name in loaded if name.startswith("facetmesh.audit.")} <= {
        "facetmesh.audit.v1", "facetmesh.audit.v1.audit_pb2",
    }
    assert not {"grpc", "dapr", "numpy"} & set(loaded)
