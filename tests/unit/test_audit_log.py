"""The log: each event once, a checkpoint after each commit, receipts and pages out of it."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any

import pytest

from facetmesh.audit.announcements import announcement_id
from facetmesh.audit.filters import parse_filter
from facetmesh.audit.history import History
from facetmesh.audit.intake import logged_event
from facetmesh.audit.log import Log
from facetmesh.audit.note import LogSigner
from facetmesh.audit.receipts import Receipts
from facetmesh.event.v1.event_pb2 import SignedEvent
from facetmesh.kit.errors import Internal, InvalidArgument, NotFound, Unavailable
from facetmesh.verify import open_checkpoint, verify_growth, verify_receipt
from facetmesh.verify.event import open_announcement, parse

from .audit_world import World, seed, service_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from facetmesh.audit.history import Page
    from facetmesh.audit.intake import Refusal
    from facetmesh.audit.records import Appended, Row
    from facetmesh.audit.store import Store

ALL = parse_filter("")


@pytest.fixture
def world(audit_world: World) -> World:
    """Services and their keys, with each of the stores."""
    return audit_world


@pytest.fixture
async def opened(world: World) -> AsyncIterator[tuple[Log, Store]]:
    """The log, with the three services' keys in it."""
    async with world.log() as both:
        yield both


@pytest.fixture
def log(opened: tuple[Log, Store]) -> Log:
    """The log."""
    return opened[0]


@pytest.fixture
def store(opened: tuple[Log, Store]) -> Store:
    """Its store."""
    return opened[1]


def reasons(verdicts: list[Refusal | None]) -> list[str | None]:
    """The reasons of refusals."""
    return [None if verdict is None else verdict.reason for verdict in verdicts]


async def test_the_services_keys_come_first_and_once(world: World, log: Log) -> None:
    assert log.head.size == 3
    first = await log.find(announcement_id(service_key("audit").id))
    assert first is not None
    assert first.index == 0
    async with world.log() as (again, _):
        assert again.head == log.head


async def test_a_new_key_is_announced_beside_the_old_one(world: World) -> None:
    async with world.log() as (log, _):
        event = world.event()
        await log.ingest([world.services["detection"].sign(event)])
    world.keys.append(service_key("fusion"))
    world.intake = type(world.intake)(world.keys, world.clock)
    async with world.log() as (log, store):
        assert log.head.size == 5
        newest = (await store.after("", start=0, limit=10))[-1]
        plain = await world.keyring.decrypt("platform", newest.sealed, newest.id.encode())
        assert open_announcement(plain[32:]) == service_key("fusion")
        assert verify_receipt(await world.receipt(log, event), world.verifier_key) == event


async def test_the_good_of_a_batch_go_on_without_the_bad(world: World, log: Log) -> None:
    good = [world.signed(), world.signed("auth")]
    verdicts = await log.ingest([good[0], b"\xff", good[1], world.signed(id="x")])
    assert reasons(verdicts) == [None, "EVENT_MALFORMED", None, "EVENT_ID_INVALID"]
    assert log.head.size == 5


async def test_a_batch_of_bad_ones_changes_nothing(log: Log) -> None:
    before = log.checkpoint
    assert reasons(await log.ingest([b"\xff"])) == ["EVENT_MALFORMED"]
    assert await log.ingest([]) == []
    assert log.checkpoint == before


async def test_a_repeat_is_acknowledged_and_logged_once(world: World, log: Log) -> None:
    data = world.signed()
    assert await log.ingest([data, data]) == [None, None]
    assert await log.ingest([data]) == [None]
    assert log.head.size == 4
    async with world.log() as (again, _):
        assert await again.ingest([data]) == [None]
        assert again.head.size == 4


async def test_an_id_stands_for_one_event(world: World, log: Log) -> None:
    event = world.event()
    first = world.services["detection"].sign(event)
    event.code = "INTERNAL"
    second = world.services["detection"].sign(event)
    assert reasons(await log.ingest([first, second])) == [None, "EVENT_ID_REUSED"]
    assert reasons(await log.ingest([second, first])) == ["EVENT_ID_REUSED", None]
    assert log.head.size == 4
    stored = await log.find(event.id)
    assert stored is not None
    assert (await world.keyring.decrypt("acme", stored.sealed, event.id.encode()))[32:] == first


async def test_batches_at_the_same_time(world: World, log: Log) -> None:
    batches = [[world.signed() for _ in range(20)] for _ in range(10)]
    await asyncio.gather(*(log.ingest(batch) for batch in [*batches, *batches]))
    assert log.head.size == 203


async def test_each_checkpoint_continues_the_one_before(world: World, log: Log) -> None:
    notes = [log.checkpoint]
    for number in (1, 2, 250, 3, 300):
        await log.ingest([world.signed() for _ in range(number)])
        notes.append(log.checkpoint)
    checkpoints = [open_checkpoint(note, world.verifier_key) for note in notes]
    assert [one.size for one in checkpoints] == [3, 4, 6, 256, 259, 559]
    for old, new in itertools.combinations(checkpoints, 2):
        verify_growth(old, new, await log.consistency(old.size, new.size))


