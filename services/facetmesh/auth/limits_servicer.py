"""auth's gRPC face for budgets and usage: protobuf in, domain call, protobuf out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp

from facetmesh.auth.messages import limits_message, seconds
from facetmesh.auth.v1 import limits_pb2, limits_pb2_grpc
from facetmesh.kit import identity
from facetmesh.kit.index import page
from facetmesh.kit.leasing import lease_message, report

if TYPE_CHECKING:
    from facetmesh.auth.leasing import Leasing
    from facetmesh.auth.metering import Metering
    from facetmesh.auth.usage import Usage


@dataclass(frozen=True, slots=True)
class BudgetServicer(limits_pb2_grpc.BudgetServiceServicer):
    """Serves facetmesh.auth.v1.BudgetService."""

    leasing: Leasing

    async def LeaseBudgets(self, request: limits_pb2.LeaseBudgetsRequest, _: Any) -> limits_pb2.LeaseBudgetsResponse:
        """Takes a report, and answers what the replica may give out."""
        return lease_message(await self.leasing.lease(report(request, _service())))

    async def HoldResources(self, request: limits_pb2.HoldResourcesRequest, _: Any) -> limits_pb2.HoldResourcesResponse:
        """Notes what a service keeps for a tenant."""
        await self.leasing.hold(request.tenant, _service(), request.stored_bytes, request.models)
        return limits_pb2.HoldResourcesResponse()


@dataclass(frozen=True, slots=True)
class UsageServicer(limits_pb2_grpc.UsageServiceServicer):
    """Serves facetmesh.auth.v1.UsageService."""

    metering: Metering

    async def GetUsage(self, request: limits_pb2.GetUsageRequest, _: Any) -> limits_pb2.Usage:
        """Returns a tenant's limits and what is used of them."""
        now = await self.metering.now(request.name.split("/")[1])
        return limits_pb2.Usage(
            name=request.name, limits=limits_message(now.tenant.limits), used=limits_message(now.tenant.used),
            keys=[
                limits_pb2.KeyUsage(key=name, limits=limits_message(key.limits), used=limits_message(key.used))
                for name, key in now.keys.items()
            ],
        )  # fmt: skip

    async def ListUsageRecords(
        self, request: limits_pb2.ListUsageRecordsRequest, _: Any
    ) -> limits_pb2.ListUsageRecordsResponse:
        """Lists what a tenant used."""
        daily = request.period != limits_pb2.USAGE_PERIOD_HOUR
        found = await self.metering.between(
            request.parent.rpartition("/")[2],
            seconds(request.start_time) if request.HasField("start_time") else None,
            seconds(request.end_time) if request.HasField("end_time") else None,
            daily=daily,
        )
        by_id = {f"{one.start_s}/{one.model}": one for one in found}
        ids, token = page(list(by_id), request.page_size, request.page_token)
        return limits_pb2.ListUsageRecordsResponse(
            usage_records=[_record(by_id[one]) for one in ids], next_page_token=token
        )


def _service() -> str:
    return identity.current().subject.rpartition("/")[2]


def _record(usage: Usage) -> limits_pb2.UsageRecord:
    counts = usage.counts
    return limits_pb2.UsageRecord(
        start_time=Timestamp(seconds=int(usage.start_s)), model=usage.model, calls=counts.calls, images=counts.images,
        compute_seconds=counts.compute_s, stored_bytes=counts.stored_bytes,
    )  # fmt: skip
