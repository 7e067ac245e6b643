"""Requests that hypothesis makes from the descriptors, against the real services: no INTERNAL, no UNKNOWN."""

from __future__ import annotations

import contextlib
from itertools import islice
from typing import TYPE_CHECKING

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from tests.security.api import METHODS, arbitrary, multicallable, path, refusal, valid

from facetmesh.client import AlreadyExists, FacetmeshError
from facetmesh.kit import access

from .rig import AWAY, patiently

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

    from .conftest import Mesh

ANSWERS = {
    "INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "ALREADY_EXISTS", "ABORTED",
    "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED",
}  # fmt: skip
ENOUGH = 20
"""Messages of a stream that are read."""


def check(mesh: Mesh, method: MethodDescriptor, examples: int) -> None:
    """Calls a method with that many requests."""
    service = method.containing_service.full_name.split(".")[1]
    rule = access.rule(path(method))
    with mesh.client(mesh.admin_key) as admin:
        if rule.roles == {"platform-admin"}:
            tenant, key = "doomed", mesh.admin_key  # these may suspend and delete it
            with contextlib.suppress(AlreadyExists):
                admin.create_tenant(tenant)
        else:
            tenant, key = "generated", mesh.tenant("generated")
    with mesh.client(key) as client:
        token = client.token().access_token
    metadata = (("authorization", f"Bearer {token}"),)
    known = [f"tenants/{tenant}/models/faces"]
    endless = method.name.startswith("Watch")
    requests = arbitrary(method.input_type, tenant, known) | valid(method.input_type, tenant, known)

    with grpc.insecure_channel(getattr(mesh.endpoints, service)) as channel:

        def ask(request: object) -> None:
            try:
                call = multicallable(channel, method)(request, metadata=metadata, timeout=0.1 if endless else 30)
                if method.server_streaming:
                    list(islice(call, ENOUGH))
                    call.cancel()  # an export of the whole log would be read a thousand times
            except grpc.RpcError as error:
                if endless and error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:  # it would have gone on
                    return
                raise refusal(error) from None

        @settings(max_examples=examples, database=None, suppress_health_check=list(HealthCheck))
        @given(request=requests)
        def answered(request: object) -> None:
            try:
                patiently(lambda: ask(request), away=AWAY)
            except FacetmeshError as error:
                told = error
            else:
                return
            assert told.code in ANSWERS, f"{told.code} {told.reason}: {told.message}"
            assert told.reason

        answered()


@pytest.mark.parametrize("method", METHODS, ids=path)
def test_any_request_gets_an_answer_of_ours(mesh: Mesh, method: MethodDescriptor) -> None:
    check(mesh, method, 12)


@pytest.mark.full
@pytest.mark.parametrize("method", METHODS, ids=path)
def test_a_thousand_requests_get_answers_of_ours(mesh: Mesh, method: MethodDescriptor) -> None:
    check(mesh, method, 1000)
