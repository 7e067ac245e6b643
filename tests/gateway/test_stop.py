"""A mesh that stops while clients call through its gateway: no call in progress is cut off."""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import grpc
import pytest
from tests.mesh.conftest import Collector, running
from tests.mesh.rig import until

from facetmesh.client import Client, Endpoints, Unavailable
from facetmesh.detection.v1 import detection_pb2, detection_pb2_grpc
from facetmesh.kit import status

if TYPE_CHECKING:
    from pathlib import Path

_CALLERS = 4


@pytest.mark.full
def test_calls_in_progress_are_answered_before_the_end(tmp_path: Path, collector: Collector, group: bytes) -> None:
    home = tmp_path / "home"
    answered = [0] * _CALLERS
    with running(home, collector, "--gateway") as mesh, ThreadPoolExecutor(_CALLERS) as pool:
        key = mesh.tenant("acme")
        gateway = json.loads((home / "endpoints.json").read_text())["gateway"]
        with Client(key, Endpoints.gateway(gateway, None)) as client:
            metadata = [("authorization", f"Bearer {client.token().access_token}")]
        request = detection_pb2.DetectRequest(model="tenants/acme/models/faces", image=group)

        def call_until_told(index: int) -> Exception:
            with grpc.insecure_channel(gateway, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                stub = detection_pb2_grpc.DetectionServiceStub(channel)
                while True:
                    try:
                        stub.Detect(request, metadata=metadata, timeout=60)
                    except grpc.RpcError as error:
                        return status.from_rpc_error(error)
                    answered[index] += 1

        told = [pool.submit(call_until_told, index) for index in range(_CALLERS)]
        until(lambda: min(answered) > 2, "all callers are answered")
        mesh.process.send_signal(signal.SIGINT)
        for one in told:
            error = one.result(60)
            # Nothing but "not any more": a call that was cut off would say neither.
            assert isinstance(error, Unavailable), error
            assert error.reason in {"SERVICE_UNREACHABLE", "DRAINING"} or "connect" in error.message, error
