"""What all calls to the sidecar have in common: the client, a deadline, and our errors."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio
from dapr.aio.clients.grpc.client import DaprGrpcClientAsync
from dapr.clients.exceptions import DaprGrpcError
from dapr.clients.retry import RetryPolicy
from dapr.proto import api_service_v1

from facetmesh.kit import telemetry
from facetmesh.kit.errors import Aborted, FacetmeshError, FailedPrecondition, InvalidArgument, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dapr.proto.runtime.v1 import pubsub_pb2

LARGEST_BYTES = (4 << 20) - (64 << 10)
"""What fits into one call: Dapr's default limit, less room for names and the envelope."""

FAILED = "DAPR_INTERNAL"
"""The reason where the sidecar, or what is behind it, failed and cannot say how."""

_LARGEST_ANSWER_BYTES = 64 << 20
_OPTIONS = (
    ("grpc.max_receive_message_length", _LARGEST_ANSWER_BYTES),
    # gRPC's own would let a service go on failing for up to two minutes after its sidecar is back.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_DOWN = frozenset({
    grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.RESOURCE_EXHAUSTED,
})  # fmt: skip
_REDIS_REFUSES = re.compile(r"user_script:\d+: failed to (set|delete)")
_log = logging.getLogger(__name__)


class Client(DaprGrpcClientAsync):
    """Dapr's ordinary client on a channel of our own.

    The ordinary constructor blocks the event loop while it waits for the sidecar,
    takes its port and token from the environment only, and leaves the channel's
    options at values that keep a service down for minutes.

    Args:
        port: The sidecar's gRPC port, on the loopback.
        api_token: What the sidecar asks of us.
        timeout_s: How long a call may take, in seconds.
    """

    def __init__(self, port: int, api_token: str, timeout_s: float) -> None:
        self.retry_policy = RetryPolicy(max_attempts=0)  # super's constructor is left out: see above
        self._channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=_OPTIONS, interceptors=[_CallDefaults(api_token, timeout_s)]
        )
        self._stub = api_service_v1.DaprStub(self._channel)
        # Without interceptors, for which each call has a task of its own; gRPC has both channels share a connection.
        self._direct_channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_OPTIONS)
        self._publish = api_service_v1.DaprStub(self._direct_channel).BulkPublishEvent
        self._metadata = _token(api_token)
        self._timeout_s = timeout_s

    async def bulk_publish(self, request: pubsub_pb2.BulkPublishRequest) -> pubsub_pb2.BulkPublishResponse:
        """Publishes events that carry a trace each: what calls wait for, so it is done without the ordinary wrappers.

        Raises:
            grpc.aio.AioRpcError: It did not succeed.
        """
        answer = await self._publish(request, timeout=self._timeout_s, metadata=self._metadata)
        return cast("pubsub_pb2.BulkPublishResponse", answer)

    async def close(self) -> None:
        """Ends the connection."""
        await self._direct_channel.close()
        await super().close()  # type: ignore[no-untyped-call] # Dapr's client has no types there


class _CallDefaults(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc,type-arg,unused-ignore] # generic in its stubs only
    """Gives every call a deadline, the token and the current trace."""

    def __init__(self, api_token: str, timeout_s: float) -> None:
        self._token = _token(api_token)
        self._timeout_s = timeout_s

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        metadata = [*(client_call_details.metadata or ()), *self._token, *telemetry.carrier().items()]
        details = grpc.aio.ClientCallDetails(
            client_call_details.method,
            self._timeout_s if client_call_details.timeout is None else client_call_details.timeout,
            grpc.aio.Metadata(*metadata),
            client_call_details.credentials,
            client_call_details.wait_for_ready,
        )
        return await continuation(details, request)


def _token(api_token: str) -> tuple[tuple[str, str], ...]:
    return (("dapr-api-token", api_token),) if api_token else ()


@contextmanager
def our_errors(what: str) -> Iterator[None]:
    """Turns what the client raises into ours.

    Args:
        what: Who did not do it, such as "The state store".

    Raises:
        Aborted: Somebody else changed it meanwhile.
        Unavailable: The sidecar, or what is behind it, did not answer or failed.
        FailedPrecondition: The sidecar is not set up for it; the log says how.
    """
    try:
        yield
    except (DaprGrpcError, grpc.aio.AioRpcError) as error:  # the client wraps some and not others
        raise _ours(what, error.code(), error.details() or "") from error


def _ours(what: str, code: grpc.StatusCode, details: str) -> FacetmeshError:
    # daprd reports a stale etag inside of a transaction as INTERNAL, on Redis in the words of its script.
    if code is grpc.StatusCode.ABORTED or "etag mismatch" in details or _REDIS_REFUSES.search(details):
        return Aborted("Somebody else changed it meanwhile: read it again, then retry.")
    # A sidecar that is not there fails every call: whoever called says so where it matters.
    level = logging.DEBUG if code is grpc.StatusCode.UNAVAILABLE else logging.WARNING
    _log.log(level, "the sidecar did not do it", extra={"what": what, "code": code.name, "detail": details})
    reason = f"DAPR_{code.name}"
    if code in _DOWN:
        return Unavailable(f"{what} did not answer.", reason=reason, retry_after_s=1)
    return FailedPrecondition(f"{what} is not set up for this.", reason=reason)


def check_size(data: bytes) -> None:
    """Returns when data fits into one call.

    Raises:
        InvalidArgument: It does not.
    """
    if len(data) > LARGEST_BYTES:
        raise InvalidArgument(
            f"That is too large: {len(data)} bytes where {LARGEST_BYTES} are allowed.", reason="TOO_LARGE"
        )
