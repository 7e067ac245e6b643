"""Generated requests by REST: whatever comes, the answer is the API's own and never a fault of ours."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pytest
from google.api import annotations_pb2
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.security.api import METHODS, arbitrary, path, valid

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.message import Message

    from .conftest import Gate
    from .http import Reply

EXAMPLES = 25
OURS = {"INTERNAL", "UNKNOWN"}
REST = [
    method for method in METHODS
    if method.GetOptions().HasExtension(annotations_pb2.http) and not method.server_streaming
]  # fmt: skip
NOT_HERE = {"DeleteTenant", "SuspendTenant", "RevokeKey", "RotateKey"}
"""They would end what others use."""
_VARIABLE = re.compile(r"\{([^=}]+)(?:=([^}]+))?\}")


def request(method: MethodDescriptor, message: Message) -> tuple[str, str, Any]:
    """Verb, path and body by which a message is sent. Where a field of the path does not fit it, one that does."""
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    verb = str(rule.WhichOneof("pattern"))
    fields = json_format.MessageToDict(message, preserving_proto_field_name=True)

    def filled(match: re.Match[str]) -> str:
        node: Any = fields
        *outer, last = match[1].split(".")
        for name in outer:
            node = node.get(name, {})
        text = str(node.pop(last, ""))
        shape = (match[2] or "*").replace("**", ".+").replace("*", "[^/]+")
        return quote(text if re.fullmatch(shape, text) else (match[2] or "*").replace("*", "odd"), safe="/")

    place = _VARIABLE.sub(filled, getattr(rule, verb))
    body = fields if rule.body == "*" else fields.pop(rule.body, {}) if rule.body else None
    query = {} if rule.body == "*" else {name: one for name, one in fields.items() if not isinstance(one, dict)}
    return verb.upper(), f"{place}?{urlencode(query, doseq=True)}" if query else place, body


def in_json(message: Message) -> bool:
    """Whether JSON can say it: a time before all times, it cannot."""
    try:
        json_format.MessageToDict(message)
    except (ValueError, json_format.SerializeToJsonError):
        return False
    return True


def judge(reply: Reply) -> str:
    """How a call ended; fails where it is our fault."""
    assert reply.status < 500 or reply.status in {501, 503, 504}, reply.body
    if reply.status == 200:
        return "OK"
    assert reply.headers["content-type"] == "application/json", reply.body
    assert reply.reason not in OURS, reply.body
    return reply.reason


@pytest.mark.full
@pytest.mark.parametrize("method", [m for m in REST if m.name not in NOT_HERE], ids=path)
def test_no_request_is_our_fault(gate: Gate, method: MethodDescriptor) -> None:
    tenant = "generated"  # of its own: what is made here, others would find
    known = [f"tenants/{tenant}", f"tenants/{tenant}/models/faces"]
    http = gate.http.with_key(gate.mesh.tenant(tenant))
    ends: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(
        (arbitrary(method.input_type, tenant, known) | valid(method.input_type, tenant, known)).filter(in_json),
        st.sampled_from(["", "?unknown=1", "&x=%00", "%2f.."]),
    )
    def send(message: Message, tail: str) -> None:
        verb, place, body = request(method, message)
        if tail.startswith("&") and "?" not in place:
            return
        ends[judge(http(verb, place + tail, body))] += 1

    send()
    print(path(method), dict(ends))  # noqa: T201 - what came of it
