"""audit's gRPC face: protobuf in, domain call, protobuf out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from google.api.httpbody_pb2 import HttpBody

from facetmesh.audit import exports
from facetmesh.audit.files import CHECKPOINT
from facetmesh.audit.filters import parse_filter
from facetmesh.audit.v1 import audit_pb2, audit_pb2_grpc
from facetmesh.kit.fieldmasks import merged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from facetmesh.audit.files import LogFiles
    from facetmesh.audit.history import History, Past
    from facetmesh.audit.log import Log
    from facetmesh.audit.receipts import Proof, Receipt, Receipts
    from facetmesh.audit.retention import Retention, Retentions

_MUTABLE = ("retention_days", "legal_hold", "hold_reason")


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """Serves facetmesh.audit.v1.AuditService.

    Args:
        log: The log.
        files: The log as files.
        receipts: Makes receipts.
        history: Reads events.
        retentions: How long they can be read.
    """

    def __init__(
        self, log: Log, files: LogFiles, receipts: Receipts, history: History, retentions: Retentions
    ) -> None:
        self._log = log
        self._files = files
        self._receipts = receipts
        self._history = history
        self._retentions = retentions

    async def GetCheckpoint(self, _: audit_pb2.GetCheckpointRequest, __: Any) -> audit_pb2.Checkpoint:
        """Returns the newest checkpoint."""
        await self._log.refresh()
        return audit_pb2.Checkpoint(note=self._log.checkpoint, verifier_key=self._log.verifier_key)

    async def GetConsistencyProof(
        self, request: audit_pb2.GetConsistencyProofRequest, _: Any
    ) -> audit_pb2.ConsistencyProof:
        """Returns the proof that a newer checkpoint's log continues an older one's."""
        return audit_pb2.ConsistencyProof(hashes=await self._log.consistency(request.old_size, request.new_size))

    async def GetReceipt(self, request: audit_pb2.GetReceiptRequest, _: Any) -> audit_pb2.Receipt:
        """Returns a receipt, once its event is in the log."""
        _, tenant, _, event_id = request.name.split("/")
        wait_s = request.wait.ToMicroseconds() / 1e6
        receipt = await self._receipts.get(tenant, event_id, wait_s=wait_s)
        return receipt_message(request.name, receipt)

    async def GetInclusionProof(
        self, request: audit_pb2.GetInclusionProofRequest, _: Any
    ) -> audit_pb2.InclusionProof:
        """Returns the proof that an entry is in the log."""
        return audit_pb2.InclusionProof(hashes=await self._log.inclusion(request.index, request.size))

    async def GetLogFile(self, request: audit_pb2.GetLogFileRequest, _: Any) -> HttpBody:
        """Returns a file of the log."""
        content_type = "text/plain; charset=utf-8" if request.path == CHECKPOINT else "application/octet-stream"
        return HttpBody(content_type=content_type, data=await self._files.read(request.path))

    async def ListEvents(self, request: audit_pb2.ListEventsRequest, _: Any) -> audit_pb2.ListEventsResponse:
        """Lists a tenant's events, the newest first."""
        page = await self._history.page(
            _tenant(request.parent), wanted=parse_filter(request.filter), size=request.page_size,
            token=request.page_token,
        )
        return audit_pb2.ListEventsResponse(
            events=[_logged(past) for past in page.events], next_page_token=page.next_token
        )

    async def WatchEvents(
        self, request: audit_pb2.WatchEventsRequest, _: Any
    ) -> AsyncIterator[audit_pb2.LoggedEvent]:
        """Streams a tenant's events as they are logged."""
        wanted = parse_filter(request.filter)
        start = request.start_index if request.HasField("start_index") else self._log.head.size
        async for past in self._history.follow(self._log, _tenant(request.parent), wanted=wanted, start=start):
            yield _logged(past)

    async def ExportEvents(self, request: audit_pb2.ExportEventsRequest, _: Any) -> AsyncIterator[HttpBody]:
        """Streams all of a tenant's events as text."""
        events = self._history.all(_tenant(request.parent), wanted=parse_filter(request.filter))
        as_csv = request.format == audit_pb2.ExportEventsRequest.FORMAT_CSV
        content_type = exports.CSV if as_csv else exports.JSON_LINES
        async for data in exports.csv_lines(events) if as_csv else exports.json_lines(events):
            yield HttpBody(content_type=content_type, data=data)

    async def GetRetention(self, request: audit_pb2.GetRetentionRequest, _: Any) -> audit_pb2.Retention:
        """Returns how long a tenant's events can be read."""
        return _retention_message(await self._retentions.get(_tenant_of(request.name)))

    async def UpdateRetention(self, request: audit_pb2.UpdateRetentionRequest, _: Any) -> audit_pb2.Retention:
        """Changes how long a tenant's events can be read."""
        wanted, mask = request.retention, request.update_mask

        def change(old: Retention) -> Retention:
            new = merged(_retention_message(old), wanted, mask, _MUTABLE)
            return replace(old, days=new.retention_days, hold=new.legal_hold, reason=new.hold_reason)

        return _retention_message(await self._retentions.change(_tenant_of(wanted.name), change, etag=wanted.etag))


def _tenant(parent: str) -> str | None:
    """The tenant's id; None for all, which kit lets nobody but platform admins ask for."""
    return None if parent == "tenants/-" else parent.removeprefix("tenants/")


def _tenant_of(name: str) -> str:
    return name.split("/")[1]


def _retention_message(retention: Retention) -> audit_pb2.Retention:
    message = audit_pb2.Retention(
        name=f"tenants/{retention.tenant}/retention", retention_days=retention.days, legal_hold=retention.hold,
        hold_reason=retention.reason, etag=retention.etag,
    )
    if retention.changed_us:
        message.update_time.FromMicroseconds(retention.changed_us)
    return message


def receipt_message(name: str, receipt: Receipt) -> audit_pb2.Receipt:
    """A receipt as it is handed out."""
    return audit_pb2.Receipt(
        name=name, event=_proof(receipt.event), service_key=_proof(receipt.service_key), checkpoint=receipt.checkpoint
    )


def _proof(proof: Proof) -> audit_pb2.LogProof:
    return audit_pb2.LogProof(
        signed_event=proof.opened.signed_event, salt=proof.opened.salt, index=proof.index, hashes=proof.hashes
    )


def _logged(past: Past) -> audit_pb2.LoggedEvent:
    return audit_pb2.LoggedEvent(index=past.index, event=past.event)
