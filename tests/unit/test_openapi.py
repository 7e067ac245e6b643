"""The OpenAPI page: that it is one, and that each REST path is in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.api import annotations_pb2
from openapi_spec_validator import validate
from tests.security.api import METHODS, path

from facetmesh.cli.gateway.bootstrap import shipped
from facetmesh.kit import access


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The page that the gateway serves."""
    found: dict[str, Any] = json.loads(shipped("openapi.json").read_text())
    return found


def test_it_is_valid(page: dict[str, Any]) -> None:
    validate(page)


def test_it_has_each_method_with_its_comment_and_who_may_call_it(page: dict[str, Any]) -> None:
    found = {one["operationId"]: one for verbs in page["paths"].values() for one in verbs.values()}
    for method in METHODS:
        if method.GetOptions().HasExtension(annotations_pb2.http):
            operation = found[f"{method.containing_service.name}_{method.name}"]
            assert len(operation["description"]) > 10
            assert ("security" in operation) == access.rule("/" + path(method)).public


def test_limits_and_json_types_are_in_it(page: dict[str, Any]) -> None:
    detect = page["paths"]["/v1/tenants/{tenant}/models/{model}:detect"]["post"]
    assert [one["name"] for one in detect["parameters"]] == ["tenant", "model"]
    image = detect["requestBody"]["content"]["application/json"]["schema"]["properties"]["image"]
    assert (image["contentEncoding"], image["maxLength"]) == ("base64", 26_666_668)
    listing = page["paths"]["/v1/tenants/{tenant}/models"]["get"]["parameters"]
    sizes = next(one["schema"] for one in listing if one["name"] == "pageSize")
    assert (sizes["minimum"], sizes["maximum"]) == (0, 1000)
    key = page["components"]["schemas"]["auth.v1.Key"]["properties"]
    assert key["secret"]["readOnly"] is True
    assert key["createTime"]["format"] == "date-time"
