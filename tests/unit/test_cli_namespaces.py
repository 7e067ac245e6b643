"""A tenant's namespace as text; tests/cluster has the API server's opinion of it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from facetmesh.cli.namespaces import DEFAULT, Share, render
from facetmesh.kit.errors import InvalidArgument


def resources(tenant: str = "acme", share: Share = DEFAULT) -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all(render(tenant, share))}


def test_all_of_it_is_the_tenants() -> None:
    found = resources()
    assert set(found) == {"Namespace", "ResourceQuota", "LimitRange", "NetworkPolicy"}
    namespace = found.pop("Namespace")["metadata"]
    assert namespace["labels"]["facetmesh.dev/tenant"] == "acme"
    assert {one["metadata"]["namespace"] for one in found.values()} == {namespace["name"]} == {"facetmesh-tenant-acme"}


def test_the_quota_is_what_was_asked_for() -> None:
    hard = resources(share=Share("2", "3", "4Gi", "5Gi", 6, 7, 8))["ResourceQuota"]["spec"]["hard"]
    assert hard["requests.cpu"] == "2"
    assert hard["limits.cpu"] == "3"
    assert hard["requests.memory"] == hard["limits.memory"] == "4Gi"
    assert hard["requests.storage"] == "5Gi"
    assert (hard["pods"], hard["requests.nvidia.com/gpu"], hard["requests.nvidia.com/mig-1g.10gb"]) == ("6", "7", "8")


def test_nobody_gets_a_gpu_who_was_given_none() -> None:
    assert resources()["ResourceQuota"]["spec"]["hard"]["requests.nvidia.com/gpu"] == "0"


@given(st.text(max_size=50))
def test_an_id_is_one_or_refused(text: str) -> None:
    try:
        found = resources(text)
    except InvalidArgument as error:
        assert error.reason == "TENANT_INVALID"  # noqa: PT017 - either way is right
    else:
        assert found["Namespace"]["metadata"]["name"] == f"facetmesh-tenant-{text}"


@pytest.mark.parametrize("said", ["", "-1", "4 Gi", "4Gi\nx: y", '4"', "1e9", "$tenant", "٤"])
def test_what_is_no_quantity_is_refused(said: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        render("acme", Share(memory=said))
    assert refused.value.reason == "QUANTITY_INVALID"
    with pytest.raises(InvalidArgument):
        render("acme", Share(gpus=-1))
