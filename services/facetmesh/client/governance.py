"""The client's calls about policies, limits and usage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from facetmesh.auth.v1 import limits_pb2, policy_pb2
from facetmesh.client import calls

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

PLATFORM = "platform"
_MOST_CASES = 200


class Governance(ABC):
    """What AsyncClient can do with policies and usage."""

    _policies: Any  # policy_pb2_grpc.PolicyServiceStub, whose stubs differ for grpc.aio
    _usage: Any  # limits_pb2_grpc.UsageServiceStub

    async def create_policy(
        self, text: str, *, owner: str | None = None, description: str = ""
    ) -> policy_pb2.Policy:
        """Keeps a set of policies as a new version, which is not active yet.

        Args:
            text: The policies, in Cedar.
            owner: A tenant, or "platform"; the key's own tenant when None.
            description: What they are for.
        """
        policy = policy_pb2.Policy(text=text, description=description)
        request = policy_pb2.CreatePolicyRequest(parent=await self._owner(owner), policy=policy)
        return await calls.result(self._policies.CreatePolicy(request))

    async def get_policy(self, name: str) -> policy_pb2.Policy:
        """Returns a set of policies by its whole name."""
        return await calls.result(self._policies.GetPolicy(policy_pb2.GetPolicyRequest(name=name)))

    async def list_policies(self, *, owner: str | None = None, limit: int | None = None) -> list[policy_pb2.Policy]:
        """An owner's sets of policies without their text, the newest first."""
        request = policy_pb2.ListPoliciesRequest(parent=await self._owner(owner))
        return await calls.pages(self._policies.ListPolicies, request, "policies", limit)

    async def activate_policy(self, name: str) -> policy_pb2.Policy:
        """Puts a set of policies into force, by its whole name; every replica follows within seconds."""
        return await calls.result(self._policies.ActivatePolicy(policy_pb2.ActivatePolicyRequest(name=name)))

    async def test_policies(
        self, cases: Sequence[policy_pb2.PolicyCase], *, text: str = "", owner: str | None = None
    ) -> list[policy_pb2.PolicyDecision]:
        """How calls would be decided, in their order.

        Args:
            cases: The calls.
            text: The policies to try in place of the owner's active ones; those when empty.
            owner: A tenant, or "platform"; the key's own tenant when None.
        """
        parent, decisions = await self._owner(owner), []
        for start in range(0, len(cases), _MOST_CASES):
            request = policy_pb2.TestPoliciesRequest(
                parent=parent, text=text, cases=cases[start : start + _MOST_CASES]
            )
            decisions += (await calls.result(self._policies.TestPolicies(request))).decisions
        return decisions

    async def explain_decision(
        self, case: policy_pb2.PolicyCase | None = None, *, method: str = "", owner: str | None = None
    ) -> policy_pb2.ExplainDecisionResponse:
        """How a call is decided, and by which policies.

        Args:
            case: The call.
            method: Of a caller's call in its own tenant, in place of a case: package.Service/Method.
            owner: A tenant, or "platform"; the key's own tenant when None.
        """
        request = policy_pb2.ExplainDecisionRequest(
            parent=await self._owner(owner), case=case or policy_pb2.PolicyCase(method=method)
        )
        return await calls.result(self._policies.ExplainDecision(request))

    async def policy_schema(self, *, owner: str | None = None) -> str:
        """The schema that policies are checked against, in Cedar's own form."""
        request = policy_pb2.GetPolicySchemaRequest(parent=await self._owner(owner))
        return str((await calls.result(self._policies.GetPolicySchema(request))).text)

    async def usage(self, *, tenant: str | None = None) -> limits_pb2.Usage:
        """A tenant's limits and what is used of them; the key's own tenant's when None."""
        request = limits_pb2.GetUsageRequest(name=f"{await self._parent(tenant)}/usage")
        return await calls.result(self._usage.GetUsage(request))

    async def usage_records(
        self,
        *,
        tenant: str | None = None,
        hourly: bool = False,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> list[limits_pb2.UsageRecord]:
        """What a tenant used by day or hour and by model, the oldest first.

        Args:
            tenant: Whose; the key's own tenant when None.
            hourly: By hour.
            start: From the period of this time on; a week before the end when None.
            end: Until before this time; until now when None.
        """
        period = limits_pb2.USAGE_PERIOD_HOUR if hourly else limits_pb2.USAGE_PERIOD_DAY
        request = limits_pb2.ListUsageRecordsRequest(parent=await self._parent(tenant), period=period)
        if start is not None:
            request.start_time.FromDatetime(start)
        if end is not None:
            request.end_time.FromDatetime(end)
        return await calls.pages(self._usage.ListUsageRecords, request, "usage_records", None)

    async def _owner(self, owner: str | None) -> str:
        return PLATFORM if owner == PLATFORM else await self._parent(owner)

    @abstractmethod
    async def _parent(self, tenant: str | None) -> str:
        """The tenant's resource name; the key's own tenant when None."""
