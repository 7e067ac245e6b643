"""A service's life: from settings to a served port, until SIGTERM, the same for all four.

A service opens the mesh with `open_mesh`, builds its servicer from what that gives
(`mesh.dapr`, `mesh.recorder`, `mesh.auth`), and hands it to `mesh.serve`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import grpc
from grpc_reflection.v1alpha import reflection

from facetmesh.kit import connections, journal, lifeline, logs, memory, pauses, telemetry
from facetmesh.kit.alerts import Alerts
from facetmesh.kit.audit import Recorder
from facetmesh.kit.dapr import DaprSidecar, EventReceiver, InHand
from facetmesh.kit.errors import FacetmeshError, FailedPrecondition
from facetmesh.kit.gate import Gate
from facetmesh.kit.gateways import Gateway
from facetmesh.kit.handlers import Generic
from facetmesh.kit.health import HEALTH_SERVICE, Health
from facetmesh.kit.keks import Keks
from facetmesh.kit.keyring import Keyring, keep_wrapped
from facetmesh.kit.leases import BudgetSource, Leases
from facetmesh.kit.leasing import BudgetClient
from facetmesh.kit.orders import Obedience, Purge, carried_out
from facetmesh.kit.places import Places
from facetmesh.kit.policy import Policies
from facetmesh.kit.refusals import RefusalLimits, Refusals
from facetmesh.kit.revocations import Revocation, Revocations, RevocationSource, follow
from facetmesh.kit.rpc import Guard
from facetmesh.kit.signing import EventSigner
from facetmesh.kit.tls import listen
from facetmesh.kit.tokens import REVOCATIONS_TOPIC, AuthClient, revocation_handler
from facetmesh.kit.verifier import KeySource, TokenVerifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    from facetmesh.kit.audit import Publisher as AuditPublisher
    from facetmesh.kit.dapr import Handler
    from facetmesh.kit.gate import ModelFacts
    from facetmesh.kit.settings import ServiceSettings
    from facetmesh.kit.turns import Turns

_LAME_DUCK_S = 0.3
"""How long new calls are refused before the server stops; each refused caller waits longer before the next."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Authority:
    """Where what auth says comes from, for auth itself; the others ask it."""

    keys: KeySource
    """The public keys for tokens."""
    revocations: RevocationSource
    """Revocations of tokens; the others hear of them by stream and by topic."""
    budgets: BudgetSource
    """Parts of limits, and with them the policies."""


