"""What auth says of a tenant arrives whole."""

from __future__ import annotations

from dataclasses import fields

from facetmesh.kit.budgets import Amounts, Grant, Lease
from facetmesh.kit.leasing import lease, lease_message
from facetmesh.kit.profiles import Profile

TENANT = "tenants/acme"


def test_a_tenants_settings_arrive_whole() -> None:
    profile = Profile(
        plan="trial", weight=2.5, region="eu", best_effort_audit=True, allowed_models=("faces", "yolo-*"),
        licence_classes=frozenset({"permissive", "non-commercial"}), licences=frozenset({"AGPL-3.0"}),
        url_allowlist=("a.example",), result_days=7,
    )  # fmt: skip
    usual = Profile()
    assert [one.name for one in fields(Profile) if getattr(profile, one.name) == getattr(usual, one.name)] == []
    told = Lease((Grant(TENANT, Amounts(1, 2, 3, 4), Amounts(0.5, 1, 1.5, 2), profile),), 5.5)
    assert lease(lease_message(told)) == told


def test_of_a_key_there_are_no_settings() -> None:
    told = Lease((Grant(f"{TENANT}/keys/k1", Amounts(), Amounts()),), 1.0)
    assert lease(lease_message(told)) == told
