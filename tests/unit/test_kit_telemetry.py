"""Traces, where nobody collects spans: their ids go from call to call all the same."""

from __future__ import annotations

import socket
import struct
import threading
import time
import urllib.request
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from facetmesh.kit import telemetry

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
METHOD = "/facetmesh.Test/Do"


@pytest.fixture(autouse=True)
def _no_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


async def _seen(*traceparents: str) -> list[str]:
    """The trace that the handler of each of some calls is in, and what it would pass on."""
    async def handle(_request: bytes, _context: Any) -> bytes:
        return f"{telemetry.trace_id()} {telemetry.carrier().get('traceparent', '')}".encode()

    server = grpc.aio.server(interceptors=[telemetry.server_interceptor()])
    handlers = {"Do": grpc.unary_unary_rpc_method_handler(handle)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("facetmesh.Test", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(METHOD)
        answers = [
            await call(b"", metadata=(("traceparent", parent),) if parent else (), timeout=30)
            for parent in traceparents
        ]
    await server.stop(None)
    return [bytes(answer).decode() for answer in answers]


async def test_a_call_is_in_its_callers_trace_and_passes_it_on() -> None:
    assert await _seen(PARENT) == [f"{TRACE} {PARENT}"]


async def test_a_call_without_a_trace_or_with_nonsense_for_one_begins_one_of_its_own() -> None:
    one, other, odd = [answer.split() for answer in await _seen("", "", "nonsense")]
    assert len({one[0], other[0], odd[0]}) == 3
    for trace_id, parent in (one, other, odd):
        assert len(trace_id) == 32
        assert parent.split("-")[1] == trace_id


def test_what_leaves_carries_the_state_of_the_trace_too_and_nothing_outside_of_one() -> None:
    state = TraceState([("vendor", "1")])
    ids = SpanContext(int(TRACE, 16), 0xB7AD6B7169203331, is_remote=True, trace_flags=TraceFlags(1), trace_state=state)
    token = attach(trace.set_span_in_context(NonRecordingSpan(ids), Context()))
    try:
        assert telemetry.carrier() == {"traceparent": PARENT, "tracestate": "vendor=1"}
    finally:
        detach(token)
    assert telemetry.carrier() == {}


def test_the_handling_of_events_is_in_the_trace_of_the_first() -> None:
    before = telemetry.trace_id()
    with telemetry.continued("handled", [PARENT, ""]):
        assert telemetry.trace_id() == TRACE
    assert telemetry.trace_id() == before


def test_who_asks_for_metrics_and_says_nothing_has_no_thread(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nor a line in the log, be it silent, cut off or nonsense."""
    monkeypatch.setattr("facetmesh.kit.telemetry._Scrape.timeout", 0.1)
    port, close = telemetry.Telemetry("test", "local").serve("127.0.0.1", 0)
    before = threading.active_count()
    for data in (b"", b"GET /met", bytes(100) + b"\n", bytes(100_000)):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall(data)
            while connection.recv(1000):  # to its end
                pass
    gone = socket.create_connection(("127.0.0.1", port), timeout=30)
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone.close()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        assert b"process_open_fds" in answer.read()
    deadline = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
    close()
    assert capfd.readouterr() == ("", "")
