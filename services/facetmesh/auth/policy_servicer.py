"""auth's gRPC face for policies: protobuf in, domain call, protobuf out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp

from facetmesh.auth.messages import seconds
from facetmesh.auth.trials import Case
from facetmesh.auth.v1 import policy_pb2, policy_pb2_grpc
from facetmesh.kit import audit, identity
from facetmesh.kit.errors import NotFound
from facetmesh.kit.identity import ROLE_NAMES
from facetmesh.kit.index import page
from facetmesh.kit.policy import PLATFORM

if TYPE_CHECKING:
    from facetmesh.auth.policies import Policy, PolicyBook
    from facetmesh.auth.trials import Trials
    from facetmesh.kit.policy import Decision


class PolicyServicer(policy_pb2_grpc.PolicyServiceServicer):
    """Serves facetmesh.auth.v1.PolicyService.

    Args:
        policies: The policies.
        trials: Decides on calls that nobody makes.
        schema: The schema that policies are checked against.
    """

    def __init__(self, policies: PolicyBook, trials: Trials, schema: str) -> None:
        self._policies = policies
        self._trials = trials
        self._schema = schema

    async def CreatePolicy(self, request: policy_pb2.CreatePolicyRequest, _: Any) -> policy_pb2.Policy:
        """Keeps a new version."""
        policy = await self._policies.create(request.parent, request.policy.text, request.policy.description)
        audit.current().describe(resource=policy.name)
        return _policy(policy, active=False)

    async def GetPolicy(self, request: policy_pb2.GetPolicyRequest, _: Any) -> policy_pb2.Policy:
        """Returns a version."""
        owner, version = _split(request.name)
        policy = await self._policies.get(owner, version)
        return _policy(policy, active=await self._policies.active(owner) == version)

    async def ListPolicies(
        self, request: policy_pb2.ListPoliciesRequest, _: Any
    ) -> policy_pb2.ListPoliciesResponse:
        """Lists an owner's versions."""
        active = await self._policies.active(request.parent)
        versions, token = page(await self._policies.versions(request.parent), request.page_size, request.page_token)
        response = policy_pb2.ListPoliciesResponse(next_page_token=token)
        for version in versions:
            try:
                found = _policy(await self._policies.get(request.parent, version), active=version == active)
            except NotFound:
                continue  # the index is a hint
            found.ClearField("text")
            response.policies.append(found)
        return response

    async def ActivatePolicy(self, request: policy_pb2.ActivatePolicyRequest, _: Any) -> policy_pb2.Policy:
        """Puts a version into force."""
        return _policy(await self._policies.activate(*_split(request.name)), active=True)

    async def TestPolicies(
        self, request: policy_pb2.TestPoliciesRequest, _: Any
    ) -> policy_pb2.TestPoliciesResponse:
        """Says how calls would be decided."""
        cases = [_case(one) for one in request.cases]
        decisions = await self._trials.decide(request.parent, cases, request.text)
        return policy_pb2.TestPoliciesResponse(
            decisions=[_decision(one, case.expected) for one, case in zip(decisions, request.cases, strict=True)]
        )

    async def ExplainDecision(
        self, request: policy_pb2.ExplainDecisionRequest, _: Any
    ) -> policy_pb2.ExplainDecisionResponse:
        """Says how one call is decided, and why."""
        decision, texts = await self._trials.explain(request.parent, _case(request.case))
        hidden = not identity.current().is_platform_admin  # the platform's policies may name other tenants
        policies = [
            policy_pb2.ExplainDecisionResponse.DecidingPolicy(
                name=name, text="" if hidden and name.startswith(f"{PLATFORM}/") else text
            )
            for name, text in texts.items()
        ]
        return policy_pb2.ExplainDecisionResponse(
            decision=_decision(decision, request.case.expected), policies=policies
        )

    async def GetPolicySchema(self, _: policy_pb2.GetPolicySchemaRequest, __: Any) -> policy_pb2.PolicySchema:
        """Returns the schema."""
        return policy_pb2.PolicySchema(text=self._schema)


def _split(name: str) -> tuple[str, str]:
    """The owner and the version of a policy's name."""
    owner, _, version = name.partition("/policies/")
    return owner, version


def _policy(policy: Policy, *, active: bool) -> policy_pb2.Policy:
    message = policy_pb2.Policy(
        name=policy.name, text=policy.text, description=policy.description, active=active
    )
    if policy.created_s is not None:
        time = Timestamp()
        time.FromMicroseconds(int(policy.created_s * 1e6))
        message.create_time.CopyFrom(time)
    return message


def _case(case: policy_pb2.PolicyCase) -> Case:
    return Case(
        case.method, case.subject, tuple(ROLE_NAMES[role] for role in case.roles if role in ROLE_NAMES),
        case.resource,
        tuple((name, value) for name, value in (("licence", case.licence), ("version", case.version)) if value),
        case.plan, case.region, case.source,
        seconds(case.time) if case.HasField("time") else None,
    )  # fmt: skip


def _decision(decision: Decision, expected: policy_pb2.PolicyEffect.ValueType) -> policy_pb2.PolicyDecision:
    effect = policy_pb2.POLICY_EFFECT_ALLOW if decision.allowed else policy_pb2.POLICY_EFFECT_DENY
    return policy_pb2.PolicyDecision(
        effect=effect, deciding_policies=decision.deciding, errors=decision.errors,
        as_expected=expected in (effect, policy_pb2.POLICY_EFFECT_UNSPECIFIED),
    )  # fmt: skip
