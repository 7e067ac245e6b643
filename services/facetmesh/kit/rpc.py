"""What happens around every RPC, in one interceptor, so that no service can forget it.

authenticate → authorize by role and method → limits → a place → (only now is the message read) →
authorize by tenant, model and policy → validate → the servicer → the audit event is accepted → the answer.

Of a stream of requests the first message goes this way, and must name what the
stream is about; each later one is checked as it comes, and so is the token,
which may expire or be revoked meanwhile.

Errors become google.rpc.Status here and nowhere else.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING, Any, cast

import grpc

from facetmesh.kit import access, audit, deadlines, identity, status
from facetmesh.kit.certificates import Certificates
from facetmesh.kit.errors import (
    FacetmeshError,
    InvalidArgument,
    Unauthenticated,
    Unavailable,
)
from facetmesh.kit.gate import Gate
from facetmesh.kit.gateways import Gateway
from facetmesh.kit.handlers import known, message, no_such_method, only
from facetmesh.kit.incoming import Incoming
from facetmesh.kit.policy.vocabulary import action
from facetmesh.kit.source import source
from facetmesh.kit.turns import Turns
from facetmesh.kit.validation import validate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from contextlib import AbstractContextManager

    from google.protobuf.message import Message

    from facetmesh.kit.places import Place, Places
    from facetmesh.kit.telemetry import Metrics
    from facetmesh.kit.verifier import TokenVerifier

MODEL_HEADER = "x-facetmesh-model"
_BEARER = "bearer "
_LARGE_BYTES = 2 << 20
"""To read more than that keeps the event loop from others: 10 ms for 24 MB, and as much for each look at them."""


class Guard(grpc.aio.ServerInterceptor):
    """The interceptor.

    Args:
        verifier: Verifies tokens.
        recorder: Takes the audit events.
        metrics: What is counted.
        places: For calls in progress.
        gate: Decides by policies and limits; by the policies that are shipped, and none, when None.
        gateway: What it says of its callers is believed; nobody's word is when None.
        turns: Whose calls are looked at first; all as they come, when None.
    """

    def __init__(
        self,
        verifier: TokenVerifier,
        recorder: audit.Recorder,
        metrics: Metrics,
        *,
        places: Places,
        gate: Gate | None = None,
        gateway: Gateway | None = None,
        turns: Turns | None = None,
    ) -> None:
        self._verifier = verifier
        self._recorder = recorder
        self._metrics = metrics
        self._places = places
        self._gate = gate or Gate()
        self._turns = turns or Turns()
        self.gateway = gateway or Gateway()
        """Who may speak for others."""
        self.certificates = Certificates(self.gateway)
        """Finds the certificates of callers."""
        self.draining = False
        """Whether new calls are refused, because the service is about to end."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """The handler of a call, wrapped; or one that refuses without reading the message."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None:
            return no_such_method()
        if method.strip("/").partition("/")[0] in access.EXEMPT_SERVICES:
            return handler
        rule = access.rule(method)
        record = audit.Record(rule.method)
        try:
            if self.draining:
                raise Unavailable("The service is about to end.", reason="DRAINING", retry_after_s=1)
            principal = None if rule.public else await self._authenticate(handler_call_details)
            if principal is not None:
                record.identify(subject=principal.subject, tenant=principal.tenant or "", roles=principal.roles)
                identity.authorize(principal, rule.roles, rule.method)
                await self._gate.admit(principal, rule.method)
                await self._turns.wait(_tenant_id(principal))
        except FacetmeshError as error:
            return self._refusal(rule, record, error)
        # What generated code reads a message with is the FromString of its class.
        kind = cast("Any", handler.request_deserializer).__self__
        call = _Call(self, rule, record, principal, kind, streams=handler.request_streaming)
        return _wrapped(handler, call)

    async def _authenticate(self, details: grpc.HandlerCallDetails) -> identity.Principal:
        served = ""
        token: str | None = None
        for key, value in details.invocation_metadata or ():
            if not isinstance(value, str):
                continue
            if key == identity.FOR_HEADER:
                served = value
            elif token is None and key == "authorization" and value[: len(_BEARER)].lower() == _BEARER:
                token = value[len(_BEARER) :]
        if token is not None:
            return identity.working_for(await self._verifier.verify(token), served)
        raise Unauthenticated(
            "A token is required: exchange an API key for one with IssueToken.", reason="TOKEN_MISSING"
        )

    def _refusal(
        self, rule: access.Rule, record: audit.Record, error: FacetmeshError
    ) -> grpc.RpcMethodHandler[Any, Any]:
        async def refuse(_: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> None:
            record.source_address = source(context, self.gateway)
            self.finished(rule, record, error)
            self._recorder.offer(record, error)
            await status.abort(context, error)

        # A streaming handler does not read what it does not ask for: a refused
        # caller's megabytes never arrive.
        return grpc.stream_unary_rpc_method_handler(refuse)

    async def check(self, principal: identity.Principal | None, request: Message, context: Any) -> None:
        """Returns when the request may be worked on; raises what it is refused with."""
        names = list(access.named(principal, request))
        audit.current().concerns(names)  # first, so that a refusal tells it
        await self._authorize(principal, request, names)
        routed = dict(context.invocation_metadata() or ()).get(MODEL_HEADER)
        if routed is not None and routed not in (access.models(principal, request) or {routed}):
            raise InvalidArgument(
                f"The metadata {MODEL_HEADER} names another model than the request.", reason="MODEL_HEADER_MISMATCH"
            )

    async def check_next(self, principal: identity.Principal | None, request: Message, method: str) -> None:
        """Returns when a later message of a stream may be worked on; raises what it is refused with."""
        if principal is not None:
            await self._verifier.verify(principal.token)
            if not action(method).infers:  # a file on its way
                await self._turns.stand_aside(_tenant_id(principal))
        await self._authorize(principal, request, access.named(principal, request))

    async def _authorize(
        self, principal: identity.Principal | None, request: Message, names: Iterable[str]
    ) -> None:
        if principal is not None:
            access.authorize_tenant(principal, names)
            access.authorize_models(principal, request)
            await self._gate.authorize(principal, request, audit.current())
        validate(request)

    def enter(self, principal: identity.Principal | None, method: str, stack: ExitStack) -> Place:
        """Takes a place among the service's calls in progress, and the tenant's; the stack gives them back.

        Raises:
            ResourceExhausted: There is none.
        """
        self._metrics.in_progress.inc()
        stack.callback(self._metrics.in_progress.dec)
        place = self._places.enter("" if principal is None else principal.tenant or principal.subject)
        stack.callback(place.leave)
        stack.callback(self._gate.enter(principal, method))
        return place

    async def let_read(self, principal: identity.Principal | None, size: int, place: Place) -> None:
        """Returns when a message that has come may be read; raises what it is refused with."""
        if size > _LARGE_BYTES:
            await place.work_on(size)
            await self._turns.in_line(_tenant_id(principal), size)

    async def check_still(self, principal: identity.Principal | None) -> None:
        """Returns while answers may go on: a token may expire or be revoked meanwhile. Services' streams have no end.

        Raises:
            Unauthenticated: They may not.
        """
        if principal is not None and "service" not in principal.roles:
            await self._verifier.verify(principal.token)

    async def accept(
        self, rule: access.Rule, record: audit.Record, principal: identity.Principal | None
    ) -> None:
        """Returns when the answer may leave."""
        if not rule.required:
            return
        if self._gate.need_not_wait(principal, rule.method):
            self._recorder.offer(record)
        else:
            await self._recorder.accept(record)

    def expecting(self, rule: access.Rule, tenant: str) -> AbstractContextManager[None]:
        """For the length of a call that ends with `accept`."""
        return self._recorder.expecting(tenant) if rule.required else nullcontext()

    def answering(self, principal: identity.Principal | None, method: str) -> AbstractContextManager[None]:
        """For the length of a call that has one answer."""
        if principal is None:
            return nullcontext()
        return self._turns.answering(_tenant_id(principal), infers=action(method).infers)

    def refused(self, record: audit.Record, error: FacetmeshError) -> None:
        """Records a call that ended with an error, in the background."""
        self._recorder.offer(record, error)

    def finished(self, rule: access.Rule, record: audit.Record, error: FacetmeshError | None) -> None:
        """Counts a call that ended."""
        self._metrics.calls.labels(rule.method, "OK" if error is None else error.code).inc()
        self._metrics.latency_s.labels(rule.method).observe(time.perf_counter() - record.started)


class _Call:
    """One call: the servicer's method with everything around it."""

    def __init__(
        self,
        guard: Guard,
        rule: access.Rule,
        record: audit.Record,
        principal: identity.Principal | None,
        kind: type[Message],
        *,
        streams: bool,
    ) -> None:
        self._guard = guard
        self._rule = rule
        self._record = record
        self._principal = principal
        self._kind = kind
        self._streams = streams

    def unary(self, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            with ExitStack() as stack:
                try:
                    place = self._enter(context, stack)
                    stack.enter_context(self._guard.answering(self._principal, self._rule.method))
                    request = await self._checked(requests, context, place)
                    with self._guard.expecting(self._rule, self._record.tenant):
                        answer = method(request, context)
                        del request  # it is the servicer's, and goes with it
                        response = await answer
                        await self._guard.accept(self._rule, self._record, self._principal)
                except BaseException as error:
                    await self._fail(context, error)
                    raise
                self._guard.finished(self._rule, self._record, None)
                return response

        return call

    def stream(self, method: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        async def call(
            requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]
        ) -> AsyncIterator[Any]:
            accepted = False
            with ExitStack() as stack:
                try:
                    request = await self._checked(requests, context, self._enter(context, stack))
                    async for response in method(request, context):
                        if accepted:
                            await self._guard.check_still(self._principal)
                        else:  # nothing unaccounted leaves
                            await self._guard.accept(self._rule, self._record, self._principal)
                            accepted = True
                        yield response
                    if not accepted:
                        await self._guard.accept(self._rule, self._record, self._principal)
                except BaseException as error:
                    await self._fail(context, error)
                    raise
                self._guard.finished(self._rule, self._record, None)

        return call

    def _enter(self, context: grpc.aio.ServicerContext[Any, Any], stack: ExitStack) -> Place:
        """A place for the call, before anything of its message is read."""
        self._record.source_address = source(context, self._guard.gateway)
        identity.set_current(self._principal)
        deadlines.set_current(context.time_remaining())
        identity.set_certificate(self._guard.certificates.presented(context))
        audit.set_current(self._record)
        place = self._guard.enter(self._principal, self._rule.method, stack)
        if self._principal is not None:
            identity.confirm(self._principal)
        return place

    async def _checked(
        self, requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any], place: Place
    ) -> Message | Incoming:
        """What the servicer gets: the message, or an iterator that reads and checks each one as it comes."""
        await place.expect()
        if not self._streams:
            request = await self._read(await only(context), place, first=True)
            await self._guard.check(self._principal, request, context)
            return request

        async def read(data: bytes, first: bool) -> Message:  # noqa: FBT001 - Incoming asks for it
            request = await self._read(data, place, first=first)
            if not first:
                await self._guard.check_next(self._principal, request, self._rule.method)
                return request
            await self._guard.check(self._principal, request, context)
            if not any(access.named(self._principal, request)):
                raise InvalidArgument(
                    "The stream's first message must name what the stream is about.", reason="FIRST_MESSAGE_INVALID"
                )
            return request

        incoming = Incoming(requests, read, place.rest)
        await incoming.open()
        return incoming

    async def _read(self, data: bytes, place: Place, *, first: bool) -> Message:
        if first:
            place.hold(len(data))
        else:
            await place.hold_most(len(data))
        await self._guard.let_read(self._principal, len(data), place)
        return message(data, self._kind)

    async def _fail(self, context: grpc.aio.ServicerContext[Any, Any], error: BaseException) -> None:
        ours = known(error)
        if ours is None:
            return
        self._guard.finished(self._rule, self._record, ours)
        self._guard.refused(self._record, ours)
        # gRPC's own error refers to this one and, round about, to itself: what the frames had would stay for long.
        traceback.clear_frames(error.__traceback__)
        if not isinstance(error, asyncio.CancelledError):
            await status.abort(context, ours)


def _tenant_id(principal: identity.Principal | None) -> str:
    """Whose turn it is; empty for who is of no tenant."""
    return ((principal and principal.tenant) or "").removeprefix("tenants/")


def _wrapped(handler: grpc.RpcMethodHandler[Any, Any], call: _Call) -> grpc.RpcMethodHandler[Any, Any]:
    """The handler with everything around it, for each of gRPC's four kinds; it is the call that reads messages."""
    method = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    # Of a handler that takes a stream gRPC reads nothing that it does not ask for, be it one message.
    make, around = (
        (grpc.stream_stream_rpc_method_handler, call.stream)
        if handler.response_streaming
        else (grpc.stream_unary_rpc_method_handler, call.unary)
    )
    around_it = around(cast("Any", method))
    wrapped: grpc.RpcMethodHandler[Any, Any] = cast("Any", make)(around_it, None, handler.response_serializer)
    return wrapped


