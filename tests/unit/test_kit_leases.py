"""Limits as replicas enforce them, over auth's real budgets and a clock that tests set."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from facetmesh.auth.keys import KeySpec
from facetmesh.auth.plans import Limits
from facetmesh.kit.budgets import Bucket
from facetmesh.kit.errors import FacetmeshError, ResourceExhausted, Unavailable
from facetmesh.kit.profiles import Profile

from .limits_world import ACME, LimitsWorld

if TYPE_CHECKING:
    from facetmesh.kit.budgets import Lease, Report
    from facetmesh.kit.leases import Leases

KEY = f"{ACME}/keys/k1"
TICK_S = 0.01
_RENEW_TICKS = 50


@pytest.fixture
def world() -> LimitsWorld:
    return LimitsWorld()


async def entered(leases: Leases, subject: str = KEY) -> None:
    """Lets the accounts of a call be known."""
    await leases.introduce(ACME, subject)


def admitted(leases: Leases, calls: int, *, infers: bool = False, subject: str = KEY) -> int:
    """How many of these calls are let in."""
    count = 0
    for _ in range(calls):
        try:
            leases.admit(ACME, subject, infers=infers)
        except ResourceExhausted:
            continue
        count += 1
    return count


async def flood(world: LimitsWorld, loads: list[tuple[Leases, int]], seconds: float) -> int:
    """How many calls replicas let in together that get so many a tick, with renewals as `keep` makes them."""
    total = 0
    for tick in range(int(seconds / TICK_S)):
        world.clock.now += TICK_S
        for number, (leases, calls) in enumerate(loads):
            got = admitted(leases, calls)
            total += got
            refused = got < calls and leases._clock() - leases._reported_at >= 0.2
            if refused or (tick + 7 * number) % _RENEW_TICKS == 0:
                await leases._report()
    return total


async def test_one_replica_admits_the_limit(world: LimitsWorld) -> None:
    await world.tenant(Limits(requests_per_s=100))
    leases, _ = world.replica()
    await entered(leases)
    assert await flood(world, [(leases, 5)], 20) == pytest.approx(2000, rel=0.1)


@pytest.mark.parametrize("rate", [20, 100])
async def test_two_replicas_together_admit_the_limit_while_the_load_moves(world: LimitsWorld, rate: int) -> None:
    await world.tenant(Limits(requests_per_s=rate))
    (one, _), (other, _) = world.replica(), world.replica()
    await entered(one)
    await entered(other)
    heavy, light = max(1, rate // 50), 1
    total = 0
    for loads in ([(one, heavy), (other, heavy)], [(one, heavy), (other, 0)], [(one, light), (other, heavy)],
                  [(one, 0), (other, heavy)]):  # fmt: skip
        total += await flood(world, loads, 10)
    assert total == pytest.approx(40 * rate, rel=0.1)


async def test_refusals_say_when_to_come_again_and_the_rate_is_smooth(world: LimitsWorld) -> None:
    await world.tenant(Limits(requests_per_s=10))
    leases, _ = world.replica()
    await entered(leases)
    admitted(leases, 100)
    await leases._report()
    with pytest.raises(ResourceExhausted) as refused:
        leases.admit(ACME, KEY, infers=False)
    assert refused.value.reason == "RATE_LIMITED"
    wait_s = refused.value.retry_after_s
    assert wait_s is not None
    assert 0 < wait_s <= 0.11
    world.clock.now += wait_s + 1e-6
    leases.admit(ACME, KEY, infers=False)


async def test_a_limit_of_its_own_holds_for_a_key(world: LimitsWorld) -> None:
    await world.tenant(Limits(requests_per_s=1000))
    key, _ = await world.auth.keys.create("acme", KeySpec(limits=Limits(requests_per_s=10)))
    leases, _ = world.replica()
    await entered(leases, key.name)
    await entered(leases)
    assert admitted(leases, 50, subject=key.name) < 10
    assert admitted(leases, 50) == 50
    with pytest.raises(ResourceExhausted) as refused:
        leases.admit(ACME, key.name, infers=False)
    assert refused.value.metadata == {"account": key.name}


async def test_calls_in_progress(world: LimitsWorld) -> None:
    await world.tenant(Limits(concurrency=3))
    leases, _ = world.replica()
    await entered(leases)
    leaves = [leases.enter(ACME, KEY)]
    while len(leaves) < 3:
        try:
            leaves.append(leases.enter(ACME, KEY))
        except ResourceExhausted:
            await leases._report()  # what was wanted is told, and granted
    with pytest.raises(ResourceExhausted) as refused:
        leases.enter(ACME, KEY)
    assert refused.value.reason == "CONCURRENCY_LIMITED"
    assert refused.value.retry_after_s is not None
    leaves.pop()()
    leases.enter(ACME, KEY)


@pytest.mark.parametrize(
    ("limits", "work", "reason"),
    [
        (Limits(images_per_day=10), {"images": 1}, "IMAGES_EXHAUSTED"),
        (Limits(compute_seconds_per_day=10), {"compute_s": 1.0}, "COMPUTE_EXHAUSTED"),
    ],
)  # fmt: skip
async def test_the_days_limits(world: LimitsWorld, limits: Limits, work: dict[str, Any], reason: str) -> None:
    await world.tenant(limits)
    world.clock.now = 1_800_000_000.0 // 86_400 * 86_400 + 3600
    (one, _), (other, _) = world.replica(), world.replica()
    await entered(one)
    await entered(other)
    done = 0
    for _ in range(60):
        for leases in (one, other):
            world.clock.now += 0.3
            if admitted(leases, 1, infers=True):
                leases.charge(ACME, KEY, model=f"{ACME}/models/m", **work)
                done += 1
            await leases._report()
    assert done == pytest.approx(10, rel=0.1)
    with pytest.raises(ResourceExhausted) as refused:
        one.admit(ACME, KEY, infers=True)
    assert refused.value.reason == reason
    wait_s = refused.value.retry_after_s
    assert wait_s is not None
    assert wait_s == pytest.approx(86_400 - world.clock.now % 86_400)
    assert admitted(one, 5) == 5  # what works with no model goes on
    world.restart()  # auth's counters outlive it,
    third, _ = world.replica()
    await entered(third)
    assert admitted(third, 5, infers=True) == 0  # and all replicas
    world.clock.now += wait_s
    for leases in (one, third):
        await leases._report()
        assert admitted(leases, 1, infers=True) == 1


async def test_a_new_day_begins_without_auth(world: LimitsWorld) -> None:
    await world.tenant(Limits(images_per_day=4))
    leases, source = world.replica()
    await entered(leases)
    for _ in range(20):
        if admitted(leases, 1, infers=True):
            leases.charge(ACME, KEY, images=1)
        await leases._report()
    assert admitted(leases, 1, infers=True) == 0
    source.away = True
    world.clock.now += 86_400
    assert admitted(leases, 1, infers=True) == 1


async def test_without_auth_the_last_lease_goes_on_and_unknown_accounts_get_little(world: LimitsWorld) -> None:
    await world.tenant(Limits(requests_per_s=100))
    await world.tenant(Limits(requests_per_s=100), "globex")
    leases, source = world.replica()
    await entered(leases)
    await flood(world, [(leases, 5)], 3)
    source.away = True
    total = 0
    for _ in range(1000):
        world.clock.now += TICK_S
        total += admitted(leases, 5)
    assert total == pytest.approx(1000, rel=0.1)
    await leases.introduce("tenants/globex", "tenants/globex/keys/k1")
    count = 0
    for _ in range(1000):
        world.clock.now += TICK_S
        try:
            leases.admit("tenants/globex", "tenants/globex/keys/k1", infers=False)
        except ResourceExhausted:
            continue
        count += 1
    assert count == pytest.approx(50, abs=5)  # 5 a second
    assert leases.profile("tenants/globex") == Profile()
    source.away = False
    await leases._report()
    assert leases.profile("tenants/globex").plan == "dedicated"


async def test_a_report_that_comes_again_counts_once(world: LimitsWorld) -> None:
    await world.tenant(Limits(images_per_day=100))
    leases, source = world.replica()
    await entered(leases)
    leases.charge(ACME, KEY, model=f"{ACME}/models/m", images=7, compute_s=1.5)
    source.lose_answers = 2
    for _ in range(2):
        with pytest.raises(Unavailable):
            await leases._report()
    leases.charge(ACME, KEY, model=f"{ACME}/models/m", images=1)
    await leases._report()
    used = (await world.metering.now("acme")).tenant.used
    assert used.images_per_day == 8
    assert len({report.number for report in source.reports}) < len(source.reports)
    records = await world.metering.between("acme", None, None, daily=True)
    assert {one.model: one.counts.images for one in records} == {f"{ACME}/models/m": 8}


async def test_what_was_used_before_a_silence_is_shown_in_it(world: LimitsWorld) -> None:
    await world.tenant(Limits())
    leases, _ = world.replica()
    await entered(leases)
    leases.charge(ACME, KEY, model=f"{ACME}/models/m", images=3)
    await leases._report()
    for _ in range(2):
        used = await world.metering.between("acme", None, None, daily=False)
        assert [one.counts.images for one in used if one.model] == [3]
        world.clock.now += 3600  # nobody calls any more


async def test_usage_by_hour_and_day_survives(world: LimitsWorld) -> None:
    await world.tenant(Limits())
    leases, _ = world.replica()
    world.clock.now = 1_800_000_000.0 // 86_400 * 86_400 + 1800
    start = world.clock.now - 1800
    await entered(leases)
    for hour in range(30):
        world.clock.now = start + 3600 * hour + 1800
        leases.admit(ACME, KEY, infers=True)
        leases.charge(ACME, KEY, model=f"{ACME}/models/m{hour % 2}", images=2, compute_s=0.5)
        await leases._report()
        if hour == 10:
            await leases.hold(ACME, stored_bytes=1000, models=2)
    world.restart()
    hourly = await world.metering.between("acme", start, world.clock.now, daily=False)
    assert len({one.start_s for one in hourly}) == 30
    whole = {one.start_s: one.counts for one in hourly if not one.model}
    assert [counts.calls for counts in whole.values()] == [1] * 30
    assert [counts.stored_bytes for counts in whole.values()][9:12] == [0, 1000, 1000]
    daily = await world.metering.between("acme", start, world.clock.now, daily=True)
    assert {(one.start_s - start, one.model): one.counts.images for one in daily if one.model} == {
        (0, f"{ACME}/models/m0"): 24, (0, f"{ACME}/models/m1"): 24,
        (86_400, f"{ACME}/models/m0"): 6, (86_400, f"{ACME}/models/m1"): 6,
    }  # fmt: skip


async def test_what_may_be_held(world: LimitsWorld) -> None:
    await world.tenant(Limits(stored_bytes=100, models=3))
    (detection, _), (fusion, _) = world.replica(), world.replica("fusion")
    await detection.hold(ACME, stored_bytes=60, models=3)
    await fusion.hold(ACME, stored_bytes=40, models=0)
    with pytest.raises(ResourceExhausted) as refused:
        await fusion.hold(ACME, stored_bytes=41, models=0)
    assert refused.value.reason == "STORAGE_EXHAUSTED"
    with pytest.raises(ResourceExhausted) as refused:
        await detection.hold(ACME, stored_bytes=60, models=4)
    assert refused.value.reason == "MODELS_EXHAUSTED"
    await detection.hold(ACME, stored_bytes=10, models=1)
    await fusion.hold(ACME, stored_bytes=90, models=2)
    assert (await world.metering.now("acme")).tenant.used.models == 3


async def test_who_is_idle_gives_its_part_back(world: LimitsWorld) -> None:
    await world.tenant(Limits(requests_per_s=100))
    (one, _), (other, _) = world.replica(), world.replica()
    await entered(one)
    await entered(other)
    await flood(world, [(one, 2), (other, 0)], 12)
    await other._report()
    assert not other.known(ACME, KEY)
    ledger = await world.budgets._store.ledger("acme")
    assert len(ledger.accounts[ACME].stakes) == 1


async def test_a_call_that_comes_while_its_account_leaves_is_no_reason_to_refuse_the_next(
    world: LimitsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.tenant(Limits(requests_per_s=100))
    leases, source = world.replica()
    await entered(leases)
    world.clock.now += 11
    ask = source.lease

    async def called_meanwhile(report: Report) -> Lease:
        lease = await ask(report)
        assert admitted(leases, 1) == 1
        return lease

    with monkeypatch.context() as patched:
        patched.setattr(source, "lease", called_meanwhile)
        await leases._report()
    assert source.reports[-1].demands[0].leaving
    assert admitted(leases, 3) == 3
    assert leases._wanted.is_set()  # auth hears of it soon
    await leases._report()
    assert (await world.budgets._store.ledger("acme")).accounts[ACME].stakes.keys() == {leases._replica}


async def test_settings_that_are_asked_for_during_a_first_call_do_not_refuse_it(
    world: LimitsWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.tenant(Limits(requests_per_s=100))
    leases, source = world.replica()
    ask, calls = source.lease, []

    async def called_meanwhile(report: Report) -> Lease:
        lease = await ask(report)
        if not calls:
            calls.append(asyncio.create_task(entered(leases)))
            await asyncio.sleep(0)  # it waits for its turn
        return lease

    monkeypatch.setattr(source, "lease", called_meanwhile)
    assert await leases.current(ACME)
    await calls[0]
    assert leases.known(ACME, KEY)
    assert admitted(leases, 3) == 3


async def test_first_calls_at_once_are_introduced_once(world: LimitsWorld) -> None:
    await world.tenant(Limits(requests_per_s=100))
    leases, source = world.replica()
    await asyncio.gather(*(leases.introduce(ACME, KEY) for _ in range(20)))
    assert len(source.reports) == 1
    assert leases.profile(ACME).plan == "dedicated"


async def test_policies_come_with_the_leases(world: LimitsWorld) -> None:
    leases, _ = world.replica()
    with pytest.raises(Unavailable):
        await leases.ready()
    for number in range(120):
        owner = f"tenants/t{number}x"
        policy = await world.policies.create(owner, '@id("a") permit (principal, action, resource);', "")
        await world.policies.activate(owner, policy.version)
    await leases._report()
    await leases.ready()
    assert leases._policies.active("tenants/t0x") == "tenants/t0x/policies/1"
    assert leases._policies.active("tenants/t119x") == "tenants/t119x/policies/1"
    await world.policies.activate("tenants/t7x", "default")
    await leases._report()
    assert leases._policies.active("tenants/t7x") == ""


async def test_keep_goes_on_when_auth_comes_back(world: LimitsWorld) -> None:
    leases, source = world.replica()
    source.away = True
    keeping = asyncio.create_task(leases.keep())
    try:
        await asyncio.sleep(0.05)
        with pytest.raises(FacetmeshError):
            await leases.ready()
        source.away = False
        async with asyncio.timeout(60):
            while not leases._introduced:
                await asyncio.sleep(0.02)
    finally:
        keeping.cancel()


def test_a_bucket_is_smooth() -> None:
    bucket, now, taken = Bucket(10, 0.0), 0.0, []
    for _ in range(1000):
        now += 0.01
        if not bucket.take(now):
            taken.append(now)
    later = [b - a for a, b in itertools.pairwise(taken[10:])]
    assert max(later) <= 0.12
    assert len(taken) == pytest.approx(100 + 5, abs=2)


def test_a_few_calls_may_come_at_once_however_low_the_rate() -> None:
    """An upload is two: under a limit of 5 a second, of which a replica had half, the second was refused each time."""
    for rate, then in ((0, float("inf")), (2, 0.5)):
        bucket = Bucket(rate, 0.0)
        assert [bucket.take(1) for _ in range(5)] == [0, 0, 0, 0, then]


def test_a_clock_that_goes_back_does_no_harm() -> None:
    bucket = Bucket(10, 100.0)
    for _ in range(5):
        bucket.take(100)
    assert bucket.take(50) > 0
    assert bucket.take(50.2) == 0


async def test_what_cannot_be_taken_back_asks_for_the_settings_as_they_are(world: LimitsWorld) -> None:
    await world.tenant(Limits(requests_per_s=100))
    leases, source = world.replica()
    (other, _) = world.replica()
    await entered(other)
    found = await leases.current(ACME)
    assert found is not None
    assert (found.plan, found.result_days) == ("dedicated", 0)
    assert not leases.known(ACME, ACME)  # it took nothing of the limits
    assert (await world.budgets._store.ledger("acme")).accounts[ACME].stakes.keys() == {other._replica}
    await world.auth.tenants.update("acme", lambda tenant: replace(tenant, result_days=7), "")
    found = await leases.current(ACME)
    assert found is not None
    assert found.result_days == 7
    await entered(leases)  # and where calls come in, too
    found = await leases.current(ACME)
    assert found is not None
    assert found.result_days == leases.profile(ACME).result_days == 7
    assert await leases.current("tenants/nobody") is None
    source.away = True
    with pytest.raises(Unavailable):
        await leases.current(ACME)


async def test_settings_are_asked_for_after_a_report_that_was_lost(world: LimitsWorld) -> None:
    await world.tenant(Limits(requests_per_s=100))
    leases, source = world.replica()
    source.lose_answers = 1
    with pytest.raises(Unavailable):
        await leases.current(ACME)
    found = await leases.current(ACME)
    assert found is not None
    assert found.plan == "dedicated"
