"""Keys that come with each request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from facetmesh.auth.exchange import KEEP_S, Exchange
from facetmesh.auth.keys import KeyHash, KeySpec
from facetmesh.auth.tenants import TenantSpec
from facetmesh.kit import apikeys
from facetmesh.kit.errors import FacetmeshError, PermissionDenied, Unauthenticated, Unavailable
from facetmesh.kit.revocations import Revocation

from .auth_world import AuthWorld, auth_world

if TYPE_CHECKING:
    from facetmesh.auth.grants import Grant

    from .conftest import Clock, MemoryState, Revoked


OWN = apikeys.new_key(apikeys.SERVICES, "fusion")


@dataclass
class Desk:
    """An exchange, and what went through it."""

    world: AuthWorld
    clock: Clock
    accounted: list[str] = field(default_factory=list)
    issued: int = 0
    trouble: FacetmeshError | None = None
    gate: asyncio.Event | None = None

    def __post_init__(self) -> None:
        """Opens the exchange."""
        self.exchange = Exchange(self.world.grants, self, KeyHash(b"other"), self.account, self.clock)

    def issue(self, grant: Grant) -> tuple[str, int]:
        """Another token each time."""
        self.issued += 1
        expires = min(self.clock.now + 600, grant.expires_s or float("inf"))
        return f"{grant.subject}#{self.issued}", int(expires)

    async def account(self, grant: Grant) -> None:
        """Notes it, or fails."""
        if self.gate is not None:
            await self.gate.wait()
        if self.trouble is not None:
            raise self.trouble
        self.accounted.append(grant.subject)


@pytest.fixture
async def desk(state: MemoryState, clock: Clock, revoked: Revoked) -> Desk:
    """An exchange, and the tenant acme."""
    world = auth_world(state, clock, revoked, {apikeys.ApiKey(apikeys.SERVICES, "fusion"): OWN})
    await world.tenants.create("acme", TenantSpec(), "")
    return Desk(world, clock)


async def test_a_token_serves_for_a_while_and_is_recorded_once(desk: Desk) -> None:
    key, text = await desk.world.keys.create("acme", KeySpec())
    first = await desk.exchange.token(text)
    desk.clock.now += KEEP_S - 1
    assert await desk.exchange.token(text) == first
    assert desk.accounted == [key.name]
    desk.clock.now += 2
    assert await desk.exchange.token(text) != first


async def test_a_token_is_not_kept_longer_than_its_key_works(desk: Desk) -> None:
    _, text = await desk.world.keys.create("acme", KeySpec(expires_s=desk.clock.now + 10))
    await desk.exchange.token(text)
    desk.clock.now += 10
    with pytest.raises(Unauthenticated):
        await desk.exchange.token(text)


@pytest.mark.parametrize("whole_tenant", [True, False])
async def test_a_revocation_ends_what_is_kept(desk: Desk, *, whole_tenant: bool) -> None:
    key, text = await desk.world.keys.create("acme", KeySpec())
    _, other = await desk.world.keys.create("acme", KeySpec())
    kept = [await desk.exchange.token(one) for one in (text, other)]
    desk.exchange.hear([Revocation("tenants/acme" if whole_tenant else key.name, desk.clock.now)])
    desk.clock.now += 1  # what is granted now is newer than the revocation
    again = [await desk.exchange.token(one) for one in (text, other)]
    assert [new == old for new, old in zip(again, kept, strict=True)] == [False, not whole_tenant]


async def test_a_revocation_on_the_way_is_not_missed(desk: Desk) -> None:
    key, text = await desk.world.keys.create("acme", KeySpec())
    desk.gate = asyncio.Event()
    asking = asyncio.ensure_future(desk.exchange.token(text))
    while not desk.issued:
        await asyncio.sleep(0)
    desk.exchange.hear([Revocation(key.name, desk.clock.now)])
    desk.gate.set()
    with pytest.raises(Unauthenticated):
        await asking


async def test_who_asks_at_once_shares_one_look_up_and_may_go_away(desk: Desk) -> None:
    _, text = await desk.world.keys.create("acme", KeySpec())
    desk.gate = asyncio.Event()
    asking = [asyncio.ensure_future(desk.exchange.token(text)) for _ in range(50)]
    while not desk.issued:
        await asyncio.sleep(0)
    asking.pop(0).cancel()
    desk.gate.set()
    assert len(set(await asyncio.gather(*asking))) == 1
    assert (desk.issued, len(desk.accounted)) == (1, 1)


async def test_what_cannot_be_recorded_does_not_leave(desk: Desk) -> None:
    _, text = await desk.world.keys.create("acme", KeySpec())
    desk.trouble = Unavailable("no", reason="AUDIT_UNAVAILABLE")
    with pytest.raises(Unavailable):
        await desk.exchange.token(text)
    desk.trouble = None
    assert await desk.exchange.token(text)


async def test_a_suspended_tenants_key_is_refused(desk: Desk) -> None:
    _, text = await desk.world.keys.create("acme", KeySpec())
    await desk.world.tenants.suspend("acme", "")
    with pytest.raises(PermissionDenied):
        await desk.exchange.token(text)


@pytest.mark.parametrize("text", ["", "fm_acme", "x" * 100_000, "\0", apikeys.new_key("acme", "nothing")])
async def test_what_is_no_key_is_refused(desk: Desk, text: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await desk.exchange.token(text)
    assert refused.value.reason == "KEY_INVALID"


async def test_services_keys_work_inside_only(desk: Desk) -> None:
    assert (await desk.world.grants.grant(OWN, None)).roles == ("service",)
    with pytest.raises(Unauthenticated):
        await desk.exchange.token(OWN)


async def test_when_a_single_token_is_revoked_its_tenants_are_had_anew(desk: Desk) -> None:
    _, text = await desk.world.keys.create("acme", KeySpec())
    first = await desk.exchange.token(text)
    desk.exchange.hear([Revocation(f"tenants/globex/tokens/{'0' * 32}", desk.clock.now)])
    assert await desk.exchange.token(text) == first
    desk.exchange.hear([Revocation(f"tenants/acme/tokens/{'0' * 32}", desk.clock.now)])
    assert await desk.exchange.token(text) != first
