"""A deleted tenant's end: its data is destroyed in every service, whatever dies on the way, and the log stands."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from facetmesh.auth.keys import KeySpec
from facetmesh.auth.limits_store import DaprLimitsStore
from facetmesh.auth.orders import Given, OrderBook, Orders
from facetmesh.auth.policies import Active, Policy
from facetmesh.auth.purges import Purger
from facetmesh.auth.tenants import TenantSpec
from facetmesh.auth.usage import Day
from facetmesh.auth.v1 import auth_pb2
from facetmesh.fusion.consent_store import DaprConsentStore
from facetmesh.fusion.consents import Consents, SourceFace, Terms
from facetmesh.fusion.line import Ticket
from facetmesh.fusion.operations import Job, Operation, Ref
from facetmesh.fusion.purge import purge as purge_fusion
from facetmesh.fusion.store import DaprStore as FusionStore
from facetmesh.kit.blobs import Blobs, open_store
from facetmesh.kit.errors import AlreadyExists, FailedPrecondition, NotFound, ResourceExhausted, Unavailable
from facetmesh.kit.keyring import Keyring
from facetmesh.kit.orders import Obedience, OrderKind, TenantOrder
from facetmesh.kit.tokens import order, order_message

from .audit_world import World
from .auth_world import GRACE_S, AuthWorld, auth_world
from .conftest import Clock, MemoryState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from facetmesh.audit.log import Log

    from .conftest import Revoked

SERVICES = ("audit", "fusion")
OPERATION = Ref("acme", "0" * 32)


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Dying(MemoryState):
    """State whose process dies right before, or right after, one of its writes."""

    before: int = -1
    after: int = -1
    done: int = 0

    async def put(self, *arguments: Any, **options: Any) -> None:
        """Writes, and dies."""
        await self._write(super().put, *arguments, **options)

    async def delete(self, *arguments: Any, **options: Any) -> None:
        """Deletes, and dies."""
        await self._write(super().delete, *arguments, **options)

    async def _write(self, write: Any, *arguments: Any, **options: Any) -> None:
        self.done += 1
        if self.done == self.before:
            raise Killed
        await write(*arguments, **options)
        if self.done == self.after:
            raise Killed


@dataclass
class Mesh:
    """auth, and two services with data of the tenants acme and globex."""

    state: Dying
    clock: Clock
    auth: AuthWorld
    orders: Orders
    purger: Purger
    fusion: FusionStore
    consents: DaprConsentStore
    blobs: Blobs
    log: Log
    world: World
    receipts: list[Any] = field(default_factory=list)
    accounted: list[str] = field(default_factory=list)
    away: set[str] = field(default_factory=set)

    async def carry_out(self, service: str, one: TenantOrder) -> None:
        """What kit has a service do."""
        if service in self.away:
            raise Unavailable("away")
        if service == "audit":
            await self.world.keyring.destroy(one.tenant_id)
        else:
            await self.blobs._keyring.destroy(one.tenant_id)
            await purge_fusion(self.fusion, self.blobs, [self.consents], one.tenant_id)

    async def hear(self) -> None:
        """Each service hears what is pending, and does it."""
        for service in SERVICES:

            async def carry_out(one: TenantOrder, service: str = service) -> None:
                await self.carry_out(service, one)

            async def confirm(one: TenantOrder, service: str = service) -> None:
                await self.orders.confirm(service, one)

            obedience = Obedience(dict.fromkeys(OrderKind, carry_out), confirm)
            obedience.hear(await self.orders.pending(service))
            for task in list(obedience._under_way.values()):
                await task


@asynccontextmanager
async def a_mesh(folder: Path, clock: Clock, revoked: Revoked) -> AsyncIterator[Mesh]:
    """Two tenants with all that they can have; acme is deleted, and its grace has passed."""
    state, world = Dying(), World(folder / "audit.db", clock=clock)
    auth = auth_world(state, clock, revoked)
    orders = Orders(auth.store, SERVICES, clock)
    limits: Any = DaprLimitsStore(state)  # type: ignore[arg-type]
    accounted: list[str] = []

    async def account(tenant_id: str) -> None:
        accounted.append(tenant_id)

    fusion_state: Any = MemoryState()
    keyring = Keyring(fusion_state, bytes(32))
    blobs = Blobs(open_store(str(folder / "blobs")), keyring)
    fusion, consents = FusionStore(fusion_state), DaprConsentStore(fusion_state, keyring)
    async with world.log() as (log, _):
        made = Mesh(
            state, clock, auth, orders, Purger(auth.store, limits, orders, account, clock), fusion, consents, blobs,
            log, world, accounted=accounted,
        )  # fmt: skip
        for tenant_id in ("acme", "globex"):
            await auth.tenants.create(tenant_id, TenantSpec("A name", region="eu", url_allowlist=("a.example",)), "")
            await auth.keys.create(tenant_id, KeySpec())
            await blobs.put(tenant_id, "fusions/1/source", b"a photo")
            owner = f"tenants/{tenant_id}"
            await limits.create_policy(Policy(owner, "1", "permit(principal, action, resource);"))
            register = await limits.register()
            await limits.save_register(replace(register, active={**register.active, owner: Active("1", 1)}))
            await limits.save_ledger(await limits.ledger(tenant_id))
            await limits.save_usage_day(tenant_id, Day(int(clock.now // 86_400), {}))
            job = Job("", "", f"tenants/{tenant_id}/models/faces", 0, 0)
            await fusion.announce(Ticket(Ref(tenant_id, OPERATION.id)))
            await fusion.create(Operation(tenant_id, OPERATION.id, job, clock.now))
            terms = Terms("Ada", "a poster", (SourceFace("00" * 32),), "00" * 32, clock.now + 3600)
            await Consents(consents, clock).create(tenant_id, terms)
            event = world.event(tenant=f"tenants/{tenant_id}")
            await log.ingest([world.services["detection"].sign(event)])
            made.receipts.append(event)
        await auth.tenants.delete("acme", "")
        yield made


async def until_purged(mesh: Mesh) -> None:
    """Sweeps until nothing is left to do."""
    for _ in range(10):
        await mesh.purger.sweep()
        await mesh.hear()
        if not await mesh.auth.store.deleted_ids():
            return
    pytest.fail("it is not purged")


async def check(mesh: Mesh, folder: Path) -> None:
    """Nothing of acme is left, all of globex is, and the log verifies."""
    acme, globex = mesh.receipts
    for read in (
        mesh.blobs.get("acme", "fusions/1/source"), mesh.world.receipt(mesh.log, acme),
        mesh.auth.tenants.present("acme"),
    ):  # fmt: skip
        with pytest.raises(NotFound):
            await read
    assert await mesh.fusion.get(OPERATION) is None
    assert await mesh.consents.ids("acme") == []
    assert [ticket.ref.tenant_id for ticket in await mesh.fusion.announced()] == ["globex"]
    assert not (folder / "blobs/acme/fusions/1/source").exists()
    assert await mesh.auth.keys.ids("acme") == []
    others = {"tenants/acme", "tenants/index/2"}
    assert [name for name in mesh.state.entries if "acme" in name and name not in others] == []
    assert len([name for name in mesh.state.entries if "globex" in name]) > 5
    assert b"acme" not in mesh.state.entries["policies/register"].value
    tombstone = await mesh.auth.tenants.get("acme")
    assert (tombstone.display_name, tombstone.region, tombstone.url_allowlist) == ("", "", ())
    assert (tombstone.purged_s, tombstone.deleted_s) != (None, None)
    with pytest.raises(AlreadyExists):
        await mesh.auth.tenants.create("acme", TenantSpec(), "")
    with pytest.raises(FailedPrecondition):
        await mesh.auth.tenants.undelete("acme", "")
    assert set(mesh.accounted) == {"acme"}
    assert (await mesh.orders.find("acme", OrderKind.PURGE)) is None
    # The other tenant has lost nothing.
    assert await mesh.blobs.get("globex", "fusions/1/source") == b"a photo"
    assert len(await mesh.consents.ids("globex")) == 1
    assert await mesh.world.receipt(mesh.log, globex)
    assert len(await mesh.auth.keys.ids("globex")) == 1
    # The log is whole: entries of the purged tenant verify, their bodies are gone.
    async with mesh.world.store() as store:
        assert await store.inclusion(mesh.log.head.size - 2, mesh.log.head.size)
        assert (await store.head()) == mesh.log.head


async def test_after_the_grace_nothing_of_a_tenant_is_left_and_the_log_stands(
    tmp_path: Path, clock: Clock, revoked: Revoked
) -> None:
    async with a_mesh(tmp_path, clock, revoked) as mesh:
        clock.now += GRACE_S - 1
        await mesh.purger.sweep()
        await mesh.hear()
        assert (await mesh.auth.tenants.get("acme")).purging_s is None
        assert await mesh.blobs.get("acme", "fusions/1/source") == b"a photo"
        clock.now += 1
        await until_purged(mesh)
        await check(mesh, tmp_path)
        await mesh.purger.sweep()
        assert mesh.accounted == ["acme"]


async def test_it_is_not_purged_before_every_service_has_confirmed(
    tmp_path: Path, clock: Clock, revoked: Revoked
) -> None:
    async with a_mesh(tmp_path, clock, revoked) as mesh:
        clock.now += GRACE_S
        mesh.away.add("audit")
        for _ in range(5):
            await mesh.purger.sweep()
            await mesh.hear()
        given = await mesh.orders.find("acme", OrderKind.PURGE)
        assert given is not None
        assert given.pending == ("audit",)
        assert (await mesh.auth.tenants.get("acme")).purged_s is None
        assert await mesh.world.receipt(mesh.log, mesh.receipts[0])
        mesh.away.clear()
        await until_purged(mesh)
        await check(mesh, tmp_path)


async def test_once_it_has_begun_there_is_no_way_back_whatever_a_clock_says(
    tmp_path: Path, clock: Clock, revoked: Revoked
) -> None:
    async with a_mesh(tmp_path, clock, revoked) as mesh:
        clock.now += GRACE_S
        await mesh.purger.sweep()
        clock.now -= GRACE_S
        with pytest.raises(FailedPrecondition) as refusal:
            await mesh.auth.tenants.undelete("acme", "")
        assert refusal.value.reason == "TENANT_EXPIRED"


async def test_killed_before_and_after_every_write_it_is_purged_all_the_same(
    tmp_path: Path, clock: Clock, revoked: Revoked
) -> None:
    for side in ("before", "after"):
        deaths, number = 0, 1
        while True:
            folder = tmp_path / f"{side}{number}"
            folder.mkdir()
            async with a_mesh(folder, Clock(clock.now), revoked) as mesh:
                mesh.clock.now += GRACE_S
                mesh.state.done = 0
                setattr(mesh.state, side, number)
                try:
                    await until_purged(mesh)
                except Killed:
                    deaths += 1
                    await until_purged(mesh)
                writes, number = mesh.state.done, number + 1
                mesh.state.before = mesh.state.after = -1
                await check(mesh, folder)
            if number > writes:
                break
        assert deaths >= 8


async def test_a_rotated_key_is_everywhere_or_still_asked_for(tmp_path: Path, clock: Clock, revoked: Revoked) -> None:
    async with a_mesh(tmp_path, clock, revoked) as mesh:
        rotated = await mesh.auth.tenants.rotate_key(
            "globex", lambda tenant_id: mesh.orders.give(tenant_id, OrderKind.ROTATE_KEY)
        )
        assert rotated.key_rotated_s == clock.now
        (first,) = await mesh.orders.pending("fusion")
        await mesh.orders.confirm("fusion", first)
        assert (await mesh.orders.pending("fusion"), await mesh.orders.pending("audit")) == ([], [first])
        clock.now += 1
        newer = await mesh.orders.give("globex", OrderKind.ROTATE_KEY)
        await mesh.orders.confirm("audit", first)  # late, of an order that another took the place of
        assert await mesh.orders.pending("audit") == [newer]
        for service in SERVICES:
            await mesh.orders.confirm(service, newer)
        assert await mesh.orders.find("globex", OrderKind.ROTATE_KEY) is None


@pytest.mark.parametrize("now", [1_800_000_000.0, 1_763_731_910.1234567, 1_763_731_910.9999999, 1_800_000_000.3333333])
async def test_an_order_is_known_again_when_it_comes_back(
    state: MemoryState, clock: Clock, revoked: Revoked, now: float
) -> None:
    orders = Orders(auth_world(state, clock, revoked).store, SERVICES, clock)
    clock.now = now
    given = await orders.give("acme", OrderKind.PURGE)
    (heard,) = await orders.pending("fusion")
    back = order(auth_pb2.TenantOrder.FromString(order_message(heard).SerializeToString()))
    assert back == heard == given
    await orders.confirm("fusion", back)
    assert await orders.pending("fusion") == []


async def test_orders_are_not_piled_up_without_end(state: MemoryState, clock: Clock, revoked: Revoked) -> None:
    store = auth_world(state, clock, revoked).store
    given = (Given(TenantOrder(f"tenant{n}", OrderKind.ROTATE_KEY, clock.now), SERVICES) for n in range(1000))
    await store.save_orders(OrderBook(tuple(given)))
    orders = Orders(store, SERVICES, clock)
    with pytest.raises(ResourceExhausted) as refusal:
        await orders.give("another", OrderKind.PURGE)
    assert refusal.value.reason == "ORDERS_PENDING"
