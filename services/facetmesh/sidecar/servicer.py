"""Dapr's API, as one app sees it: protobuf in, a call below, protobuf out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import grpc.aio
from dapr.proto.common.v1 import common_pb2
from dapr.proto.runtime.v1 import metadata_pb2, pubsub_pb2, secret_pb2, state_pb2
from google.protobuf.empty_pb2 import Empty

from facetmesh import __version__
from facetmesh.kit.store import StoreError
from facetmesh.sidecar import errors, state
from facetmesh.sidecar.broker import TopicForbidden
from facetmesh.sidecar.errors import ApiError
from facetmesh.sidecar.events import EventError, Published, Trace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from facetmesh.sidecar.app import App
    from facetmesh.sidecar.broker import Broker
    from facetmesh.sidecar.metrics import Metrics
    from facetmesh.sidecar.secrets import SecretStore
    from facetmesh.sidecar.state import StateStore

    _Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

_SEPARATOR = "||"
_LONGEST_TTL_S = 2**31 - 1
_FIRST_WRITE = common_pb2.StateOptions.CONCURRENCY_FIRST_WRITE

METHODS = (
    "GetState", "GetBulkState", "SaveState", "DeleteState", "DeleteBulkState", "ExecuteStateTransaction",
    "PublishEvent", "BulkPublishEvent", "BulkPublishEventAlpha1", "GetSecret", "GetBulkSecret", "GetMetadata",
)  # fmt: skip
"""The methods of Dapr's API that are implemented."""


