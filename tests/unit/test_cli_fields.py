"""Fields as people write them on a command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facetmesh.auth.v1 import auth_pb2
from facetmesh.cli.fields import assign, written
from facetmesh.kit.errors import InvalidArgument


def test_fields_of_all_kinds_are_set() -> None:
    tenant = auth_pb2.Tenant(region="us", url_allowlist=["a.example"])
    paths = assign(tenant, [
        "region=eu", "limits.concurrency=1_000", "limits.requests_per_s=2.5", "allowed_models=faces, yolo-*",
        "licence_policy.classes=permissive,copyleft", "licence_policy.licences=AGPL-3.0", "audit_policy=best-effort",
        "url_allowlist=", "display_name=a=b",
    ])  # fmt: skip
    assert tenant == auth_pb2.Tenant(
        region="eu", limits=auth_pb2.Limits(concurrency=1000, requests_per_s=2.5), allowed_models=["faces", "yolo-*"],
        licence_policy=auth_pb2.LicencePolicy(
            classes=[auth_pb2.LICENCE_CLASS_PERMISSIVE, auth_pb2.LICENCE_CLASS_COPYLEFT], licences=["AGPL-3.0"],
        ),
        audit_policy=auth_pb2.AUDIT_POLICY_BEST_EFFORT, display_name="a=b",
    )  # fmt: skip
    assert paths == [
        "region", "limits.concurrency", "limits.requests_per_s", "allowed_models", "licence_policy.classes",
        "licence_policy.licences", "audit_policy", "url_allowlist", "display_name",
    ]


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("region", "FIELD=VALUE"), ("regio=eu", "there are"), ("limits=3", "limits.requests_per_s"),
        ("limits.foo=3", "concurrency"), ("region.x=1", "no field"), ("allowed_models.x=1", "no field"),
        ("limits.models=many", "cannot be"), ("limits.models=99999999999999", "cannot be"),
        ("audit_policy=unspecified", "best_effort"), ("audit_policy=x", "best_effort"), ("=", "no field"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(assignment: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=r".") as refusal:
        assign(auth_pb2.Tenant(), [assignment])
    assert said in refusal.value.message


@given(st.text(max_size=60) | st.from_regex(r"[a-z_]{1,14}(\.[a-z_]{1,14})?=.{0,20}"))
def test_any_text_is_set_or_refused(text: str) -> None:
    try:
        assign(auth_pb2.Tenant(), [text])
    except InvalidArgument as refusal:
        assert refusal.reason == "FIELD_INVALID"  # noqa: PT017 - nothing else may be raised


def test_what_is_read_can_be_written() -> None:
    tenant = auth_pb2.Tenant()
    assign(tenant, ("audit_policy=best-effort", "licence_policy.classes=permissive,non-commercial", "limits.models=20"))
    tenant.encryption_key_rotate_time.FromJsonString("2026-11-22T06:25:26.058Z")
    assert written(tenant) == {
        "audit_policy": "best-effort",
        "licence_policy": {"classes": ["permissive", "non-commercial"]},
        "limits": {"models": 20},
        "encryption_key_rotate_time": "2026-11-22 06:25:26",
    }