async def test_the_checkpoint_is_the_same_after_a_restart(world: World, log: Log) -> None:
    await log.ingest([world.signed()])
    async with world.log() as (again, _):
        assert again.checkpoint == log.checkpoint
        assert again.verifier_key == world.verifier_key


@pytest.mark.parametrize(("old", "new"), [(0, 3), (-1, 3), (3, 2), (1, 4), (4, 4)])
async def test_consistency_of_sizes_that_never_were(log: Log, old: int, new: int) -> None:
    with pytest.raises(InvalidArgument) as error:
        await log.consistency(old, new)
    assert error.value.reason == "SIZE_OUT_OF_RANGE"


async def test_a_receipt_can_be_waited_for(world: World, log: Log) -> None:
    event = world.event()
    receipts = Receipts(log, world.keyring)
    waiting = [asyncio.create_task(receipts.get("acme", event.id, wait_s=90)) for _ in range(2)]
    await log.ingest([world.signed()])
    assert not any(task.done() for task in waiting)
    await log.ingest([world.services["detection"].sign(event)])
    async with asyncio.timeout(60):
        first, second = await asyncio.gather(*waiting)
    assert first.event.opened == second.event.opened
    assert not log._arrivals


async def test_a_wait_ends(world: World, log: Log) -> None:
    receipts = Receipts(log, world.keyring)
    for wait_s in (0.0, 0.01):
        with pytest.raises(NotFound) as error:
            await receipts.get("acme", "0" * 32, wait_s=wait_s)
        assert error.value.reason == "RECEIPT_NOT_FOUND"


async def test_a_receipt_is_its_tenants_only(world: World, log: Log) -> None:
    event = world.event()
    await log.ingest([world.services["detection"].sign(event)])
    receipts = Receipts(log, world.keyring)
    with pytest.raises(NotFound) as missing:
        await receipts.get("globex", "0" * 32, wait_s=0)
    with pytest.raises(NotFound) as foreign:
        await receipts.get("globex", event.id, wait_s=0)
    assert (missing.value.reason, missing.value.message) == (foreign.value.reason, foreign.value.message)


async def test_a_destroyed_key_takes_the_events_and_leaves_the_log(world: World, log: Log, store: Store) -> None:
    event, other = world.event(), world.event(tenant="tenants/globex")
    await log.ingest([world.services["detection"].sign(one) for one in (event, other)])
    size = log.head.size
    await world.keyring.destroy("acme")
    with pytest.raises(NotFound) as gone:
        await world.receipt(log, event)
    assert gone.value.reason == "DATA_DESTROYED"
    assert ids(await History(store, world.keyring).page(None, wanted=ALL, size=10, token=""))[0] == other.id
    assert verify_receipt(await world.receipt(log, other), world.verifier_key) == other
    assert log.head.size == size


async def test_an_event_without_an_announced_key_is_our_fault(world: World, log: Log) -> None:
    event = world.event("fusion")
    signed = SignedEvent(event=event.SerializeToString(), key_id="fusion/0123456789abcdef").SerializeToString()
    await log._append([logged_event(signed)])
    with pytest.raises(Internal) as error:
        await world.receipt(log, event)
    assert error.value.reason == "LOG_CORRUPT"


def ids(page: Page) -> list[str]:
    """The ids of a page's events."""
    return [parse(past.opened.signed_event)[1].id for past in page.events]


async def test_pages_are_newest_first_and_whole(world: World, log: Log, store: Store) -> None:
    events = [world.event(tenant=f"tenants/{'acme' if n % 3 else 'globex'}") for n in range(20)]
    await log.ingest([world.services["detection"].sign(event) for event in events])
    history = History(store, world.keyring)
    wanted = [event.id for event in reversed(events) if event.tenant == "tenants/acme"]
    for size in (1, 4, 13, 100):
        seen: list[str] = []
        token = ""
        while True:
            page = await history.page("acme", wanted=ALL, size=size, token=token)
            assert len(page.events) <= size
            seen += ids(page)
            token = page.next_token
            if not token:
                break
        assert seen == wanted
    everything = await history.page(None, wanted=ALL, size=0, token="")
    assert len(everything.events) == 23
    assert [past.index for past in everything.events] == list(range(22, -1, -1))


async def test_what_comes_meanwhile_does_not_shift_pages(world: World, log: Log, store: Store) -> None:
    events = [world.event() for _ in range(4)]
    await log.ingest([world.services["detection"].sign(event) for event in events])
    history = History(store, world.keyring)
    first = await history.page("acme", wanted=ALL, size=2, token="")
    await log.ingest([world.signed() for _ in range(5)])
    second = await history.page("acme", wanted=ALL, size=2, token=first.next_token)
    assert ids(first) + ids(second) == [event.id for event in reversed(events)]
    assert second.next_token == ""