class DaprServicer:
    """Raises ApiError for everything that a call can end with.

    Args:
        app: Whose sidecar this is.
        metrics: Counts.
    """

    def __init__(self, app: App, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def GetState(
        self, request: state_pb2.GetStateRequest, _context: _Context
    ) -> state_pb2.GetStateResponse:
        """The value of a key; empty when there is none."""
        store = self._state(request.store_name)
        key = self._key(request.key)
        try:
            record = (await store.get([key])).get(key)
        except StoreError as error:
            message = f"fail to get {request.key} from state store {request.store_name}: {error}"
            raise errors.store_failed(error, message, "ERR_STATE_GET") from error
        if record is None:
            return state_pb2.GetStateResponse()
        return state_pb2.GetStateResponse(data=record.value, etag=record.etag, metadata=_expiry(record))

    async def GetBulkState(
        self, request: state_pb2.GetBulkStateRequest, _context: _Context
    ) -> state_pb2.GetBulkStateResponse:
        """The values of keys; an empty one for each that has none."""
        store = self._state(request.store_name)
        keys = {key: self._key(key) for key in request.keys}
        try:
            records = await store.get(list(keys.values()))
        except StoreError as error:
            raise errors.store_failed(error, str(error), "ERR_STATE_BULK_GET") from error
        response = state_pb2.GetBulkStateResponse()
        for key, stored in keys.items():
            item = response.items.add(key=key)
            if record := records.get(stored):
                item.data, item.etag = record.value, record.etag
                item.metadata.update(_expiry(record))
        return response

    async def SaveState(self, request: state_pb2.SaveStateRequest, _context: _Context) -> Empty:
        """Writes values, each on its own."""
        store = self._state(request.store_name)
        if any(not item.key for item in request.states):
            raise ApiError(grpc.StatusCode.INVALID_ARGUMENT, "state key cannot be empty", "ERR_STATE_SAVE")
        text = f"failed saving state in state store {request.store_name}"
        changes = [self._set(item, text, "ERR_STATE_SAVE") for item in request.states]
        await _apply(store, changes, text, "ERR_STATE_SAVE")
        return Empty()

    async def DeleteState(self, request: state_pb2.DeleteStateRequest, _context: _Context) -> Empty:
        """Removes a value."""
        store = self._state(request.store_name)
        change = state.Delete(self._key(request.key), request.etag.value)
        await _apply(store, [change], f"failed deleting state with key {request.key}", "ERR_STATE_DELETE")
        return Empty()

    async def DeleteBulkState(
        self, request: state_pb2.DeleteBulkStateRequest, _context: _Context
    ) -> Empty:
        """Removes values, each on its own."""
        store = self._state(request.store_name)
        changes = [state.Delete(self._key(item.key), item.etag.value) for item in request.states]
        text = f"failed deleting state in state store {request.store_name}"
        await _apply(store, changes, text, "ERR_STATE_DELETE_BULK")
        return Empty()

    async def ExecuteStateTransaction(
        self, request: state_pb2.ExecuteStateTransactionRequest, _context: _Context
    ) -> Empty:
        """Writes and removes values, all or none."""
        store = self._state(request.storeName)
        text = "error while executing state transaction"
        changes: list[state.Change] = []
        for operation in request.operations:
            if operation.operationType == "upsert":
                changes.append(self._set(operation.request, text, "ERR_STATE_TRANSACTION"))
            elif operation.operationType == "delete":
                changes.append(state.Delete(self._key(operation.request.key), operation.request.etag.value))
            else:
                raise ApiError(
                    grpc.StatusCode.UNIMPLEMENTED, f"operation type {operation.operationType} not supported",
                    "ERR_NOT_SUPPORTED_STATE_OPERATION",
                )
        try:
            await store.transact(changes)
        except state.EtagMismatch as mismatch:
            # INTERNAL, as daprd has it; callers must read the text.
            raise ApiError(grpc.StatusCode.INTERNAL, f"{text}: {mismatch}", "ERR_STATE_TRANSACTION") from None
        except StoreError as error:
            raise errors.store_failed(error, f"{text}: {error}", "ERR_STATE_TRANSACTION") from error
        return Empty()

    async def PublishEvent(self, request: pubsub_pb2.PublishEventRequest, context: _Context) -> Empty:
        """Publishes an event."""
        broker = self._broker(request.pubsub_name, request.topic)
        published = Published(request.data, request.data_content_type, dict(request.metadata), _trace(context))
        await self._publish(broker, request.topic, [published])
        return Empty()

    async def BulkPublishEvent(
        self, request: pubsub_pb2.BulkPublishRequest, context: _Context
    ) -> pubsub_pb2.BulkPublishResponse:
        """Publishes events: all or none, so that no entry ever fails alone."""
        broker = self._broker(request.pubsub_name, request.topic)
        ids = [entry.entry_id for entry in request.entries]
        if not all(ids) or len(set(ids)) != len(ids):
            raise ApiError(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"error marshaling events to bytes for topic {request.topic} pubsub {broker.name}."
                " error: entryId is duplicated or not present for entry",
                "DAPR_PUBSUB_MARSHAL_EVENTS",
            )
        common, trace = dict(request.metadata), _trace(context)
        published = [
            Published(entry.event, entry.content_type, {**common, **entry.metadata}, trace) for entry in request.entries
        ]
        await self._publish(broker, request.topic, published)
        return pubsub_pb2.BulkPublishResponse()

    BulkPublishEventAlpha1 = BulkPublishEvent

    async def GetSecret(
        self, request: secret_pb2.GetSecretRequest, _context: _Context
    ) -> secret_pb2.GetSecretResponse:
        """A secret."""
        secrets = self._secrets(request.store_name)
        if request.key not in secrets.all:
            raise errors.secret_not_found(request.key, request.store_name)
        return secret_pb2.GetSecretResponse(data={request.key: secrets.all[request.key]})

    async def GetBulkSecret(
        self, request: secret_pb2.GetBulkSecretRequest, _context: _Context
    ) -> secret_pb2.GetBulkSecretResponse:
        """Every secret that the app may see."""
        secrets = self._secrets(request.store_name)
        return secret_pb2.GetBulkSecretResponse(
            data={name: secret_pb2.SecretResponse(secrets={name: value}) for name, value in secrets.all.items()}
        )

    async def GetMetadata(
        self, _request: metadata_pb2.GetMetadataRequest, _context: _Context
    ) -> metadata_pb2.GetMetadataResponse:
        """What this sidecar is and has."""
        version = f"facetmesh-{__version__}"
        return metadata_pb2.GetMetadataResponse(
            id=self._app.id,
            runtime_version=version,
            extended_metadata={"daprRuntimeVersion": version},
            registered_components=[
                metadata_pb2.RegisteredComponents(name=component.name, type=component.type, version="v1")
                for component in self._app.components
            ],
            subscriptions=[
                metadata_pb2.PubsubSubscription(
                    pubsub_name=subscription.pubsub,
                    topic=subscription.topic,
                    dead_letter_topic=subscription.dead_letter_topic,
                    type=metadata_pb2.DECLARATIVE,
                )
                for subscription in self._app.subscriptions
            ],
        )

    def _state(self, name: str) -> StateStore:
        if name not in self._app.states:
            raise errors.not_found("state", name, self._app.id, any_configured=bool(self._app.states))
        return self._app.states[name]

    def _broker(self, name: str, topic: str) -> Broker:
        if not name:
            raise ApiError(grpc.StatusCode.INVALID_ARGUMENT, "pubsub name is empty", "DAPR_PUBSUB_NAME_EMPTY")
        if name not in self._app.brokers:
            raise errors.not_found("pubsub", name, self._app.id, any_configured=True)
        if not topic:
            raise ApiError(
                grpc.StatusCode.INVALID_ARGUMENT, f"topic is empty in pubsub {name}", "DAPR_PUBSUB_TOPIC_NAME_EMPTY"
            )
        return self._app.brokers[name]

    def _secrets(self, name: str) -> SecretStore:
        if name not in self._app.secrets:
            raise errors.secret_store_not_found(name, any_configured=bool(self._app.secrets))
        return self._app.secrets[name]

    def _key(self, key: str) -> str:
        """The key as it is stored: no app can name another's."""
        if _SEPARATOR in key:
            raise ApiError(
                grpc.StatusCode.INVALID_ARGUMENT, f"input key/keyPrefix '{key}' can't contain '{_SEPARATOR}'",
                "DAPR_STATE_ILLEGAL_KEY",
            )
        return f"{self._app.id}{_SEPARATOR}{key}"

    def _set(self, item: common_pb2.StateItem, text: str, reason: str) -> state.Set:
        try:
            ttl_s = _ttl_s(item.metadata)
        except ValueError as error:
            raise ApiError(grpc.StatusCode.INTERNAL, f"{text}: error parsing TTL: {error}", reason) from None
        first_write = item.options.concurrency == _FIRST_WRITE
        return state.Set(self._key(item.key), item.value, item.etag.value, first_write=first_write, ttl_s=ttl_s)

    async def _publish(self, broker: Broker, topic: str, published: Sequence[Published]) -> None:
        try:
            await broker.publish(self._app.id, topic, published)
        except TopicForbidden as error:
            raise ApiError(grpc.StatusCode.PERMISSION_DENIED, str(error), "DAPR_PUBSUB_FORBIDDEN") from None
        except EventError as error:
            raise ApiError(
                grpc.StatusCode.INVALID_ARGUMENT, f"cannot create cloudevent: {error}",
                "DAPR_PUBSUB_CLOUD_EVENT_CREATION",
            ) from None
        except StoreError as error:
            message = f"error when publishing to topic {topic} in pubsub {broker.name}: {error}"
            raise errors.store_failed(error, message, "DAPR_PUBSUB_PUBLISH_MESSAGE") from error
        self._metrics.published.labels(self._app.id, topic).inc(len(published))


async def _apply(store: StateStore, changes: Sequence[state.Change], text: str, reason: str) -> None:
    try:
        mismatches = [mismatch for mismatch in await store.apply(changes) if mismatch is not None]
    except StoreError as error:
        raise errors.store_failed(error, f"{text}: {error}", reason) from error
    if mismatches:
        raise ApiError(grpc.StatusCode.ABORTED, f"{text}: {mismatches[0]}", reason)


def _expiry(record: state.Record) -> Mapping[str, str]:
    if record.expires is None:
        return {}
    ends = datetime.fromtimestamp(record.expires, UTC)
    return {"ttlExpireTime": ends.isoformat(timespec="seconds").replace("+00:00", "Z")}


def _ttl_s(metadata: Mapping[str, str]) -> int | None:
    value = metadata.get("ttlInSeconds", "")
    if not value:
        return None
    try:
        ttl_s = int(value)
    except ValueError:
        raise ValueError(f"incorrect value for metadata 'ttlInSeconds': '{value}' is not a number") from None
    if not -1 <= ttl_s <= _LONGEST_TTL_S:
        raise ValueError("incorrect value for metadata 'ttlInSeconds': must be -1 or greater")
    return ttl_s


def _trace(context: _Context) -> Trace:
    headers = {name: value for name, value in context.invocation_metadata() or () if isinstance(value, str)}
    return Trace(headers.get("traceparent", ""), headers.get("tracestate", ""))
