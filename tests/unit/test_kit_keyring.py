"""Data keys: rotated, wrapped anew, destroyed; by several replicas at once."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING

import pytest

from facetmesh.kit.errors import FailedPrecondition, Internal, NotFound
from facetmesh.kit.keks import Keks
from facetmesh.kit.keyring import Keyring, keep_wrapped

if TYPE_CHECKING:
    from .conftest import Clock, MemoryState

OLD, NEW = bytes(range(32)), bytes(range(1, 33))


def record(state: MemoryState, tenant: str) -> dict[str, object]:
    """What is stored of a tenant's keys."""
    content: dict[str, object] = json.loads(state.entries[f"data-keys/{tenant}"].value)
    return content


async def test_after_a_rotation_new_data_has_a_new_key_and_old_data_is_readable(state: MemoryState) -> None:
    keyring = Keyring(state, OLD)
    old = await keyring.encrypt("acme", b"old")
    await keyring.rotate("acme", 100.0)
    await keyring.rotate("acme", 100.0)  # as who was not answered would repeat it
    await keyring.rotate("acme", 99.0)
    new = await keyring.encrypt("acme", b"new")
    assert (old[1:5], new[1:5]) == (b"\0\0\0\1", b"\0\0\0\2")
    for reader in (keyring, Keyring(state, OLD)):
        assert [await reader.decrypt("acme", one) for one in (old, new)] == [b"old", b"new"]
    await keyring.rotate("acme", 101.0)
    assert (await keyring.encrypt("acme", b"newest"))[1:5] == b"\0\0\0\3"


async def test_a_tenant_without_data_needs_no_new_key(state: MemoryState) -> None:
    await Keyring(state, OLD).rotate("acme", 100.0)
    assert state.entries == {}


async def test_another_replica_reads_what_a_new_key_encrypted(state: MemoryState) -> None:
    one, two = Keyring(state, OLD), Keyring(state, OLD)
    await two.decrypt("acme", await one.encrypt("acme", b"x"))
    await one.rotate("acme", 1.0)
    assert await two.decrypt("acme", await one.encrypt("acme", b"y")) == b"y"


async def test_what_is_destroyed_stays_so_and_nothing_more_is_encrypted(state: MemoryState) -> None:
    keyring = Keyring(state, OLD)
    sealed = await keyring.encrypt("acme", b"secret")
    await keyring.rotate("acme", 1.0)
    stolen = dict(state.entries)
    await keyring.destroy("acme")
    await keyring.destroy("acme")
    assert record(state, "acme")["keys"] == []
    with pytest.raises(NotFound):
        await keyring.encrypt("acme", b"more")
    for reader in (keyring, Keyring(state, OLD), Keyring(state, OLD, reopens=True)):
        with pytest.raises(NotFound) as refusal:
            await reader.decrypt("acme", sealed)
        assert refusal.value.reason == "DATA_DESTROYED"
    state.entries.update(stolen)  # only a copy of the state from before would open it
    assert await Keyring(state, OLD).decrypt("acme", sealed) == b"secret"


async def test_where_something_has_to_be_kept_of_a_purged_tenant_it_gets_a_new_key(state: MemoryState) -> None:
    keyring = Keyring(state, OLD, reopens=True)
    before = await keyring.encrypt("acme", b"before")
    await keyring.destroy("acme")
    after = await keyring.encrypt("acme", b"after")
    assert await keyring.decrypt("acme", after) == b"after"
    with pytest.raises(NotFound) as refusal:
        await keyring.decrypt("acme", before)
    assert refusal.value.reason == "DATA_DESTROYED"


async def test_another_replica_hears_of_the_destruction_within_a_minute(state: MemoryState, clock: Clock) -> None:
    one, two = (Keyring(state, OLD, clock=clock) for _ in range(2))
    sealed = await one.encrypt("acme", b"x")
    assert await two.decrypt("acme", sealed) == b"x"
    await one.destroy("acme")
    clock.now += 60
    with pytest.raises(NotFound):
        await two.decrypt("acme", sealed)


async def test_a_new_kek_wraps_all_keys_and_then_the_old_one_is_not_needed(state: MemoryState) -> None:
    keyring = Keyring(state, OLD)
    tenants = [f"tenant{number}" for number in range(20)]
    sealed = {tenant: await keyring.encrypt(tenant, b"x") for tenant in tenants}
    await keyring.rotate("tenant0", 1.0)
    assert keyring.use(Keks([NEW, OLD]))
    assert not keyring.use(Keks([NEW, OLD]))
    assert await keyring.decrypt("tenant3", sealed["tenant3"]) == b"x"  # no pause
    assert await keyring.rewrap() == 20
    assert await keyring.rewrap() == 0
    fresh = Keyring(state, NEW)
    assert [await fresh.decrypt(tenant, sealed[tenant]) for tenant in tenants] == [b"x"] * 20
    with pytest.raises(Internal) as refusal:
        await Keyring(state, OLD).decrypt("tenant3", sealed["tenant3"])
    assert refusal.value.reason == "KEK_MISSING"


async def test_keys_made_while_they_are_wrapped_anew_are_not_lost(state: MemoryState) -> None:
    async def fetch() -> Keks:
        return Keks([NEW, OLD])

    one, two = Keyring(state, Keks([NEW, OLD])), Keyring(state, OLD, fetch=fetch)
    sealed = [await two.encrypt("acme", b"x")]

    async def work() -> None:
        for number in range(10):
            await two.rotate("acme", float(number + 1))
            sealed.append(await two.encrypt("acme", b"x"))
            await asyncio.sleep(0)

    await asyncio.gather(work(), *(one.rewrap() for _ in range(5)))
    await one.rewrap()
    assert [await Keyring(state, NEW).decrypt("acme", each) for each in sealed] == [b"x"] * 11


async def test_a_wrapped_key_of_another_tenant_opens_nothing(state: MemoryState) -> None:
    keyring = Keyring(state, OLD)
    await keyring.encrypt("acme", b"x")
    sealed = await keyring.encrypt("globex", b"x")
    state.entries["data-keys/acme"], state.entries["data-keys/globex"] = (
        state.entries["data-keys/globex"], state.entries["data-keys/acme"],
    )
    with pytest.raises(Internal):
        await Keyring(state, OLD).decrypt("globex", sealed)


async def test_the_secret_is_read_again_and_again(state: MemoryState) -> None:
    keyring = Keyring(state, OLD)
    await keyring.encrypt("acme", b"x")
    texts = [base64.b64encode(OLD).decode()]

    async def fetch() -> Keks:
        read.append(texts[-1])
        return Keks.parse(texts[-1])

    read: list[str] = []
    texts.append("no key")
    keeping = asyncio.create_task(keep_wrapped(keyring, fetch, 0.01))
    async with asyncio.timeout(60):
        while len(read) < 2:
            await asyncio.sleep(0.01)
    texts.append(f"{base64.b64encode(NEW).decode()}\n{base64.b64encode(OLD).decode()}\n")
    async with asyncio.timeout(60):
        while Keks([NEW]).current not in json.dumps(record(state, "acme")):
            await asyncio.sleep(0.01)
    keeping.cancel()


@pytest.mark.parametrize("text", ["", "AAAA", "!", base64.b64encode(bytes(31)).decode()])
def test_what_is_no_kek_is_refused(text: str) -> None:
    with pytest.raises(FailedPrecondition) as refusal:
        Keks.parse(text)
    assert refusal.value.reason == "SECRET_INVALID"
    assert not text or text not in refusal.value.message
