"""Leases over gRPC: the client, and what is said on both ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration

from facetmesh.auth.v1 import auth_pb2, limits_pb2, limits_pb2_grpc
from facetmesh.kit.budgets import ActivePolicy, Amounts, Demand, Grant, Lease, Report, Work
from facetmesh.kit.profiles import Profile

if TYPE_CHECKING:
    from facetmesh.kit.tokens import AuthClient

LICENCE_CLASSES = {
    "permissive": auth_pb2.LICENCE_CLASS_PERMISSIVE, "copyleft": auth_pb2.LICENCE_CLASS_COPYLEFT,
    "non-commercial": auth_pb2.LICENCE_CLASS_NON_COMMERCIAL,
}  # fmt: skip
"""How the classes of licences are sent."""
_LICENCE_NAMES = {number: name for name, number in LICENCE_CLASSES.items()}


class BudgetClient:
    """Leases from auth. It is a `kit.leases.BudgetSource`.

    Args:
        auth: Auth, as this service.
    """

    def __init__(self, auth: AuthClient) -> None:
        self._auth = auth
        self._stub = limits_pb2_grpc.BudgetServiceStub(auth.channel)

    async def lease(self, report: Report) -> Lease:
        """What this replica may give out from now on."""
        return lease(await self._auth.ask(self._stub.LeaseBudgets, report_message(report)))

    async def hold(self, tenant: str, service: str, stored_bytes: int, models: int) -> None:
        """Notes what a service, which is this one, keeps for a tenant, in all."""
        del service  # auth knows it by the token
        request = limits_pb2.HoldResourcesRequest(tenant=tenant, stored_bytes=stored_bytes, models=models)
        await self._auth.ask(self._stub.HoldResources, request)


def report_message(report: Report) -> limits_pb2.LeaseBudgetsRequest:
    """A report as it is sent."""
    return limits_pb2.LeaseBudgetsRequest(
        replica=report.replica, number=report.number, policies_after=report.policies_after,
        demands=[
            limits_pb2.BudgetDemand(account=one.account, wanted=_amounts_message(one.wanted), leaving=one.leaving)
            for one in report.demands
        ],
        work=[
            limits_pb2.BudgetWork(
                tenant=one.tenant, subject=one.subject, model=one.model, calls=one.calls, images=one.images,
                compute_seconds=one.compute_s,
            )
            for one in report.work
        ],
    )  # fmt: skip


def report(message: limits_pb2.LeaseBudgetsRequest, service: str) -> Report:
    """A report as it came from a service."""
    return Report(
        message.replica, service, message.number,
        tuple(Demand(one.account, _amounts(one.wanted), leaving=one.leaving) for one in message.demands),
        tuple(
            Work(one.tenant, one.subject, one.model, one.calls, one.images, one.compute_seconds)
            for one in message.work
        ),
        message.policies_after,
    )  # fmt: skip


def lease_message(lease: Lease) -> limits_pb2.LeaseBudgetsResponse:
    """A lease as it is sent."""
    renew_after = Duration()
    renew_after.FromMicroseconds(int(lease.renew_s * 1e6))
    return limits_pb2.LeaseBudgetsResponse(
        grants=[
            limits_pb2.BudgetGrant(
                account=one.account, whole=_amounts_message(one.whole), part=_amounts_message(one.part),
                profile=None if one.profile is None else _profile_message(one.profile),
            )
            for one in lease.grants
        ],
        renew_after=renew_after,
        policies=[
            limits_pb2.ActivatedPolicy(owner=one.owner, name=one.name, text=one.text, sequence=one.sequence)
            for one in lease.policies
        ],
        more_policies=lease.more_policies,
    )  # fmt: skip


def lease(message: limits_pb2.LeaseBudgetsResponse) -> Lease:
    """A lease as it came."""
    return Lease(
        tuple(
            Grant(
                one.account, _amounts(one.whole), _amounts(one.part),
                _profile(one.profile) if one.HasField("profile") else None,
            )
            for one in message.grants
        ),
        message.renew_after.ToMicroseconds() / 1e6,
        tuple(ActivePolicy(one.owner, one.name, one.text, one.sequence) for one in message.policies),
        message.more_policies,
    )  # fmt: skip


def _amounts_message(amounts: Amounts) -> limits_pb2.BudgetAmounts:
    return limits_pb2.BudgetAmounts(
        requests_per_s=amounts.requests_per_s, concurrency=amounts.concurrency, images=amounts.images,
        compute_seconds=amounts.compute_s,
    )  # fmt: skip


def _amounts(message: limits_pb2.BudgetAmounts) -> Amounts:
    return Amounts(message.requests_per_s, message.concurrency, message.images, message.compute_seconds)


def _profile_message(profile: Profile) -> limits_pb2.TenantProfile:
    best_effort = profile.best_effort_audit
    return limits_pb2.TenantProfile(
        plan=profile.plan, weight=profile.weight, region=profile.region,
        audit_policy=auth_pb2.AUDIT_POLICY_BEST_EFFORT if best_effort else auth_pb2.AUDIT_POLICY_REQUIRED,
        allowed_models=profile.allowed_models, url_allowlist=profile.url_allowlist, result_days=profile.result_days,
        licence_policy=auth_pb2.LicencePolicy(
            classes=[LICENCE_CLASSES[name] for name in sorted(profile.licence_classes)],
            licences=sorted(profile.licences),
        ),
    )  # fmt: skip


def _profile(message: limits_pb2.TenantProfile) -> Profile:
    policy = message.licence_policy
    return Profile(
        plan=message.plan, weight=message.weight, region=message.region,
        best_effort_audit=message.audit_policy == auth_pb2.AUDIT_POLICY_BEST_EFFORT,
        allowed_models=tuple(message.allowed_models),
        licence_classes=frozenset(_LICENCE_NAMES[one] for one in policy.classes if one in _LICENCE_NAMES),
        licences=frozenset(policy.licences), url_allowlist=tuple(message.url_allowlist),
        result_days=message.result_days,
    )  # fmt: skip
