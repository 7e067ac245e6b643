"""What each service tells: a table of service and signal, and the edges between the services' spans."""

from __future__ import annotations

import re
import urllib.request
from typing import TYPE_CHECKING

import pytest

from .rig import DEADLINE_S, consented, until

if TYPE_CHECKING:
    from .conftest import Collector, Mesh, Span

SERVICES = ("auth", "detection", "fusion", "audit")


def metrics(mesh: Mesh, service: str) -> str:
    """The metrics of a service."""
    with urllib.request.urlopen(f"http://127.0.0.1:{mesh.metrics_port(service)}/metrics", timeout=DEADLINE_S) as answer:
        return str(answer.read().decode())


def edges(collector: Collector, trace_id: str) -> set[tuple[str, str]]:
    """Which service's span is the parent of which other's, within a trace."""
    spans = [span for span in collector.spans() if span.trace_id == trace_id]
    by_id: dict[str, Span] = {span.span_id: span for span in spans}
    return {
        (by_id[span.parent_id].service, span.service)
        for span in spans
        if span.parent_id in by_id and by_id[span.parent_id].service != span.service
    }


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_counts_its_calls(mesh: Mesh, group: bytes, service: str) -> None:
    with mesh.client(mesh.tenant("acme")) as client:
        client.detect("faces", group)
        client.list_operations()
        client.checkpoint()
    text = metrics(mesh, service)
    assert re.search(r'facetmesh_calls_total\{code="OK",method="facetmesh\.\w+\.v1\.', text)
    assert re.search(r'facetmesh_dependency_ready\{dependency="sidecar"\} 1\.0', text)
    assert "facetmesh_call_latency_seconds_bucket" in text


@pytest.mark.parametrize("name", ["sidecar", *SERVICES])
def test_each_process_logs_json_without_secrets(mesh: Mesh, name: str) -> None:
    mesh.tenant("acme")
    lines = mesh.log(name)
    assert lines
    assert {"time", "level", "service", "message"} <= set(lines[0])
    text = (mesh.home / "logs" / f"{name}.jsonl").read_text()
    assert not re.search(r"fm_[a-z]+_\w+_\w{20}|eyJ[\w-]{20}", text)


def test_a_fusion_is_one_trace_through_services_and_pub_sub(
    mesh: Mesh, collector: Collector, group: bytes, astronaut: bytes
) -> None:
    with mesh.client(mesh.tenant("acme")) as client:
        made = client.fuse(astronaut, group, face_model="faces", consent=consented(client, astronaut))
        receipt = client.receipt(made.fusion.receipt, wait_s=30)
    from facetmesh.verify import verify_receipt  # noqa: PLC0415

    trace_id = verify_receipt(receipt, (mesh.home / "log.vkey").read_text().strip()).trace_id
    wanted = {("facetmesh-fusion", "facetmesh-detection"), ("facetmesh-fusion", "facetmesh-audit")}
    until(lambda: wanted <= edges(collector, trace_id), "the spans of all services")

    def begins_with_the_call() -> bool:
        begun = {span.name for span in collector.spans() if span.trace_id == trace_id and not span.parent_id}
        return any("CreateFusion" in name for name in begun)

    until(begins_with_the_call, "the span of the call that began it")
