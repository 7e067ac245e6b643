"""auth's resources as protobuf messages, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from facetmesh.auth.keys import Key, KeySpec
from facetmesh.auth.plans import NO_LIMITS, Limits, Plan
from facetmesh.auth.tenants import AuditPolicy, Tenant, TenantSpec, TenantState
from facetmesh.auth.v1 import auth_pb2
from facetmesh.kit.fieldmasks import merged
from facetmesh.kit.identity import ROLE_NAMES
from facetmesh.kit.leasing import LICENCE_CLASSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.field_mask_pb2 import FieldMask

ROLES = {name: number for number, name in ROLE_NAMES.items()}
"""The roles by their names in tokens."""
_STATES = {
    TenantState.ACTIVE: auth_pb2.Tenant.STATE_ACTIVE, TenantState.SUSPENDED: auth_pb2.Tenant.STATE_SUSPENDED,
    TenantState.DELETED: auth_pb2.Tenant.STATE_DELETED,
}  # fmt: skip
_AUDIT = {
    AuditPolicy.REQUIRED: auth_pb2.AUDIT_POLICY_REQUIRED, AuditPolicy.BEST_EFFORT: auth_pb2.AUDIT_POLICY_BEST_EFFORT,
}  # fmt: skip
_TENANT_FIELDS = (
    "display_name", "plan", "region", "limits", "allowed_models", "licence_policy", "audit_policy", "url_allowlist",
    "result_days",
)  # fmt: skip
_KEY_FIELDS = ("display_name", "limits")


def seconds(time: Timestamp) -> float:
    """A time in seconds since the epoch; of one that is none, something all the same."""
    return float(time.seconds + time.nanos / 1e9)


def last(name: str) -> str:
    """The last part of a resource name."""
    return name.rpartition("/")[2]


def tenant_message(tenant: Tenant) -> auth_pb2.Tenant:
    """A tenant as it is sent."""
    return auth_pb2.Tenant(
        name=f"tenants/{tenant.id}", display_name=tenant.display_name, create_time=_time(tenant.created_s),
        etag=tenant.etag, state=_STATES[tenant.state], delete_time=_time(tenant.deleted_s),
        expire_time=_time(tenant.expires_s), plan=f"plans/{tenant.plan}" if tenant.plan else "", region=tenant.region,
        limits=limits_message(tenant.limits), allowed_models=tenant.allowed_models,
        licence_policy=_licence_policy(tenant),
        audit_policy=_AUDIT[AuditPolicy(tenant.audit_policy)], url_allowlist=tenant.url_allowlist,
        encryption_key_rotate_time=_time(tenant.key_rotated_s), purge_time=_time(tenant.purged_s),
        result_days=tenant.result_days,
    )  # fmt: skip


def tenant_spec(message: auth_pb2.Tenant) -> TenantSpec:
    """What a tenant is asked to be."""
    policies = {number: policy for policy, number in _AUDIT.items()}
    return TenantSpec(
        message.display_name, last(message.plan), message.region, _limits(message.limits),
        tuple(message.allowed_models),
        tuple(name for name, number in LICENCE_CLASSES.items() if number in message.licence_policy.classes),
        tuple(message.licence_policy.licences),
        policies.get(message.audit_policy, AuditPolicy.REQUIRED), tuple(message.url_allowlist),
        message.result_days,
    )  # fmt: skip


def changed_tenant(tenant: Tenant, wanted: auth_pb2.Tenant, mask: FieldMask) -> TenantSpec:
    """What a tenant is asked to be by a request that changes it; raises InvalidArgument as `merged` does."""
    return tenant_spec(merged(tenant_message(tenant), wanted, mask, _TENANT_FIELDS))


def key_message(key: Key, text: str = "") -> auth_pb2.Key:
    """A key as it is sent; with its text where it is shown for the only time."""
    return auth_pb2.Key(
        name=key.name, display_name=key.display_name, roles=[ROLES[role] for role in key.roles],
        create_time=_time(key.created_s), revoke_time=_time(key.revoked_s), expire_time=_time(key.expires_s),
        last_use_time=_time(key.used_s), methods=key.methods, models=key.models,
        overlap_expire_time=_time(key.old_until_s or None), limits=limits_message(key.limits), etag=key.etag,
        secret=text,
    )  # fmt: skip


def key_spec(message: auth_pb2.Key, default_roles: Sequence[str] = ("caller",)) -> KeySpec:
    """What a key is asked to be."""
    return KeySpec(
        message.display_name, tuple(ROLE_NAMES[role] for role in message.roles) or tuple(default_roles),
        seconds(message.expire_time) if message.HasField("expire_time") else None,
        tuple(message.methods), tuple(message.models), _limits(message.limits),
    )  # fmt: skip


def changed_key(key: Key, wanted: auth_pb2.Key, mask: FieldMask) -> KeySpec:
    """What a key is asked to be by a request that changes it; raises InvalidArgument as `merged` does."""
    return key_spec(merged(key_message(key), wanted, mask, _KEY_FIELDS))


def plan_message(plan_id: str, plan: Plan) -> auth_pb2.Plan:
    """A plan as it is sent."""
    return auth_pb2.Plan(
        name=f"plans/{plan_id}", display_name=plan.display_name, limits=limits_message(plan.limits),
        weight=plan.weight,
    )  # fmt: skip


def limits_message(limits: Limits) -> auth_pb2.Limits | None:
    """Limits as they are sent; nothing where there are none."""
    if limits == NO_LIMITS:
        return None
    return auth_pb2.Limits(
        requests_per_s=limits.requests_per_s, concurrency=limits.concurrency, images_per_day=limits.images_per_day,
        compute_seconds_per_day=limits.compute_seconds_per_day, stored_bytes=limits.stored_bytes, models=limits.models,
    )  # fmt: skip


def _licence_policy(tenant: Tenant) -> auth_pb2.LicencePolicy | None:
    if not (tenant.licence_classes or tenant.licences):
        return None
    classes = [LICENCE_CLASSES[one] for one in tenant.licence_classes]
    return auth_pb2.LicencePolicy(classes=classes, licences=tenant.licences)


def _limits(message: auth_pb2.Limits) -> Limits:
    return Limits(
        message.requests_per_s, message.concurrency, message.images_per_day, message.compute_seconds_per_day,
        message.stored_bytes, message.models,
    )  # fmt: skip


def _time(seconds: float | None) -> Timestamp | None:
    if seconds is None:
        return None
    time = Timestamp()
    time.FromMicroseconds(int(seconds * 1e6))
    return time