@dataclass(slots=True)
class Mesh:
    """What a service has to do with the others."""

    settings: ServiceSettings
    dapr: DaprSidecar
    """The sidecar."""
    recorder: Recorder
    """Takes audit events."""
    alerts: Alerts
    """Raises alerts."""
    telemetry: telemetry.Telemetry
    auth: AuthClient
    """Auth, for tokens with which this service calls another on behalf of a tenant."""
    leases: Leases
    """What is known of the tenants, their limits, and where work for them is charged."""
    policies: Policies
    """The policies in force, which come with the leases."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process was asked to end."""
    purge: Purge | None = None
    """Deletes all that is kept of a tenant; to be set before `serve` where more is kept than what is encrypted."""
    revocations: Revocations = field(default_factory=Revocations)
    """What was revoked, for what is not a token and ends with one."""
    _keyring: Keyring | None = None

    async def keyring(self, *, reopens: bool = False) -> Keyring:
        """The data keys of this service's tenants. There is one; it is kept up while the service serves.

        Args:
            reopens: Whether something may be encrypted for a tenant that was purged, under a new key.

        Raises:
            FailedPrecondition: There is no secret data-kek, or it is none.
        """
        if self._keyring is None:
            self._keyring = Keyring(self.dapr.state(), await self._keks(), fetch=self._keks, reopens=reopens)
        return self._keyring

    async def secret_bytes(self, name: str) -> bytes:
        """A secret that is stored as base64.

        Raises:
            FailedPrecondition: There is none, or it is not base64.
        """
        try:
            return base64.b64decode(await self.dapr.secrets().get(name), validate=True)
        except binascii.Error:
            raise FailedPrecondition(f"The secret {name} is not base64.", reason="SECRET_INVALID") from None

    async def serve(
        self,
        add_to_server: Callable[[grpc.aio.Server], None],
        *,
        services: Sequence[str],
        ready: Mapping[str, Callable[[], Awaitable[object]]],
        authority: Authority | None = None,
        handlers: Mapping[str, Handler] | None = None,
        facts: ModelFacts | None = None,
        turns: Turns | None = None,
    ) -> None:
        """Serves until SIGTERM, SIGINT or the end of the supervisor; then drains.

        Args:
            add_to_server: Adds the servicer.
            services: Full names of its services, for reflection and health.
            ready: What must answer for the service to be ready: probes that raise when it does not.
            authority: Where keys, revocations and budgets come from; auth, when None.
            handlers: What is done with the events of each topic.
            facts: What this service knows of models, for policies that ask for more than their names.
            turns: Whose calls are looked at first; all as they come, when None.
        """
        settings, leases = self.settings, self.leases
        if authority is not None:
            leases = Leases(authority.budgets, settings.service, self.policies, wall=settings.now)
        verifier = TokenVerifier(
            authority.keys if authority else self.auth, issuer=settings.token_issuer,
            audience=settings.token_audience, clock=settings.now,
        )  # fmt: skip
        gate = Gate(
            self.policies, leases, limiter=leases if settings.enforces_limits else None, region=settings.region,
            facts=facts, clock=settings.now,
        )  # fmt: skip
        guard = Guard(
            verifier, self.recorder, self.telemetry.metrics,
            places=Places(settings.max_concurrent_calls, settings.max_held_bytes, settings.max_request_bytes),
            gateway=Gateway(settings.tls_gateway, settings.gateway_token), gate=gate, turns=turns,
        )
        server = grpc.aio.server(
            interceptors=[telemetry.server_interceptor(), guard],
            options=[
                ("grpc.max_receive_message_length", settings.max_request_bytes),
                ("grpc.so_reuseport", 0),  # a taken port must be an error, not a lottery
                *connections.options(settings.max_concurrent_calls),
            ],
        )
        methods = cast("grpc.aio.Server", Generic(server))
        add_to_server(methods)
        probes = {"sidecar": self.dapr.healthy, "identity": verifier.ready, "leases": leases.ready, **ready}
        health = Health(services, probes, self.telemetry.metrics.ready)
        health.add_to(methods)
        reflection.enable_server_reflection([HEALTH_SERVICE, reflection.SERVICE_NAME, *services], server)
        port = listen(server, settings.host, settings.port, settings.tls, plaintext=settings.allow_plaintext)
        metrics_port, close_metrics = self.telemetry.serve(settings.host, settings.metrics_port)

        def hear(revoked: Sequence[Revocation]) -> None:
            verifier.hear(revoked)
            self.auth.hear(revoked)
            self.revocations.add(revoked, settings.now())

        handlers = dict(handlers or {})
        if authority is None:
            handlers[REVOCATIONS_TOPIC] = revocation_handler(hear)
        counted = self.telemetry.metrics.events
        in_hand = InHand(settings.home / f"{settings.service}.in-hand")
        receiver = EventReceiver(
            handlers, app_api_token=settings.app_api_token,
            count=lambda topic, disposition, number: counted.labels(topic, disposition.value.lower()).inc(number),
            in_hand=in_hand,
        )
        callback_port = await receiver.serve(settings.app_port) if handlers else 0
        await health.begin()
        await server.start()
        pauses.shorten()
        _log.info(
            "serving", extra={"port": port, "metrics_port": metrics_port, "callback_port": callback_port}
        )
        obedience = Obedience(carried_out(self._keyring, self.purge), self.auth.confirm)
        background = [
            asyncio.create_task(health.keep_true()),
            asyncio.create_task(verifier.keep_fresh()),
            asyncio.create_task(follow(authority.revocations if authority else self.auth, hear, obedience.hear)),
            asyncio.create_task(leases.keep()),
            asyncio.create_task(memory.give_back()),
        ]
        if self._keyring is not None:
            background.append(
                asyncio.create_task(keep_wrapped(self._keyring, self._keks, settings.secrets_reload_s))
            )
        try:
            await self.stopping.wait()
        finally:
            _log.info("draining", extra={"drain_s": settings.drain_s})
            for task in background:
                task.cancel()
            await obedience.close()
            await health.end()
            await receiver.close()
            in_hand.close()
            # What arrives while gRPC's server stops is told CANCELLED: so callers are told to go before.
            guard.draining = True
            await asyncio.sleep(_LAME_DUCK_S)
            await server.stop(settings.drain_s)
            close_metrics()

    async def _keks(self) -> Keks:
        return Keks.parse(await self.dapr.secrets().get("data-kek"))


