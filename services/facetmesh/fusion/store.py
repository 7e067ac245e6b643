"""Operations in Dapr state.

    tenants/{tenant}/operations/{operation}   an operation
    tenants/{tenant}/requests/{request_id}    the operation that a request made, for a day
    tenants/{tenant}/operations/index/…       hints for lists
    results/index/…, results/{day}/index/…    on which days which results were stored
    work/index/…                              hints for workers: what may not be done yet
"""  # noqa: D208 - a table

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from facetmesh.fusion.backends import Backend, Model
from facetmesh.fusion.imprint_index import ImprintIndex
from facetmesh.fusion.line import Priority, Ticket
from facetmesh.fusion.operations import Caller, Checkpoint, Failure, Fusion, Job, LeftFace, Operation, Ref, Stage
from facetmesh.fusion.options import PLAIN, Options
from facetmesh.kit.errors import Aborted
from facetmesh.kit.index import Index

if TYPE_CHECKING:
    from facetmesh.fusion.lookups import Imprint
    from facetmesh.kit.dapr import Entry, State

_BUCKETS = 16
_REQUEST_TTL_S = 24 * 3600


class DaprStore:
    """The store of fusion.

    Args:
        state: Dapr state of the app fusion.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._imprints = ImprintIndex(state)
        self._work = Index(state, "work", buckets=_BUCKETS)
        self._days = Index(state, "results")

    async def get(self, ref: Ref) -> Operation | None:
        """The operation; None when there is none."""
        entry = await self._state.get(_key(ref))
        return None if entry is None else _operation(entry)

    async def create(self, operation: Operation) -> bool:
        """Stores a new operation; False when there is one with its id."""
        await self._index(operation.tenant_id).add(operation.id)
        try:
            await self._state.put(_key(operation.ref), _text(operation), create=True)
        except Aborted:
            return False
        return True

    async def save(self, operation: Operation) -> None:
        """Stores an operation in place of the version that was read; raises Aborted when that has changed."""
        await self._state.put(_key(operation.ref), _text(operation), etag=operation.etag)

    async def ids(self, tenant_id: str) -> list[str]:
        """The ids of a tenant's operations, sorted; some may have no record."""
        return await self._index(tenant_id).ids()

    async def refs(self, tenant_id: str) -> list[Ref]:
        """A tenant's operations; some may have no record."""
        return [Ref(tenant_id, operation_id) for operation_id in await self.ids(tenant_id)]

    async def delete_all(self, tenant_id: str) -> None:
        """Deletes a tenant's operations, and their index last. What is kept of its requests ends by itself in a day."""
        for ref in await self.refs(tenant_id):
            await self._state.delete(_key(ref))
        await self._imprints.clear(tenant_id)
        await self._index(tenant_id).clear()

    async def imprint(self, tenant_id: str, imprint: Imprint) -> None:
        """Keeps what a result is known again by."""
        await self._imprints.add(tenant_id, imprint)

    async def imprints(self, tenant_id: str, *, sha256: str = "", fingerprint: str = "") -> list[Imprint]:
        """The imprints that may be of the file, or of a picture that looks alike; some may have no record."""
        return await self._imprints.near(tenant_id, sha256=sha256, fingerprint=fingerprint)

    async def reserve(self, tenant_id: str, request_id: str, operation_id: str) -> str:
        """The operation id of a request: the one given, unless the request came before."""
        key = f"tenants/{tenant_id}/requests/{request_id}"
        try:
            await self._state.put(key, operation_id.encode(), create=True, ttl_s=_REQUEST_TTL_S)
        except Aborted:
            entry = await self._state.get(key)
            return operation_id if entry is None else entry.value.decode()
        return operation_id

    async def announce(self, ticket: Ticket) -> None:
        """Notes that an operation may need work: before it is created."""
        await self._work.add(_work_item(ticket))

    async def forget(self, ref: Ref) -> None:
        """Notes that an operation needs no more work."""
        for priority in Priority:
            await self._work.remove(_work_item(Ticket(ref, priority)))

    async def note_result(self, ref: Ref, day: int) -> None:
        """Notes that a result is about to be stored, on a day counted since the epoch."""
        await self._days.add(str(day))
        await self._results(day).add(f"{ref.tenant_id}/{ref.id}")

    async def result_days(self) -> list[int]:
        """The days on which results were stored."""
        return sorted(int(day) for day in await self._days.ids())

    async def results_of(self, day: int) -> list[Ref]:
        """What was stored on a day; some may have no record, or no result."""
        return [Ref(*item.split("/")) for item in await self._results(day).ids()]

    async def forget_result(self, ref: Ref, day: int) -> None:
        """Notes that what was stored of an operation on a day is not kept any more."""
        await self._results(day).remove(f"{ref.tenant_id}/{ref.id}")

    async def forget_results(self, day: int) -> None:
        """Notes that nothing of a day is kept any more."""
        await self._results(day).clear()
        await self._days.remove(str(day))

    async def announced(self) -> list[Ticket]:
        """What may need work; some may have no record, or be done."""
        return [_ticket(item) for item in await self._work.ids()]

    def _results(self, day: int) -> Index:
        return Index(self._state, f"results/{day}", buckets=_BUCKETS)

    def _index(self, tenant_id: str) -> Index:
        return Index(self._state, f"tenants/{tenant_id}/operations", buckets=_BUCKETS)


def _key(ref: Ref) -> str:
    return f"tenants/{ref.tenant_id}/operations/{ref.id}"


def _work_item(ticket: Ticket) -> str:
    return f"{ticket.ref.tenant_id}/{ticket.ref.id}/{ticket.priority}"


def _ticket(item: str) -> Ticket:
    tenant_id, operation_id, priority = item.split("/")
    return Ticket(Ref(tenant_id, operation_id), Priority(priority))


def _text(operation: Operation) -> bytes:
    fields = asdict(operation)
    del fields["etag"]
    return json.dumps(fields).encode()


def _operation(entry: Entry) -> Operation:
    fields: dict[str, Any] = json.loads(entry.value)
    result, failure = fields["result"], fields["failure"]
    return Operation(**{
        **fields,
        "job": _job(fields["job"]),
        "caller": Caller(**fields["caller"]),
        "stage": Stage(fields["stage"]),
        "failure": None if failure is None else Failure(**failure),
        "result": None if result is None else _fusion(result),
        "checkpoint": _checkpoint(fields.get("checkpoint")),  # records of before there were any have none
        "etag": entry.etag,
    })


def _checkpoint(fields: dict[str, Any] | None) -> Checkpoint | None:
    return None if fields is None else Checkpoint(Stage(fields["stage"]), fields["attempt"])


def _job(fields: dict[str, Any]) -> Job:
    options = fields.get("options")  # records of before there were any have none
    return Job(**{
        **fields,
        "priority": Priority(fields["priority"]),
        "options": PLAIN if options is None else Options.of(options),
    })


def _fusion(fields: dict[str, Any]) -> Fusion:
    return Fusion(**{
        **fields,
        "source_face": tuple(fields["source_face"]),
        "target_face": tuple(fields["target_face"]),
        "more_target_faces": tuple(tuple(box) for box in fields.get("more_target_faces", ())),
        "left_faces": tuple(LeftFace(tuple(left["box"]), left["reason"]) for left in fields.get("left_faces", ())),
        "backend": Backend(fields.get("backend", Backend.MESH)),
        "models": tuple(Model(**model) for model in fields.get("models", ())),
    })
