"""Who is behind a call."""

from __future__ import annotations

import pytest

from facetmesh.kit import identity


@pytest.mark.parametrize(
    ("roles", "tenant", "said", "charged"),
    [
        ({"service"}, "tenants/acme", "tenants/acme/keys/k1", "tenants/acme/keys/k1"),
        ({"service"}, "tenants/acme", "tenants/globex/keys/k1", "who"),
        ({"service"}, None, "tenants/acme/keys/k1", "who"),
        ({"service"}, "tenants/acme", "", "who"),
        ({"caller"}, "tenants/acme", "tenants/acme/keys/k2", "who"),
    ],
)
def test_only_a_service_says_for_which_key_of_its_tenant_it_works(
    roles: set[str], tenant: str | None, said: str, charged: str
) -> None:
    principal = identity.Principal("who", tenant, frozenset(roles))
    identity.set_current(identity.working_for(principal, said))
    assert (identity.charged_subject(), identity.subject()) == (charged, "who")
    identity.set_current(None)
    assert identity.charged_subject() == ""
