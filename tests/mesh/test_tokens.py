"""Tokens on real processes: revoked within a second, and signed by keys that change."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import grpc
import jwt
import pytest
from tests.contract.harness import halt

from facetmesh.audit.v1 import audit_pb2, audit_pb2_grpc
from facetmesh.auth.v1 import auth_pb2, auth_pb2_grpc
from facetmesh.cli.mesh.home import Home
from facetmesh.detection.v1 import model_pb2, model_pb2_grpc
from facetmesh.fusion.v1 import fusion_pb2, fusion_pb2_grpc
from facetmesh.kit import status

from .rig import Cli, patiently, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .conftest import Mesh

SOON_S = 30.0
"""A tenth of a second does on a machine with nothing else to do. Without the news, tokens would go on for minutes."""


class Holder:
    """Who holds a token, and asks every service with it."""

    def __init__(self, mesh: Mesh, key: str, stack: ExitStack) -> None:
        with mesh.client(key) as client:
            self.token = client.token().access_token

        def channel(address: str) -> grpc.Channel:
            return stack.enter_context(grpc.insecure_channel(address))

        where, tenant = mesh.endpoints, "tenants/pied-piper"
        audit = audit_pb2_grpc.AuditServiceStub(channel(where.audit))
        auth = auth_pb2_grpc.AuthServiceStub(channel(where.auth))
        models = model_pb2_grpc.ModelServiceStub(channel(where.detection))
        fusion = fusion_pb2_grpc.FusionServiceStub(channel(where.fusion))
        self._asks: dict[str, tuple[Callable[..., Any], Any]] = {
            "audit": (audit.ListEvents, audit_pb2.ListEventsRequest(parent=tenant)),
            "auth": (auth.GetTenant, auth_pb2.GetTenantRequest(name=tenant)),
            "detection": (models.ListModels, model_pb2.ListModelsRequest(parent=tenant)),
            "fusion": (fusion.ListOperations, fusion_pb2.ListOperationsRequest(parent=tenant)),
        }

    def answers(self, *but: str) -> set[str]:
        """What each service answers: OK or the reason of its refusal."""
        found = set()
        for service, (ask, request) in self._asks.items():
            if service not in but:
                try:
                    ask(request, metadata=(("authorization", f"Bearer {self.token}"),), timeout=60)
                    found.add("OK")
                except grpc.RpcError as error:
                    found.add(status.from_rpc_error(error).reason)
        return found


@pytest.fixture
def holder(mesh: Mesh) -> Iterator[Callable[[str], Holder]]:
    """Makes holders of tokens of keys."""
    mesh.tenant("pied-piper", model=False)
    with ExitStack() as stack:
        yield lambda key: Holder(mesh, key, stack)


def working(holder: Callable[[str], Holder], key: str) -> Holder:
    """A holder of a new token that all take; one of the second in which its tenant was suspended counts as older."""
    return until(lambda: one if (one := holder(key)).answers() == {"OK"} else None, "a new token works")


def test_a_revoked_keys_token_and_a_suspended_tenants_are_refused_everywhere(
    mesh: Mesh, holder: Callable[[str], Holder]
) -> None:
    with mesh.client(mesh.admin_key) as admin:
        roles = [2, 3, 4]
        keys = [admin.create_key(tenant="pied-piper", roles=roles) for _ in range(2)]
        one, other = (working(holder, key.secret) for key in keys)
        admin.revoke_key(keys[0].name)
        until(lambda: one.answers() == {"TOKEN_REVOKED"}, "the key's token is refused", SOON_S)
        assert other.answers() == {"OK"}
        admin.suspend_tenant("pied-piper")
        try:
            until(lambda: other.answers() == {"TOKEN_REVOKED"}, "the tenant's tokens are refused", SOON_S)
        finally:
            admin.resume_tenant("pied-piper")
        working(holder, keys[1].secret)


def test_without_auth_tokens_go_on_and_when_it_is_back_revocations_are_heard(
    mesh: Mesh, holder: Callable[[str], Holder]
) -> None:
    with mesh.client(mesh.admin_key) as admin:
        key = admin.create_key(tenant="pied-piper", roles=[2, 3, 4])
        one = working(holder, key.secret)
        killed = mesh.pid("auth")
        os.kill(killed, signal.SIGKILL)
        assert one.answers("auth") == {"OK"}
        until(lambda: mesh.has_replaced("auth", killed), "auth is started again")
        assert patiently(lambda: admin.revoke_key(key.name)).HasField("revoke_time")
        until(lambda: one.answers() == {"TOKEN_REVOKED"}, "the watches are back soon after auth is", SOON_S)


def test_while_auth_hangs_holders_of_tokens_go_on_and_nobody_new_enters(
    mesh: Mesh, holder: Callable[[str], Holder]
) -> None:
    with mesh.client(mesh.admin_key) as admin:
        key = admin.create_key(tenant="pied-piper", roles=[2, 3, 4])
    one, hanging = working(holder, key.secret), mesh.pid("auth")
    halt(hanging)
    try:
        with grpc.insecure_channel(mesh.endpoints.auth) as channel:
            stub = auth_pb2_grpc.AuthServiceStub(channel)
            with pytest.raises(grpc.RpcError) as refusal:
                stub.IssueToken(auth_pb2.IssueTokenRequest(key=key.secret), timeout=3)
        assert refusal.value.code() in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}
        assert one.answers("auth") == {"OK"}
    finally:
        os.kill(hanging, signal.SIGCONT)
    until(lambda: one.answers() == {"OK"}, "auth answers again")


def test_the_signing_key_changes_without_a_restart(mesh: Mesh, holder: Callable[[str], Holder]) -> None:
    old = working(holder, mesh.keys["pied-piper"])
    auth = mesh.pid("auth")
    Cli(Home(mesh.home)).ok("keys", "rotate-signing")

    def changed() -> Holder | None:
        new = holder(mesh.keys["pied-piper"])
        return new if kid(new.token) != kid(old.token) else None

    new = until(changed, "the new key signs")
    until(lambda: new.answers() == {"OK"}, "it is known everywhere")
    assert old.answers() == {"OK"}
    assert mesh.pid("auth") == auth


def kid(token: str) -> str:
    """Which key signed."""
    return str(jwt.get_unverified_header(token)["kid"])