async def test_a_page_token_is_for_its_own_list(world: World, log: Log, store: Store) -> None:
    await log.ingest([world.signed(tenant=f"tenants/{tenant}") for tenant in ("acme", "globex") for _ in range(3)])
    history = History(store, world.keyring)
    token = (await history.page("acme", wanted=ALL, size=1, token="")).next_token
    changed = ("B" if token[5] == "A" else "A").join((token[:5], token[6:]))
    for tenant, wrong in (
        ("globex", token), (None, token), ("acme", token[:-4]), ("acme", changed), ("acme", "?"), ("acme", "ä"),
        ("acme", "AAAA"),
    ):  # fmt: skip
        with pytest.raises(InvalidArgument) as error:
            await history.page(tenant, wanted=ALL, size=1, token=wrong)
        assert error.value.reason == "PAGE_TOKEN_INVALID"


class Broken:
    """The keyring while the sidecar is down."""

    async def encrypt(self, tenant: str, plaintext: bytes, aad: bytes = b"") -> bytes:
        """Fails."""
        raise Unavailable("The state store is down.")

    async def decrypt(self, tenant: str, sealed: bytes, aad: bytes = b"") -> bytes:
        """Fails."""
        raise Unavailable("The state store is down.")


async def test_nothing_is_acknowledged_that_cannot_be_encrypted(world: World, log: Log, store: Store) -> None:
    broken = await Log.open(store, Broken(), LogSigner("log.test/audit", seed("log")), world.intake)
    with pytest.raises(Unavailable):
        await broken.ingest([world.signed()])
    assert (await store.head()).size == log.head.size == 3


async def test_nothing_of_an_event_stands_in_the_file(tmp_path: Path) -> None:
    """What is personal in an event can only be read with its tenant's key."""
    world = World(tmp_path / "audit.db")
    event = world.event(source_address="203.0.113.77", resource="tenants/acme/models/secret-project")
    async with world.log() as (log, _):
        await log.ingest([world.services["detection"].sign(event)])
    content = b"".join(path.read_bytes() for path in world.path.parent.iterdir())
    assert event.id.encode() in content
    for text in (b"203.0.113.77", b"secret-project", event.input_hashes[0], event.content_salt):
        assert text not in content


class Slow:
    """The store, each of whose appends waits until it may go on."""

    def __init__(self, store: Store) -> None:
        """Counts the appends."""
        self._store = store
        self.batches: list[int] = []
        self.gate = asyncio.Event()
        self.broken = False

    def __getattr__(self, name: str) -> Any:
        """All else is the store's."""
        return getattr(self._store, name)

    async def append(self, rows: Sequence[Row]) -> Appended:
        """Waits, then appends."""
        self.batches.append(len(rows))
        await self.gate.wait()
        if self.broken:
            raise Unavailable("The store is down.")
        return await self._store.append(rows)


async def test_what_comes_during_a_commit_shares_the_next(world: World, store: Store) -> None:
    slow = Slow(store)
    log = await Log.open(slow, world.keyring, world.signer, world.intake)  # type: ignore[arg-type]
    twice, clash = world.signed(), world.event()
    sign = world.services["detection"].sign
    other = world.event(id=clash.id)
    given = [[world.signed()], [twice], [twice, world.signed()], [sign(clash)], [sign(other), world.signed()]]
    tasks = [asyncio.create_task(log.ingest(messages)) for messages in given]
    async with asyncio.timeout(60):
        while not slow.batches or len(log._waiting) < 4:
            await asyncio.sleep(0.01)
    slow.gate.set()
    verdicts = [reasons(await task) for task in tasks]
    assert len(slow.batches) == 2
    assert sum(slow.batches) == 7
    assert sorted(verdict or "" for one in verdicts for verdict in one) == [""] * 6 + ["EVENT_ID_REUSED"]
    assert log.head.size == 3 + 5


async def test_a_commit_that_fails_fails_for_all_who_share_it(world: World, store: Store) -> None:
    slow = Slow(store)
    slow.broken = True
    log = await Log.open(slow, world.keyring, world.signer, world.intake)  # type: ignore[arg-type]
    tasks = [asyncio.create_task(log.ingest([world.signed()])) for _ in range(4)]
    async with asyncio.timeout(60):
        while not slow.batches or len(log._waiting) < 3:
            await asyncio.sleep(0.01)
    slow.gate.set()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, Unavailable)
    slow.broken = False
    assert await log.ingest([world.signed()]) == [None]


async def test_one_who_is_cancelled_takes_nobody_along(world: World, store: Store) -> None:
    slow = Slow(store)
    log = await Log.open(slow, world.keyring, world.signer, world.intake)  # type: ignore[arg-type]
    first, second = (asyncio.create_task(log.ingest([world.signed()])) for _ in range(2))
    async with asyncio.timeout(60):
        while not slow.batches or not log._waiting:
            await asyncio.sleep(0.01)
    first.cancel()
    slow.gate.set()
    assert await second == [None]
    with pytest.raises(asyncio.CancelledError):
        await first
