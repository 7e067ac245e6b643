"""Keys that end, are exchanged for others, and are limited."""

from __future__ import annotations

import secrets
import statistics
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from facetmesh.auth.keys import Key, Keys, KeySpec
from facetmesh.auth.store import DaprStore
from facetmesh.auth.tenants import TenantSpec
from facetmesh.kit import apikeys
from facetmesh.kit.errors import Aborted, FailedPrecondition, InvalidArgument, Unauthenticated, Unavailable

from .auth_world import AuthWorld, auth_world, world_over

if TYPE_CHECKING:
    from facetmesh.auth.grants import Grants

    from .conftest import Clock, MemoryState, Revoked

METHOD = "facetmesh.detection.v1.DetectionService/Detect"


@pytest.fixture
async def world(state: MemoryState, clock: Clock, revoked: Revoked) -> AuthWorld:
    """The tenant acme."""
    made = auth_world(state, clock, revoked)
    await made.tenants.create("acme", TenantSpec(), "")
    return made


@pytest.fixture
def keys(world: AuthWorld) -> Keys:
    """The keys of acme: none yet."""
    return world.keys


@pytest.fixture
def grants(world: AuthWorld) -> Grants:
    """Recognises them."""
    return world.grants


async def works(grants: Grants, text: str) -> bool:
    """Whether the text is exchanged."""
    try:
        await grants.grant(text, None)
    except Unauthenticated:
        return False
    return True


async def test_a_key_ends_when_it_was_told_to(keys: Keys, grants: Grants, clock: Clock) -> None:
    key, text = await keys.create("acme", KeySpec(expires_s=clock.now + 60))
    assert (await grants.grant(text, None)).expires_s == clock.now + 60
    clock.now += 60
    assert not await works(grants, text)
    with pytest.raises(FailedPrecondition):
        await keys.rotate("acme", key.id, 60)


async def test_a_key_that_would_have_ended_is_not_made(keys: Keys, clock: Clock) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        await keys.create("acme", KeySpec(expires_s=clock.now))
    assert refusal.value.reason == "EXPIRE_TIME_PAST"
    assert await keys.ids("acme") == []


async def test_what_limits_a_key_is_in_its_grant_and_outlives_the_store(keys: Keys, grants: Grants) -> None:
    spec = KeySpec("x", ("caller", "auditor"), None, (METHOD,), ("tenants/acme/models/faces",))
    key, text = await keys.create("acme", spec)
    assert await keys.get("acme", key.id) == key
    grant = await grants.grant(text, None)
    assert (grant.roles, grant.methods, grant.models) == (spec.roles, spec.methods, spec.models)


