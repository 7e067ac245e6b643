"""Every method says who may call it, and every request says whose it is: read from the descriptors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.security.api import METHODS, kind, path

from facetmesh.access.v1 import access_pb2
from facetmesh.fusion.v1 import fusion_pb2
from facetmesh.kit import access
from facetmesh.kit.errors import InvalidArgument, PermissionDenied
from facetmesh.kit.identity import Principal
from facetmesh.kit.validation import validate

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor
    from google.protobuf.message import Message

PUBLIC = {
    "facetmesh.auth.v1.AuthService/IssueToken", "facetmesh.auth.v1.AuthService/GetJwks",
    "facetmesh.audit.v1.AuditService/GetCheckpoint", "facetmesh.audit.v1.AuditService/GetConsistencyProof",
    "facetmesh.audit.v1.AuditService/GetInclusionProof", "facetmesh.audit.v1.AuditService/GetLogFile",
    "facetmesh.fusion.v1.FusionService/FetchFusion",  # to who has a link
}  # fmt: skip


@pytest.mark.parametrize("method", METHODS, ids=path)
def test_the_method_says_who_may_call_it(method: MethodDescriptor) -> None:
    rule = access.rule("/" + path(method))
    assert rule.public == (path(method) in PUBLIC)
    assert rule.roles or rule.public


@pytest.mark.parametrize("method", METHODS, ids=path)
def test_what_tenants_may_call_names_their_resources(method: MethodDescriptor) -> None:
    rule = access.rule("/" + path(method))
    if rule.public or rule.roles in ({"platform-admin"}, {"service"}):
        return
    assert access._references(method.input_type), "no field says whose the request is"


@pytest.mark.parametrize("method", METHODS, ids=path)
def test_a_tenants_request_that_names_nothing_gets_nowhere(method: MethodDescriptor) -> None:
    rule = access.rule("/" + path(method))
    if rule.public or rule.roles in ({"platform-admin"}, {"service"}):
        return

    def entered(request: Message) -> None:
        access.authorize_tenant(Principal("s", "tenants/acme", frozenset({"caller"})), access.named(None, request))
        validate(request)

    with pytest.raises((PermissionDenied, InvalidArgument)):
        entered(kind(method.input_type)())


def test_a_method_without_a_rule_lets_nobody_in() -> None:
    rule = access.rule("/facetmesh.auth.v1.AuthService/Nothing")
    assert (rule.roles, rule.public) == (frozenset(), False)


def test_nested_references_count() -> None:
    request = fusion_pb2.CreateFusionRequest(parent="tenants/acme")
    request.fusion.face_model = "tenants/globex/models/faces"
    names = list(access.referenced(request))
    assert names == ["tenants/acme", "tenants/globex/models/faces"]
    with pytest.raises(PermissionDenied):
        access.authorize_tenant(Principal("s", "tenants/acme", frozenset({"caller"})), names)


@pytest.mark.parametrize("name", ["tenants/acme-2", "tenants/acm", "tenants/", "", "tenants/-", "tenants/acme2/x"])
def test_names_that_only_look_alike(name: str) -> None:
    with pytest.raises(PermissionDenied):
        access.authorize_tenant(Principal("s", "tenants/acme", frozenset({"caller"})), [name])


def test_who_belongs_to_no_tenant_and_is_no_admin_reaches_none() -> None:
    with pytest.raises(PermissionDenied):
        access.authorize_tenant(Principal("services/fusion", None, frozenset({"service"})), ["tenants/acme"])


def test_no_role_is_unspecified() -> None:
    for method in METHODS:
        roles = method.GetOptions().Extensions[access_pb2.access].roles
        assert access_pb2.ROLE_UNSPECIFIED not in roles
