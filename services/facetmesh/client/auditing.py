"""The client's calls that read the audit log and prove it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from facetmesh.audit.v1 import audit_pb2
from facetmesh.client import calls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FORMATS = {
    "jsonl": audit_pb2.ExportEventsRequest.FORMAT_JSON_LINES,
    "csv": audit_pb2.ExportEventsRequest.FORMAT_CSV,
}
"""How events can be exported."""


class Auditing(ABC):
    """What AsyncClient can do with the audit log."""

    _audit: Any  # audit_pb2_grpc.AuditServiceStub, whose stubs differ for grpc.aio

    async def checkpoint(self) -> audit_pb2.Checkpoint:
        """The newest checkpoint of the audit log. Needs no key."""
        return await calls.result(self._audit.GetCheckpoint(audit_pb2.GetCheckpointRequest()))

    async def consistency_proof(self, old_size: int, new_size: int) -> audit_pb2.ConsistencyProof:
        """The proof that the log of new_size entries continues that of old_size. Needs no key."""
        request = audit_pb2.GetConsistencyProofRequest(old_size=old_size, new_size=new_size)
        return await calls.result(self._audit.GetConsistencyProof(request))

    async def inclusion_proof(self, index: int, size: int) -> audit_pb2.InclusionProof:
        """The proof that the entry at index is in the log of size entries. Needs no key."""
        request = audit_pb2.GetInclusionProofRequest(index=index, size=size)
        return await calls.result(self._audit.GetInclusionProof(request))

    async def log_file(self, path: str) -> bytes:
        """A file of the log as C2SP's tlog-tiles names it, such as tile/0/000. Needs no key."""
        answer = await calls.result(self._audit.GetLogFile(audit_pb2.GetLogFileRequest(path=path)))
        return bytes(answer.data)

    async def receipt(self, receipt: str, *, wait_s: float = 10) -> audit_pb2.Receipt:
        """A receipt, once its event is in the log.

        Args:
            receipt: Its name, as an answer gave it.
            wait_s: How long its event may take to arrive, at most 30 s.
        """
        request = audit_pb2.GetReceiptRequest(name=await self._name("receipts", receipt))
        request.wait.FromNanoseconds(int(wait_s * 1e9))
        return await calls.result(self._audit.GetReceipt(request))

    async def list_events(
        self, *, tenant: str | None = None, filter: str = "", limit: int | None = 100,  # noqa: A002 - AIP-160's name
    ) -> list[audit_pb2.LoggedEvent]:
        """Events, the newest first.

        Args:
            tenant: Whose; the key's own tenant's when None, everybody's when "-", which only platform admins may see.
            filter: Which of them, in the language of docs/audit.md, such as `outcome = REFUSED`.
            limit: At most this many; all when None.
        """
        request = audit_pb2.ListEventsRequest(parent=await self._parent(tenant), filter=filter)
        return await calls.pages(self._audit.ListEvents, request, "events", limit)

    async def watch_events(
        self, *, tenant: str | None = None, filter: str = "", start_index: int | None = None,  # noqa: A002 - as above
    ) -> AsyncIterator[audit_pb2.LoggedEvent]:
        """Events in the order of the log, and those to come; it ends with Unauthenticated when the token does.

        Args:
            tenant: Whose, as for `list_events`.
            filter: Which of them.
            start_index: The index of the first entry; only what is logged from now on when None.
        """
        request = audit_pb2.WatchEventsRequest(
            parent=await self._parent(tenant), filter=filter, start_index=start_index
        )
        with calls.stream(self._audit.WatchEvents(request)) as entries:
            async for logged in entries:
                yield logged

    async def export_events(
        self, *, tenant: str | None = None, filter: str = "", format: str = "jsonl",  # noqa: A002 - as above
    ) -> AsyncIterator[bytes]:
        """All events as text, piece by piece, the newest first.

        Args:
            tenant: Whose, as for `list_events`.
            filter: Which of them.
            format: jsonl or csv.
        """
        request = audit_pb2.ExportEventsRequest(
            parent=await self._parent(tenant), filter=filter, format=FORMATS[format]
        )
        with calls.stream(self._audit.ExportEvents(request)) as parts:
            async for part in parts:
                yield part.data

    async def get_retention(self, tenant: str) -> audit_pb2.Retention:
        """How long a tenant's events can be read."""
        request = audit_pb2.GetRetentionRequest(name=f"{calls.tenant_name(tenant)}/retention")
        return await calls.result(self._audit.GetRetention(request))

    async def update_retention(
        self, tenant: str, *, days: int | None = None, hold_reason: str | None = None
    ) -> audit_pb2.Retention:
        """Changes how long a tenant's events can be read. For platform admins.

        Args:
            tenant: Whose.
            days: For how long, 0 for ever; unchanged when None.
            hold_reason: Why all is to be held; "" ends a hold; unchanged when None.
        """
        request = audit_pb2.UpdateRetentionRequest()
        request.retention.name = f"{calls.tenant_name(tenant)}/retention"
        if days is not None:
            request.retention.retention_days = days
            request.update_mask.paths.append("retention_days")
        if hold_reason is not None:
            request.retention.hold_reason, request.retention.legal_hold = hold_reason, bool(hold_reason)
            request.update_mask.paths.extend(["legal_hold", "hold_reason"])
        return await calls.result(self._audit.UpdateRetention(request))

    @abstractmethod
    async def _parent(self, tenant: str | None) -> str:
        """The tenant's resource name; the key's own tenant when None."""

    @abstractmethod
    async def _name(self, collection: str, name: str) -> str:
        """A whole resource name."""
