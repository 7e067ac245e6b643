"""What Envoy is told of a request that brings an API key: over real gRPC."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import code_pb2, status_pb2

from facetmesh.auth.ext_authz import METHOD, accountant, checking
from facetmesh.auth.grants import Grant
from facetmesh.envoy.service.auth.v3 import external_auth_pb2 as v3
from facetmesh.envoy.service.auth.v3 import external_auth_pb2_grpc
from facetmesh.kit import status
from facetmesh.kit.errors import FacetmeshError, PermissionDenied, Unauthenticated, Unavailable
from facetmesh.kit.tls import TlsFiles, listen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from facetmesh.kit.audit import Record

DEADLINE_S = 30


def on_loopback(server: grpc.aio.Server) -> int:
    """Opens a port."""
    return listen(server, "127.0.0.1", 0, TlsFiles())


@dataclass
class Counter:
    """An exchange that gives what it is told to."""

    trouble: Exception | None = None

    async def token(self, text: str) -> str:
        """A token that names the key."""
        if self.trouble is not None:
            raise self.trouble
        return f"token-of-{text}"


@dataclass
class Book:
    """Takes in what is recorded."""

    records: list[tuple[Record, FacetmeshError | None]] = field(default_factory=list)

    def offer(self, record: Record, error: FacetmeshError | None = None) -> None:
        """Takes it in."""
        self.records.append((record, error))

    async def accept(self, record: Record, error: FacetmeshError | None = None) -> None:
        """Takes it in."""
        self.offer(record, error)


@dataclass
class Door:
    """The service, and what is behind it."""

    check: Any
    counter: Counter
    book: Book


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    """The service on a port of its own."""
    counter: Any = Counter()
    book: Any = Book()
    async with checking(counter, book, on_loopback) as port, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as way:
        yield Door(external_auth_pb2_grpc.AuthorizationStub(way).Check, counter, book)


def asked(**headers: str) -> v3.CheckRequest:
    """What Envoy asks."""
    request = v3.CheckRequest()
    request.attributes.source.address.socket_address.address = "203.0.113.7"
    for name, value in headers.items():
        request.attributes.request.http.headers[name.replace("_", "-")] = value
    return request


async def test_a_key_becomes_a_token(door: Door) -> None:
    answer = await door.check(asked(x_api_key="k"), timeout=DEADLINE_S)
    assert answer.status.code == code_pb2.OK
    [header] = answer.ok_response.headers
    assert (header.header.key, header.header.value) == ("authorization", "Bearer token-of-k")
    assert header.append_action == v3.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    assert list(answer.ok_response.headers_to_remove) == ["x-api-key"]
    assert door.book.records == []  # the exchange records those that it makes


REFUSALS = [
    Unauthenticated("The API key is not valid.", reason="KEY_INVALID"),
    PermissionDenied("The tenant is suspended.", reason="TENANT_SUSPENDED"),
]


async def test_every_refusal_looks_the_same_and_is_recorded_as_what_it_is(door: Door) -> None:
    answers = []
    for door.counter.trouble in REFUSALS:
        answers.append(await door.check(asked(x_api_key="k"), timeout=DEADLINE_S))
    assert answers[0] == answers[1]
    assert answers[0].status.code == code_pb2.UNAUTHENTICATED
    assert answers[0].denied_response.status.code == 401
    said = json.loads(answers[0].denied_response.body)
    assert (said["code"], said["details"][0]["reason"]) == (16, "KEY_INVALID")
    assert [error.reason for _, error in door.book.records if error] == ["KEY_INVALID", "TENANT_SUSPENDED"]
    assert {(record.method, record.source_address) for record, _ in door.book.records} == {(METHOD, "203.0.113.7")}


async def test_grpc_is_answered_as_grpc(door: Door) -> None:
    door.counter.trouble = REFUSALS[0]
    answer = await door.check(asked(x_api_key="k", content_type="application/grpc+proto"), timeout=DEADLINE_S)
    [header] = answer.denied_response.headers
    assert header.header.key == "grpc-status-details-bin"
    error = status.from_status(status_pb2.Status.FromString(base64.b64decode(header.header.value)))
    assert (error.code, error.reason, answer.denied_response.body) == (
        "UNAUTHENTICATED", "KEY_INVALID", "The API key is not valid.",
    )


async def test_what_cannot_be_checked_does_not_pass(door: Door) -> None:
    door.counter.trouble = Unavailable("The store does not answer.", reason="STATE_UNAVAILABLE", retry_after_s=1)
    answer = await door.check(asked(x_api_key="k"), timeout=DEADLINE_S)
    assert answer.status.code == code_pb2.UNAVAILABLE
    assert answer.denied_response.status.code == 503
    door.counter.trouble = RuntimeError("a fault")
    with pytest.raises(grpc.aio.AioRpcError):
        await door.check(asked(x_api_key="k"), timeout=DEADLINE_S)


async def test_an_exchange_is_recorded_with_its_tenant() -> None:
    book: Any = Book()
    await accountant(book)(Grant("tenants/acme/keys/k1", "acme", ("caller",)))
    [(record, error)] = book.records
    assert (record.method, record.tenant, record.subject) == (METHOD, "tenants/acme", "tenants/acme/keys/k1")
    assert error is None
