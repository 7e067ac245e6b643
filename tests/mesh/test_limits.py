"""A tenant's limit holds for all replicas together, wherever its load is: two real detection processes, one auth."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc
import pytest

from facetmesh.auth.v1 import auth_pb2, auth_pb2_grpc, limits_pb2, limits_pb2_grpc
from facetmesh.client import ROLE_CALLER, PermissionDenied, ResourceExhausted
from facetmesh.detection.v1 import model_pb2, model_pb2_grpc
from facetmesh.kit import status

from .replica import second_detection
from .rig import DEADLINE_S, consented, until

if TYPE_CHECKING:
    from pathlib import Path

    from facetmesh.client import Client

    from .conftest import Mesh

RATE = 10.0
"""Few enough for a slow machine to make more, and more than a replica gives out that has not heard from auth yet."""
BURST = RATE * 0.5
FULL = 0.7
"""Of the limit, what is nearly all of it."""


async def flood(address: str, tenant: str, token: str, seconds: float) -> tuple[int, int]:
    """How many calls were let in, and how many refused, of as many as four callers make."""
    counts = [0, 0]
    until_s = time.monotonic() + seconds
    metadata = (("authorization", f"Bearer {token}"),)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = model_pb2_grpc.ModelServiceStub(channel)

        async def caller() -> None:
            while time.monotonic() < until_s:
                try:
                    await stub.ListModels(model_pb2.ListModelsRequest(parent=tenant), metadata=metadata, timeout=60)
                    counts[0] += 1
                except grpc.aio.AioRpcError as error:
                    told = status.from_rpc_error(error)
                    assert (told.code, told.reason) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED"), told
                    assert told.retry_after_s is not None
                    counts[1] += 1
                await asyncio.sleep(0.01)

        await asyncio.gather(*(caller() for _ in range(4)))
    return counts[0], counts[1]


def limited(mesh: Mesh, tenant_id: str, limits: auth_pb2.Limits, *, model: bool = True) -> str:
    """The key of a tenant with these limits."""
    key = mesh.tenant(tenant_id, model=False)  # no replica hears of it before it has its limits
    with mesh.client(mesh.admin_key) as admin, grpc.insecure_channel(mesh.endpoints.auth) as channel:
        request = auth_pb2.UpdateTenantRequest(tenant=auth_pb2.Tenant(name=f"tenants/{tenant_id}", limits=limits))
        metadata = (("authorization", f"Bearer {admin.token().access_token}"),)
        auth_pb2_grpc.AuthServiceStub(channel).UpdateTenant(request, metadata=metadata, timeout=30)
    if model:
        mesh.add_model(key)
    return key


PHASES = ((0, 1), (1,), (0,))
"""Which of two replicas have the load, one after the other."""


async def admitted_by_two(mesh: Mesh, tenant_id: str, home: Path, phase_s: float) -> tuple[float, list[float]]:
    """Of the limit, what two replicas let in together while the load moves; and the most in a second of each phase.

    A second in which nobody was refused counts as full. A phase lasts phase_s, and longer if it has no full one yet.
    """
    key = limited(mesh, tenant_id, auth_pb2.Limits(requests_per_s=RATE), model=False)
    with mesh.client(key) as client:
        token = client.token().access_token
    tenant = f"tenants/{tenant_id}"
    with second_detection(mesh, home) as second:
        replicas = (mesh.endpoints.detection, second.address)
        began, let_in, refused, most = time.monotonic(), 0, 0, [0.0] * len(PHASES)
        for number, phase in enumerate(PHASES):
            ends = time.monotonic() + phase_s
            while (now := time.monotonic()) < ends or (most[number] < FULL and now < ends + DEADLINE_S):
                counts = await asyncio.gather(*(flood(replicas[one], tenant, token, 1) for one in phase))
                together, no = (sum(column) for column in zip(*counts, strict=True))
                most[number] = max(most[number], together / (RATE * (time.monotonic() - now)) if no else 1.0)
                let_in, refused = let_in + together, refused + no
        took_s = time.monotonic() - began
    if not refused:
        pytest.skip("this machine is too slow to reach the limit")
    assert let_in <= 1.1 * RATE * took_s + BURST
    return let_in / (RATE * took_s), most


@pytest.mark.full
async def test_two_replicas_let_in_no_more_than_the_limit_together(mesh: Mesh, tmp_path: Path) -> None:
    _, most = await admitted_by_two(mesh, f"limited-{uuid4().hex[:8]}", tmp_path / "second", 3)
    assert min(most) >= FULL, "wherever the load is, the limit goes after it"


@pytest.mark.full
async def test_two_replicas_let_in_the_limit_together(
    mesh: Mesh, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    part, most = await admitted_by_two(mesh, f"limited-{uuid4().hex[:8]}", tmp_path / "second", 20)
    with capsys.disabled():
        print(f"\ntwo replicas admitted {part:.1%} of the limit together")  # noqa: T201
    assert min(most) >= FULL, "wherever the load is, the limit goes after it"


def test_the_days_images_end_and_are_metered(mesh: Mesh, group: bytes) -> None:
    tenant_id = f"frugal-{uuid4().hex[:8]}"  # a day's images are used up for whoever comes after, too
    key = limited(mesh, tenant_id, auth_pb2.Limits(images_per_day=3))
    with mesh.client(key) as client, grpc.insecure_channel(mesh.endpoints.auth) as channel:
        stub = limits_pb2_grpc.UsageServiceStub(channel)
        metadata = (("authorization", f"Bearer {client.token().access_token}"),)

        def images() -> dict[str, int]:
            request = limits_pb2.ListUsageRecordsRequest(parent=f"tenants/{tenant_id}")
            records = stub.ListUsageRecords(request, metadata=metadata, timeout=30).usage_records
            return {record.model: record.images for record in records}

        assert client.list_models()
        until(images, "the replica told of a call, so it was told of the limit")
        done = 0

        def exhausted() -> bool:
            nonlocal done
            try:
                client.detect("faces", group)
            except ResourceExhausted as refused:
                return refused.reason == "IMAGES_EXHAUSTED" and (refused.retry_after_s or 0) > 1
            done += 1
            return False

        until(exhausted, "the day's images are used up")
        assert done in (3, 4)  # an answer may be there before its image is counted
        assert client.list_models()  # what works with no model goes on
        request = limits_pb2.GetUsageRequest(name=f"tenants/{tenant_id}/usage")
        until(
            lambda: stub.GetUsage(request, metadata=metadata, timeout=30).used.images_per_day == done,
            "auth was told of each",
        )
        usage = stub.GetUsage(request, metadata=metadata, timeout=30)
        assert usage.limits.images_per_day == 3
        assert usage.used.compute_seconds_per_day > 0
        until(lambda: images()[f"tenants/{tenant_id}/models/faces"] == done, "each is metered")


def test_a_keys_own_limit_sees_what_a_fusion_costs(mesh: Mesh, group: bytes, astronaut: bytes) -> None:
    tenant_id = f"fusing-{uuid4().hex[:8]}"
    with mesh.client(mesh.tenant(tenant_id)) as owner, grpc.insecure_channel(mesh.endpoints.auth) as channel:
        metadata = (("authorization", f"Bearer {owner.token().access_token}"),)
        key = auth_pb2_grpc.AuthServiceStub(channel).CreateKey(
            auth_pb2.CreateKeyRequest(
                parent=f"tenants/{tenant_id}",
                key=auth_pb2.Key(roles=[ROLE_CALLER], limits=auth_pb2.Limits(images_per_day=3)),
            ),
            metadata=metadata, timeout=30,
        )  # fmt: skip
        consent = consented(owner, astronaut)
        with mesh.client(key.secret) as client:
            client.fuse(astronaut, group, face_model="faces", consent=consent)

            def exhausted() -> bool:
                try:
                    client.detect("faces", group)
                except ResourceExhausted as refused:
                    return refused.reason == "IMAGES_EXHAUSTED"
                return False

            until(exhausted, "the fusion's three images, source, target and the result, are the key's")
        assert owner.detect("faces", group).detections
        request = limits_pb2.GetUsageRequest(name=f"tenants/{tenant_id}/usage")
        stub = limits_pb2_grpc.UsageServiceStub(channel)

        def of_key() -> limits_pb2.KeyUsage:
            [found] = stub.GetUsage(request, metadata=metadata, timeout=30).keys
            return found

        until(lambda: of_key().used.images_per_day >= 3, "auth was told of each")
        assert (of_key().key, of_key().limits.images_per_day) == (key.name, 3)
        assert of_key().used.compute_seconds_per_day > 0


def test_a_policy_is_followed_within_seconds_and_explained(mesh: Mesh) -> None:
    tenant = f"tenants/ruled-{uuid4().hex[:8]}"
    key = mesh.tenant(tenant.removeprefix("tenants/"), model=False)
    with mesh.client(key) as client:
        assert client.list_models() == []
        policy = client.create_policy(
            '@id("all") permit (principal, action, resource);\n'
            '@id("no-lists") forbid (principal, action == Action::"detection.ListModels", resource);',
            description="no lists",
        )
        client.activate_policy(policy.name)

        def denied() -> bool:
            try:
                client.list_models()
            except PermissionDenied as refused:
                return refused.reason == "POLICY_DENIED"
            return False

        until(denied, "the policy is followed")
        told = client.explain_decision(method="facetmesh.detection.v1.ModelService/ListModels")
        assert [one.name for one in told.policies] == [f"{tenant}/policies/1#no-lists"]
        client.activate_policy(f"{tenant}/policies/default")
        until(lambda: not _refused(client), "the policy is gone")


def _refused(client: Client) -> bool:
    try:
        client.list_models()
    except PermissionDenied:
        return True
    return False
