"""Envoy's external authorization: a request that brings an API key goes on with a token in its place.

Only the gateway asks here, on a port of its own. Istio's CUSTOM authorization policies ask the same.
"""

from __future__ import annotations

import base64
import contextlib
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import json_format

from facetmesh.envoy.service.auth.v3 import external_auth_pb2 as v3
from facetmesh.envoy.service.auth.v3 import external_auth_pb2_grpc
from facetmesh.kit import status
from facetmesh.kit.audit import Record
from facetmesh.kit.errors import FacetmeshError, NotFound, PermissionDenied, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from facetmesh.auth.exchange import Exchange
    from facetmesh.auth.grants import Grant
    from facetmesh.kit.audit import Recorder

KEY_HEADER = "x-api-key"
"""Where a key is sent instead of a token. Envoy lets no other header but content-type get here."""
METHOD = "envoy.service.auth.v3.Authorization/Check"
_TOKEN_HEADER = "authorization"  # noqa: S105 - a header's name
_REFUSALS = (Unauthenticated, PermissionDenied, NotFound)
"""Whichever it is, the answer is the same: who tries keys learns nothing. The audit log has the cause."""
_LARGEST_CHECK = 1 << 16
_HTTP = {"UNAUTHENTICATED": 401, "RESOURCE_EXHAUSTED": 429}
"""HTTP statuses by gRPC's codes, from which Envoy makes gRPC's again; all else is 503."""


class AuthorizationServicer(external_auth_pb2_grpc.AuthorizationServicer):
    """Serves envoy.service.auth.v3.Authorization. What it cannot check does not pass.

    Args:
        exchange: Gives tokens for keys.
        recorder: Takes the audit events of refusals.
    """

    def __init__(self, exchange: Exchange, recorder: Recorder) -> None:
        self._exchange = exchange
        self._recorder = recorder

    async def Check(self, request: v3.CheckRequest, _: Any) -> v3.CheckResponse:  # noqa: N802 - gRPC's name for it
        """Says whether a request may pass, and gives it a token."""
        headers = request.attributes.request.http.headers
        try:
            return _passed(await self._exchange.token(headers.get(KEY_HEADER, "")))
        except _REFUSALS as error:
            self._record(request, error)
            return _denied(_refused(), headers)
        except FacetmeshError as error:
            return _denied(error, headers)

    def _record(self, request: v3.CheckRequest, error: FacetmeshError) -> None:
        record = Record(METHOD, source_address=request.attributes.source.address.socket_address.address)
        self._recorder.offer(record, error)


@contextlib.asynccontextmanager
async def checking(
    exchange: Exchange, recorder: Recorder, listen: Callable[[grpc.aio.Server], int]
) -> AsyncIterator[int]:
    """Answers checks until the context ends, whoever asks. Yields the port.

    Args:
        exchange: Gives tokens for keys.
        recorder: Takes the audit events of refusals.
        listen: Opens a port that only gateways reach, and returns it.
    """
    server = grpc.aio.server(
        options=[("grpc.max_receive_message_length", _LARGEST_CHECK), ("grpc.so_reuseport", 0)]
    )
    external_auth_pb2_grpc.add_AuthorizationServicer_to_server(AuthorizationServicer(exchange, recorder), server)
    port = listen(server)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(1)


def accountant(recorder: Recorder) -> Callable[[Grant], Awaitable[None]]:
    """What an Exchange records its exchanges with."""

    async def account(grant: Grant) -> None:
        tenant = f"tenants/{grant.tenant_id}" if grant.tenant_id is not None else ""
        await recorder.accept(Record(METHOD, tenant, grant.subject))

    return account


def _passed(token: str) -> v3.CheckResponse:
    header = v3.HeaderValueOption(
        header=v3.HeaderValue(key=_TOKEN_HEADER, value=f"Bearer {token}"),
        append_action=v3.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )
    return v3.CheckResponse(ok_response=v3.OkHttpResponse(headers=[header], headers_to_remove=[KEY_HEADER]))


def _refused() -> FacetmeshError:
    return Unauthenticated("The API key is not valid.", reason="KEY_INVALID")


def _denied(error: FacetmeshError, headers: Mapping[str, str]) -> v3.CheckResponse:
    """The error in the form that the request came in: gRPC, or JSON."""
    said = status.to_status(error)
    if headers.get("content-type", "").startswith("application/grpc"):
        details = base64.b64encode(said.SerializeToString()).decode()
        header, body = v3.HeaderValue(key=status.DETAILS_KEY, value=details), error.message
    else:
        header, body = v3.HeaderValue(key="content-type", value="application/json"), json_format.MessageToJson(said)
    return v3.CheckResponse(
        # Envoy takes its gRPC status from the HTTP one.
        status={"code": said.code},
        denied_response=v3.DeniedHttpResponse(
            status=v3.HttpStatus(code=_HTTP.get(error.code, 503)),
            headers=[v3.HeaderValueOption(header=header)],
            body=body,
        ),
    )