@pytest.mark.parametrize("limits", [{"methods": (METHOD,)}, {"models": ("tenants/acme/models/faces",)}])
async def test_who_can_make_keys_is_not_limited(keys: Keys, limits: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        await keys.create("acme", KeySpec(roles=("caller", "tenant-admin"), **limits))
    assert refusal.value.reason == "ADMIN_NOT_LIMITED"


async def test_both_texts_work_until_the_overlap_has_passed(keys: Keys, grants: Grants, clock: Clock) -> None:
    key, old = await keys.create("acme", KeySpec())
    rotated, new = await keys.rotate("acme", key.id, 3600)
    assert rotated.id == key.id
    assert old != new
    clock.now += 3599
    assert await works(grants, old)
    assert await works(grants, new)
    clock.now += 1
    assert not await works(grants, old)
    assert await works(grants, new)


async def test_after_a_leak_the_old_text_works_no_more(keys: Keys, grants: Grants) -> None:
    key, old = await keys.create("acme", KeySpec())
    _, new = await keys.rotate("acme", key.id, 0)
    assert not await works(grants, old)
    assert await works(grants, new)


async def test_of_three_texts_the_first_is_gone(keys: Keys, grants: Grants) -> None:
    key, first = await keys.create("acme", KeySpec())
    _, second = await keys.rotate("acme", key.id, 3600)
    _, third = await keys.rotate("acme", key.id, 3600)
    assert [await works(grants, text) for text in (first, second, third)] == [False, True, True]


async def test_a_revoked_key_works_with_neither_text(keys: Keys, grants: Grants) -> None:
    key, old = await keys.create("acme", KeySpec())
    _, new = await keys.rotate("acme", key.id, 3600)
    await keys.revoke("acme", key.id)
    assert [await works(grants, text) for text in (old, new)] == [False, False]
    with pytest.raises(FailedPrecondition):
        await keys.rotate("acme", key.id, 3600)


async def test_the_last_use_is_noted_once_an_hour(keys: Keys, grants: Grants, state: MemoryState, clock: Clock) -> None:
    key, text = await keys.create("acme", KeySpec())
    assert key.used_s is None
    first = clock.now
    await grants.grant(text, None)
    writes = state.writes
    clock.now += 3599
    await grants.grant(text, None)
    assert (state.writes, (await keys.get("acme", key.id)).used_s) == (writes, first)
    clock.now += 1
    await grants.grant(text, None)
    assert (await keys.get("acme", key.id)).used_s == clock.now


@pytest.mark.parametrize("error", [Aborted("x"), Unavailable("x")])
async def test_nobody_is_refused_for_want_of_the_note(
    keys: Keys, grants: Grants, state: MemoryState, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    _, text = await keys.create("acme", KeySpec())

    async def failing(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(state, "put", failing)
    assert await works(grants, text)


async def test_a_key_is_revoked_though_it_is_used_meanwhile(
    state: MemoryState, clock: Clock, keys: Keys, grants: Grants, revoked: Revoked
) -> None:
    class Busy(DaprStore):
        """Notes a use between a read and the write after it, twice."""

        left = 2

        async def save_key(self, key: Key) -> None:
            if self.left:
                self.left -= 1
                read = await self.key(key.tenant_id, key.id)
                assert read is not None
                await super().save_key(replace(read, used_s=clock.now + self.left))
            await super().save_key(key)

    key, text = await keys.create("acme", KeySpec())
    store: Any = Busy(state)  # type: ignore[arg-type]
    busy = world_over(store, clock, revoked).keys
    assert (await busy.revoke("acme", key.id)).revoked_s == clock.now
    assert not await works(grants, text)


async def test_a_revoked_keys_tokens_are_revoked(keys: Keys, revoked: Revoked, clock: Clock) -> None:
    key, _ = await keys.create("acme", KeySpec())
    first = clock.now
    await keys.revoke("acme", key.id)
    clock.now += 5
    await keys.revoke("acme", key.id)  # as who was not answered would repeat it
    name = f"tenants/acme/keys/{key.id}"
    assert revoked.names == [(name, first), (name, clock.now)]


async def test_a_token_of_who_read_the_key_just_before_is_covered(
    keys: Keys, grants: Grants, revoked: Revoked, state: MemoryState, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, text = await keys.create("acme", KeySpec())
    await grants.grant(text, None)  # its use is noted: the next one writes nothing
    write, looked = state.put, []

    async def slow(*arguments: Any, **options: Any) -> None:
        if not looked:
            clock.now += 1
            looked.append((await grants.grant(text, None)).at_s)  # the key is not yet revoked
        await write(*arguments, **options)

    monkeypatch.setattr(state, "put", slow)
    await keys.revoke("acme", key.id)
    assert revoked.names[-1][1] >= looked[0]


async def test_after_a_leak_tokens_are_revoked_too(keys: Keys, revoked: Revoked, clock: Clock) -> None:
    key, _ = await keys.create("acme", KeySpec())
    await keys.rotate("acme", key.id, 60)
    assert revoked.names == []
    await keys.rotate("acme", key.id, 0)
    assert revoked.names == [(f"tenants/acme/keys/{key.id}", clock.now)]


async def test_a_token_counts_from_when_its_key_was_looked_at(
    keys: Keys, grants: Grants, state: MemoryState, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = await keys.create("acme", KeySpec())
    read, before = state.get, clock.now

    async def slow(key: str) -> Any:
        found = await read(key)
        clock.now += 1  # here another replica revokes it
        return found

    monkeypatch.setattr(state, "get", slow)
    assert (await grants.grant(text, None)).at_s == before


async def test_how_long_a_refusal_takes_does_not_tell_why(world: AuthWorld) -> None:
    key, _ = await world.keys.create("acme", KeySpec())
    wrong = {
        "another secret": apikeys.new_key("acme", key.id), "no such key": apikeys.new_key("acme", "0" * 16),
        "no such tenant": apikeys.new_key("nobody", key.id),
    }  # fmt: skip
    read = world.store.key  # the same record for all: what the store takes is not ours

    async def same(_: str, __: str) -> Any:
        return await read("acme", key.id)

    for name, attempt in wrong.items():
        assert not await works(world.grants, attempt), name
    world.store.key = same
    ratios = []
    for _ in range(5):  # what differs does so each time, what else the machine does comes and goes
        times: dict[str, list[int]] = {name: [] for name in wrong}
        for _ in range(500):  # by turns, so that it hits all alike
            for name, attempt in wrong.items():
                began = time.perf_counter_ns()
                await works(world.grants, attempt)
                times[name].append(time.perf_counter_ns() - began)
        medians = [statistics.median(taken) for taken in times.values()]
        ratios.append(max(medians) / min(medians))
        if ratios[-1] < 1.5:
            return
    pytest.fail(f"one kind of refusal takes longer than another: {ratios}")


async def test_every_text_is_compared_as_often(world: AuthWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    key, text = await world.keys.create("acme", KeySpec())
    compare, compared = secrets.compare_digest, 0

    def counted(one: str, other: str) -> bool:
        nonlocal compared
        compared += 1
        assert len(one) == len(other) or not other  # of what has one length, no byte more or less is looked at
        return compare(one, other)

    monkeypatch.setattr("facetmesh.auth.keys.hmac.compare_digest", counted)
    others = [apikeys.new_key(*parts) for parts in (("acme", key.id), ("acme", "0" * 16), ("abc", "1"))]
    for attempt in (*others, text):
        compared = 0
        assert await works(world.grants, attempt) == (attempt == text)
        assert compared == 2