@contextlib.asynccontextmanager
async def open_mesh(settings: ServiceSettings) -> AsyncIterator[Mesh]:
    """Connects a service with its sidecar, and ends the process's work in order.

    Raises:
        Unavailable: The sidecar did not answer within settings.sidecar_wait_s.
        FailedPrecondition: A secret is missing.
    """
    logs.configure(settings.service)
    signals = telemetry.Telemetry(settings.service, settings.region)
    signals.start()
    dapr = DaprSidecar(
        settings.dapr_grpc_port, settings.dapr_http_port, settings.dapr_api_token,
        secret_bundle=settings.secret_bundle.replace("{service}", settings.service),
    )
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    if settings.lifeline_fd is not None:
        lifeline.watch(settings.lifeline_fd, stopping)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(signals.stop)
        stack.push_async_callback(dapr.close)
        await lifeline.unless(stopping, dapr.wait_ready(settings.sidecar_wait_s))
        secrets = dapr.secrets()
        seed = base64.b64decode(await secrets.get("event-signing-key"))
        signer, publisher = EventSigner(settings.service, seed), dapr.publisher()
        alerts = Alerts(settings.region, signer, publisher, signals.metrics, clock=settings.now)
        stack.push_async_callback(alerts.close)
        accepting: AuditPublisher = publisher
        if settings.audit_accepted_by == "journal":
            accepting = await stack.enter_async_context(
                journal.opened(settings.home / f"{settings.service}.journal", publisher, signals.metrics)
            )
        limits = RefusalLimits(settings.alert_refusals, settings.alert_window_s)
        recorder = Recorder(
            settings.region, signer, accepting, signals.metrics,
            refusals=Refusals(limits, alerts.offer, time.monotonic), clock=settings.now,
        )
        stack.push_async_callback(recorder.close)
        auth = AuthClient(settings.auth_address, settings.tls, await secrets.get("service-key"), settings.now)
        stack.push_async_callback(auth.close)
        policies = Policies()
        leases = Leases(BudgetClient(auth), settings.service, policies, wall=settings.now)
        yield Mesh(settings, dapr, recorder, alerts, signals, auth, leases, policies, stopping)


def run(main: Callable[[], Awaitable[None]]) -> None:
    """Runs a service's main; a failure to start is one line in the log and exit code 1, no traceback."""
    try:
        asyncio.run(_awaited(main))
    except FacetmeshError as error:
        _log.critical("cannot start", extra={"reason": error.reason, "detail": error.message})
        raise SystemExit(1) from None
    except OSError as error:
        _log.critical("cannot start", extra={"detail": str(error)})
        raise SystemExit(1) from None


async def _awaited(main: Callable[[], Awaitable[None]]) -> None:
    await main()
