"""Every method that people may call has a REST path, and no two have the same: read from the descriptors."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from google.api import annotations_pb2, http_pb2
from tests.security.api import METHODS, path

from facetmesh.kit import access

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

GRPC_ONLY = {
    "facetmesh.auth.v1.AuthService/GetJwks",  # over HTTP it is /.well-known/jwks.json
}


def rules(method: MethodDescriptor) -> list[http_pb2.HttpRule]:
    """The method's bindings, the additional ones too."""
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    return [one for one in (rule, *rule.additional_bindings) if one.WhichOneof("pattern")]


def template(rule: http_pb2.HttpRule) -> str:
    """The verb and the path as a gateway sees them, without the names of variables."""
    verb = rule.WhichOneof("pattern")
    return f"{verb} {re.sub(r'{[^=}]+=([^}]+)}', lambda match: match[1], getattr(rule, verb))}"


@pytest.mark.parametrize("method", METHODS, ids=path)
def test_the_method_has_a_rest_path(method: MethodDescriptor) -> None:
    for_services = access.rule("/" + path(method)).roles == {"service"}
    internal = for_services or path(method) in GRPC_ONLY or method.client_streaming
    assert bool(rules(method)) != internal
    assert all(template(rule).split(" ")[1].startswith("/v1/") for rule in rules(method))


def test_no_two_methods_share_a_path() -> None:
    counts = Counter(template(rule) for method in METHODS for rule in rules(method))
    assert [one for one, count in counts.items() if count > 1] == []
