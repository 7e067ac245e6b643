"""audit's gRPC face: protobuf in, domain call, protobuf out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from facetmesh.audit.filters import parse_filter
from facetmesh.audit.v1 import audit_pb2, audit_pb2_grpc
from facetmesh.event.v1.event_pb2 import AuditEvent, SignedEvent

if TYPE_CHECKING:
    from facetmesh.audit.history import History, Past
    from facetmesh.audit.log import Log
    from facetmesh.audit.receipts import Proof, Receipt, Receipts


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """Serves facetmesh.audit.v1.AuditService.

    Args:
        log: The log.
        receipts: Makes receipts.
        history: Lists events.
    """

    def __init__(self, log: Log, receipts: Receipts, history: History) -> None:
        self._log = log
        self._receipts = receipts
        self._history = history

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

    async def ListEvents(self, request: audit_pb2.ListEventsRequest, _: Any) -> audit_pb2.ListEventsResponse:
        """Lists a tenant's events, the newest first."""
        parent = request.parent.removeprefix("tenants/")
        tenant = None if parent == "-" else parent  # kit lets nobody but platform admins ask for all
        page = await self._history.page(
            tenant, wanted=parse_filter(""), size=request.page_size, token=request.page_token
        )
        return audit_pb2.ListEventsResponse(
            events=[_logged(past) for past in page.events], next_page_token=page.next_token
        )


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
    signed = SignedEvent.FromString(past.opened.signed_event)
    return audit_pb2.LoggedEvent(index=past.index, event=AuditEvent.FromString(signed.event))
