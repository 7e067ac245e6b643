"""Operations: which change is allowed when, and to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from facetmesh.fusion.line import Priority, Ticket
from facetmesh.fusion.operations import (
    BACKOFF_S,
    LEASE_S,
    MAX_FAULTS,
    MAX_INTERRUPTIONS,
    Caller,
    Failure,
    Fusion,
    Job,
    Operation,
    Ref,
    Stage,
)
from facetmesh.fusion.store import DaprStore
from facetmesh.kit.errors import Aborted, InvalidArgument, Unavailable

if TYPE_CHECKING:
    from .conftest import MemoryState

NOW = 1_800_000_000.0
JOB = Job("aa", "bb", "tenants/acme/models/faces", 0, 1)
RESULT = Fusion((1, 2, 3, 4), (5, 6, 7, 8), "image/png", 9, "cc", "tenants/acme/receipts/r")


@pytest.fixture
def queued() -> Operation:
    """A job that nobody has."""
    return Operation("acme", Ref.new("acme", NOW).id, JOB, NOW, Caller("tenants/acme/keys/k"))


def test_ids_sort_by_time_and_know_it() -> None:
    ids = [Ref.new("acme", NOW + step) for step in (0, 0.001, 1, 1e6)]
    assert ids == sorted(ids)
    assert len({len(ref.id) for ref in ids}) == 1
    assert ids[1].created_s == pytest.approx(NOW + 0.001, abs=1e-3)
    assert Ref.new("acme", NOW) != Ref.new("acme", NOW)


def test_a_job_is_taken_by_one_until_its_lease_ends(queued: Operation) -> None:
    taken = queued.claim("w1", NOW)
    assert (taken.stage, taken.attempts, taken.owner) == (Stage.DETECTING, 1, "w1")
    with pytest.raises(Aborted):
        taken.claim("w2", NOW + LEASE_S - 0.1)
    again = taken.claim("w2", NOW + LEASE_S)
    assert (again.attempts, again.owner) == (2, "w2")
    for late in (
        lambda: again.advance(taken, NOW, Stage.FUSING), lambda: again.finish(taken, NOW, RESULT),
        lambda: again.release(taken, NOW, at_fault=True),
    ):
        with pytest.raises(Aborted) as refusal:
            late()
        assert refusal.value.reason == "LEASE_LOST"


def test_the_same_worker_does_not_mistake_an_earlier_attempt_for_its_own(queued: Operation) -> None:
    first = queued.claim("w1", NOW)
    second = first.claim("w1", NOW + LEASE_S)
    with pytest.raises(Aborted):
        second.finish(first, NOW + LEASE_S, RESULT)


def test_a_sign_of_life_prolongs_the_lease(queued: Operation) -> None:
    taken = queued.claim("w1", NOW)
    alive = taken.advance(taken, NOW + LEASE_S / 2)
    assert not alive.claimable(NOW + LEASE_S)
    assert alive.claimable(NOW + 1.5 * LEASE_S)


@pytest.mark.parametrize("at_fault", [True, False])
def test_a_failed_attempt_rests_longer_each_time(queued: Operation, *, at_fault: bool) -> None:
    now, operation = NOW, queued
    for rest in BACKOFF_S:
        taken = operation.claim("w1", now)
        operation = taken.release(taken, now, at_fault=at_fault)
        assert operation.stage is Stage.QUEUED
        assert not operation.claimable(now + rest - 0.1)
        now += rest
        assert operation.claimable(now)
    assert operation.attempts == len(BACKOFF_S) == MAX_FAULTS - 1 < MAX_INTERRUPTIONS
    taken = operation.claim("w1", now)
    assert taken.release(taken, now, at_fault=at_fault).until_s == now + BACKOFF_S[-1]


def test_what_is_not_the_jobs_own_doing_is_not_held_against_it(queued: Operation) -> None:
    died = queued.claim("w1", NOW)  # and was never seen again
    refused = died.claim("w2", NOW + LEASE_S)
    assert (refused.faults, refused.interruptions) == (0, 2)
    rested = refused.release(refused, NOW, at_fault=False)
    assert (rested.faults, rested.interruptions) == (0, 2)
    failed = rested.claim("w2", NOW + 60)
    rested = failed.release(failed, NOW, at_fault=True)
    assert (rested.attempts, rested.faults, rested.interruptions) == (3, 1, 2)


def test_the_end_is_the_end(queued: Operation) -> None:
    taken = queued.claim("w1", NOW)
    done = taken.finish(taken, NOW + 1, RESULT)
    assert done.done
    assert (done.percent, done.ended_s, done.result, done.failure) == (100, NOW + 1, RESULT, None)
    assert done.cancel(NOW + 2) == done
    assert not done.claimable(NOW + 1e9)
    with pytest.raises(Aborted):
        done.finish(taken, NOW, Unavailable("late"))


def test_cancelling_ends_at_once_what_is_not_being_stored(queued: Operation) -> None:
    taken = queued.claim("w1", NOW)
    for operation in (queued, taken, taken.advance(taken, NOW, Stage.FUSING)):
        cancelled = operation.cancel(NOW)
        assert cancelled.done
        assert cancelled.failure is not None
        assert cancelled.failure.code == "CANCELLED"
        with pytest.raises(Aborted):
            cancelled.advance(taken, NOW)


def test_what_is_being_stored_is_not_cancelled_unless_its_worker_dies(queued: Operation) -> None:
    taken = queued.claim("w1", NOW)
    storing = taken.advance(taken, NOW, Stage.STORING)
    asked = storing.cancel(NOW)
    assert not asked.done
    assert asked.cancelling
    assert asked.finish(taken, NOW, RESULT).result == RESULT
    assert asked.cancel(NOW + LEASE_S).done


def test_a_failure_is_the_error_that_it_was() -> None:
    error = InvalidArgument("No.", reason="NO_FACE", metadata={"image": "source"})
    again = Failure.of(error).error()
    assert isinstance(again, InvalidArgument)
    assert (again.message, again.reason, again.metadata) == ("No.", "NO_FACE", {"image": "source"})


@pytest.mark.parametrize("ending", ["queued", "rests", "done", "failed"])
async def test_a_stored_operation_is_what_it_was(state: MemoryState, queued: Operation, ending: str) -> None:
    store = DaprStore(state)  # type: ignore[arg-type]
    taken = queued.claim("w1", NOW)
    operation = {
        "queued": queued, "rests": taken.release(taken, NOW, at_fault=True), "done": taken.finish(taken, NOW, RESULT),
        "failed": taken.finish(taken, NOW, InvalidArgument("No.", reason="NO_FACE")),
    }[ending]
    assert await store.create(operation)
    assert not await store.create(operation)
    found = await store.get(operation.ref)
    assert found is not None
    assert found.etag
    assert {**_fields(found), "etag": ""} == _fields(operation)


async def test_the_store_refuses_a_write_over_anothers(state: MemoryState, queued: Operation) -> None:
    store = DaprStore(state)  # type: ignore[arg-type]
    await store.create(queued)
    one, other = await store.get(queued.ref), await store.get(queued.ref)
    assert one is not None
    assert other is not None
    await store.save(one.claim("w1", NOW))
    with pytest.raises(Aborted):
        await store.save(other.claim("w2", NOW))


async def test_a_request_is_one_operation_in_its_tenant(state: MemoryState) -> None:
    store = DaprStore(state)  # type: ignore[arg-type]
    assert await store.reserve("acme", "r1", "a") == "a"
    assert await store.reserve("acme", "r1", "b") == "a"
    assert await store.reserve("acme", "r2", "b") == "b"
    assert await store.reserve("globex", "r1", "c") == "c"


async def test_work_is_listed_until_it_is_forgotten(state: MemoryState) -> None:
    store = DaprStore(state)  # type: ignore[arg-type]
    places = (("acme", Priority.VIP), ("globex", Priority.STANDARD), ("acme", Priority.BATCH))
    tickets = [Ticket(Ref.new(tenant, NOW), priority) for tenant, priority in places]
    for ticket in tickets:
        await store.announce(ticket)
    assert sorted(await store.announced()) == sorted(tickets)
    await store.forget(tickets[0].ref)
    assert sorted(await store.announced()) == sorted(tickets[1:])


def _fields(operation: Operation) -> dict[str, object]:
    return {name: getattr(operation, name) for name in Operation.__dataclass_fields__}
