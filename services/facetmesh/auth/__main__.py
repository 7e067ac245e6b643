"""Runs the auth service."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
from pathlib import Path  # noqa: TC003 - pydantic needs it at run time
from typing import TYPE_CHECKING, Annotated, ClassVar

import cedarpy
from pydantic import Field

from facetmesh.auth.budgets import Budgets
from facetmesh.auth.events import RevocationEvents, purge_accountant
from facetmesh.auth.exchange import Exchange
from facetmesh.auth.ext_authz import accountant, checking
from facetmesh.auth.grants import Grants
from facetmesh.auth.http import published
from facetmesh.auth.keys import KeyHash, Keys
from facetmesh.auth.leasing import Leasing
from facetmesh.auth.limits_servicer import BudgetServicer, UsageServicer
from facetmesh.auth.limits_store import DaprLimitsStore
from facetmesh.auth.metering import Metering
from facetmesh.auth.methods import methods
from facetmesh.auth.onboarding import Onboarding
from facetmesh.auth.orders import Orders
from facetmesh.auth.plans import load as load_plans
from facetmesh.auth.policies import PolicyBook
from facetmesh.auth.policy_servicer import PolicyServicer
from facetmesh.auth.purges import Purger
from facetmesh.auth.revocations import RevocationLog
from facetmesh.auth.servicer import Auth, AuthServicer
from facetmesh.auth.signing import SigningKeys, keep_current
from facetmesh.auth.store import DaprStore
from facetmesh.auth.tenants import Tenants
from facetmesh.auth.tokens import TokenIssuer
from facetmesh.auth.trials import Trials
from facetmesh.auth.usage import UsageHistory
from facetmesh.auth.v1 import auth_pb2_grpc, limits_pb2_grpc, policy_pb2_grpc
from facetmesh.kit import apikeys
from facetmesh.kit.errors import FailedPrecondition
from facetmesh.kit.policy import check, full_name, schema
from facetmesh.kit.revocations import follow
from facetmesh.kit.serve import Authority, open_mesh, run
from facetmesh.kit.settings import Port, ServiceSettings, load
from facetmesh.kit.tls import listen
from facetmesh.kit.verifier import KEYS_REFRESH_S

if TYPE_CHECKING:
    import grpc

_SIGNING_KEY = "token-signing-key"
_log = logging.getLogger(__name__)


class AuthSettings(ServiceSettings):
    """What auth is told from outside."""

    service: ClassVar[str] = "auth"

    token_lifetime_s: Annotated[int, Field(ge=10, le=3600)] = 600
    """How long a token works, in seconds."""
    plans: Path | None = None
    """A file of plans in place of those that come with facetmesh."""
    tenant_grace_days: Annotated[int, Field(ge=0, le=3650)] = 30
    """How long a deleted tenant can be undeleted, in days."""
    purge_services: tuple[str, ...] = ("detection", "fusion", "audit")
    """Who must have destroyed what they keep of a deleted tenant before it counts as purged."""
    purge_sweep_s: Annotated[float, Field(gt=0)] = 60.0
    """How often tenants whose grace has passed are looked for, in seconds."""
    signing_key_reload_s: Annotated[float, Field(gt=0)] = 15.0
    """How often the secret token-signing-key is read again, in seconds."""
    signing_key_lead_s: Annotated[float, Field(ge=0)] = 1.5 * KEYS_REFRESH_S
    """How long a new signing key is published before it signs, in seconds."""
    http_port: Port = 0
    """The port of the keys that verify tokens, over HTTP; 0 asks the system."""
    ext_authz_host: str = "127.0.0.1"
    """The address on which gateways ask about API keys: one that nobody else reaches. It is encrypted as others are."""
    ext_authz_port: Port = 0
    """Its port; 0 asks the system."""


def own_keys(admin_key: str, service_keys: str) -> dict[apikeys.ApiKey, str]:
    """The platform's own keys by owner and id.

    Args:
        admin_key: The administrator's key.
        service_keys: A JSON object of the services' keys by service.

    Raises:
        FailedPrecondition: One is no key of ours.
    """
    texts = [admin_key, *json.loads(service_keys).values()]
    keys = {parsed: text for text in texts if (parsed := apikeys.parse(text)) is not None}
    if len(keys) != len(texts):
        raise FailedPrecondition("An own key in the secret store is not valid.", reason="SECRET_INVALID")
    return keys


async def main() -> None:
    """Builds the service and serves it."""
    settings = load(AuthSettings)
    async with open_mesh(settings) as mesh:
        secrets = mesh.dapr.secrets()
        store = DaprStore(mesh.dapr.state())
        revocations = RevocationLog(
            store, RevocationEvents(mesh.dapr.publisher()).announce, settings.now, mesh.stopping
        )
        plans = load_plans(settings.plans)
        tenants = Tenants(store, plans, revocations.add, settings.now, grace_s=settings.tenant_grace_days * 86_400)
        own = own_keys(await secrets.get("admin-key"), await secrets.get("service-keys"))
        digest = KeyHash(await mesh.secret_bytes("key-pepper"))
        keys = Keys(store, tenants, digest, revocations.add, settings.now)
        grants = Grants(store, tenants, digest, own, settings.now)
        signing = SigningKeys(await secrets.get(_SIGNING_KEY), settings.now, lead_s=settings.signing_key_lead_s)
        issuer = TokenIssuer(
            signing, issuer=settings.token_issuer, audience=settings.token_audience,
            lifetime_s=settings.token_lifetime_s, clock=settings.now,
        )
        exchange = Exchange(grants, issuer, digest, accountant(mesh.recorder), settings.now)
        orders = Orders(store, settings.purge_services, settings.now)
        limits = DaprLimitsStore(mesh.dapr.state())
        purger = Purger(store, limits, orders, purge_accountant(mesh.recorder), settings.now)
        background = [
            asyncio.create_task(purger.run(settings.purge_sweep_s)),
            asyncio.create_task(
                keep_current(signing, lambda: secrets.get(_SIGNING_KEY), settings.signing_key_reload_s)
            ),
            asyncio.create_task(follow(revocations, exchange.hear)),
        ]
        every, words = methods(), schema(methods())
        checked = functools.partial(check, schema=cedarpy.Schema.from_str(words))
        policies = PolicyBook(limits, checked, settings.now)
        trials = Trials(policies, checked, frozenset(map(full_name, every)), settings.now)
        history = UsageHistory(limits)
        budgets = Budgets(limits, tenants, keys, plans, history, settings.now)
        leasing = Leasing(budgets, policies)
        servicer = AuthServicer(
            Auth(plans, tenants, keys, Onboarding(tenants, keys), grants, issuer, revocations, orders)
        )
        metering = UsageServicer(Metering(budgets, history, settings.now))

        for_gateways = functools.partial(
            listen, host=settings.ext_authz_host, port=settings.ext_authz_port, files=settings.tls,
            plaintext=settings.allow_plaintext,
        )

        def add_to_server(server: grpc.aio.Server) -> None:
            auth_pb2_grpc.add_AuthServiceServicer_to_server(servicer, server)
            policy_pb2_grpc.add_PolicyServiceServicer_to_server(PolicyServicer(policies, trials, words), server)
            limits_pb2_grpc.add_BudgetServiceServicer_to_server(BudgetServicer(leasing), server)
            limits_pb2_grpc.add_UsageServiceServicer_to_server(metering, server)

        try:
            async with (
                published(issuer.jwks, settings.host, settings.http_port) as http_port,
                checking(exchange, mesh.recorder, for_gateways) as checks_port,
            ):
                _log.info("serving gateways", extra={"http_port": http_port, "ext_authz_port": checks_port})
                await mesh.serve(
                    add_to_server,
                    services=[f"facetmesh.auth.v1.{name}Service" for name in ("Auth", "Policy", "Budget", "Usage")],
                    ready={},
                    authority=Authority(issuer, revocations, leasing),
                )
        finally:
            for task in background:
                task.cancel()


if __name__ == "__main__":
    run(main)
