"""The scheduler, over runners that do as they are told."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facetmesh.detection import priorities
from facetmesh.detection.scheduler import Scheduler, SchedulerLimits, Served
from facetmesh.kit import errors
from facetmesh.runners.tasks import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEADLINE_S = 30.0


@dataclass
class Runners:
    """Runs nothing: answers with what came, when the test says so."""

    cold: set[tuple[str, str]] = field(default_factory=set)
    loads: bool = False
    """Whether a process has to load something that a call needs beside its model."""
    running: dict[int, tuple[str, Mapping[str, Any], asyncio.Event]] = field(default_factory=dict)
    most: int = 0
    began: list[str] = field(default_factory=list)
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    fails: bool = False
    paused: set[str] = field(default_factory=set)
    resting: dict[str, float] = field(default_factory=dict)

    async def call(
        self, *, domain: str, task: str, arguments: Mapping[str, Any], blobs: Sequence[bytes] = (), subject: str,
        timeout_s: float,
    ) -> Reply:
        """Waits for its release, then echoes."""
        del task, timeout_s
        number, release = next(self.numbers), asyncio.Event()
        self.running[number] = (domain, arguments, release)
        self.began.append(domain)
        at_work = [arguments["cores"] for domain, arguments, _ in self.running.values() if domain not in self.paused]
        self.most = max(self.most, sum(at_work))
        try:
            await release.wait()
        finally:
            del self.running[number]
        if self.fails:
            raise errors.Unavailable("It died.", reason="RUNNER_DIED")
        self.cold.discard((domain, subject))
        return Reply({**arguments, "domain": domain}, list(blobs), {"load": 1.0} if self.loads else {})

    def rests_s(self, domain: str) -> float:
        """As the test says."""
        return max(0.0, self.resting.get(domain, 0.0) - time.monotonic())

    def warm(self, domain: str, subject: str) -> bool:
        """Whether the test did not say that it is cold."""
        return (domain, subject) not in self.cold

    def pause(self, domain: str) -> None:
        """Is remembered."""
        assert domain not in self.paused
        self.paused.add(domain)

    def resume(self, domain: str) -> None:
        """Is remembered."""
        self.paused.remove(domain)

    async def release(self, count: int = 1) -> None:
        """Lets the oldest end that does not stand still, one after the other."""
        for _ in range(count):
            number = min(number for number, (domain, _, _) in self.running.items() if domain not in self.paused)
            self.running[number][2].set()
            while number in self.running:
                await asyncio.sleep(0)
            await settled()


async def settled() -> None:
    """Lets everything go on that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def counted() -> None:
    """Lets what ran be counted: that is done a moment after it was answered."""
    await asyncio.sleep(0.01)


class World:
    """A scheduler, its runners and a clock."""

    def __init__(self, slots: int = 2, queue: int = 8, weights: dict[str, float] | None = None) -> None:
        self.now = 0.0
        self.patience = math.inf
        self.runners = Runners()
        self.queued: list[float] = []
        self.served: list[Served] = []
        self.scheduler = Scheduler(
            self.runners,
            SchedulerLimits(slots, queue=queue),
            weight=lambda tenant: (weights or {}).get(tenant, 1.0),
            queued=self.queued.append,
            served=self.served.append,
            patience=lambda: self.patience,
            clock=lambda: self.now,
        )

    def ask(
        self, tenant: str = "acme", *, timeout_s: float = DEADLINE_S, number: int = 0, subject: str = "m",
        priority: int = 0, blobs: Sequence[bytes] = (),
    ) -> asyncio.Task[Reply]:
        """A call in the background."""
        with priorities.at(priority):
            return asyncio.create_task(self.scheduler.call(
                domain=tenant, task="detect", arguments={"number": number}, blobs=blobs, subject=subject,
                timeout_s=timeout_s,
            ))  # fmt: skip

    async def teach(self, tenant: str, seconds: float, subject: str = "m") -> None:
        """Has one request of the tenant take so long."""
        asked = self.ask(tenant, subject=subject)
        await settled()
        self.now += seconds / next(iter(self.runners.running.values()))[1]["cores"]
        await self.runners.release()
        await asked


async def test_no_more_run_than_there_are_slots() -> None:
    """However many ask."""
    world = World(slots=3)
    asked = [world.ask(f"tenant-{index % 5}", number=index) for index in range(20)]
    await settled()
    while world.runners.running:
        await world.runners.release()
    assert [reply.values["number"] for reply in await asyncio.gather(*asked)] == list(range(20))
    assert world.runners.most == 3


async def test_one_alone_gets_all_the_slots_and_two_get_one_each() -> None:
    """What is best for one is not best for many."""
    world = World(slots=2)
    alone = world.ask()
    await settled()
    await world.runners.release()
    assert (await alone).values["cores"] == 2
    first, second, third = (world.ask(number=number) for number in range(3))
    await settled()
    await world.runners.release()
    assert len(world.runners.running) == 2
    await world.runners.release(2)
    assert [reply.values["cores"] for reply in await asyncio.gather(first, second, third)] == [2, 1, 1]


async def test_what_takes_long_leaves_slots_to_others() -> None:
    """A slow model does not get them all."""
    world = World(slots=4)
    await world.teach("acme", 10.0)
    slow = world.ask()
    await settled()
    other = world.ask("globex")
    await settled()
    assert len(world.runners.running) == 2
    await world.runners.release(2)
    await asyncio.gather(slow, other)


async def test_it_tells_whose_requests_wait() -> None:
    world = World(slots=1)
    asked = [world.ask("acme"), world.ask("globex")]
    await settled()
    assert [world.scheduler.queues(tenant) for tenant in ("acme", "globex", "initech")] == [False, True, False]
    for _ in asked:
        await world.runners.release()
    await asyncio.gather(*asked)


async def test_a_flood_takes_turns_with_the_others() -> None:
    """Each second turn is the quiet tenant's."""
    world = World(slots=1, queue=50)
    await world.teach("flood", 0.1)
    await world.teach("quiet", 0.1)
    flood = [world.ask("flood") for _ in range(40)]
    quiet = [world.ask("quiet") for _ in range(10)]
    await settled()
    world.runners.began.clear()
    for _ in range(20):
        world.now += 0.1
        await world.runners.release()
    assert Counter(world.runners.began)["quiet"] >= 9
    while world.runners.running:
        await world.runners.release()
    await asyncio.gather(*flood, *quiet)


async def test_weights_come_from_the_tenants_plans() -> None:
    """Three to one."""
    world = World(slots=1, queue=100, weights={"gold": 3.0})
    asked = [world.ask(tenant) for _ in range(60) for tenant in ("gold", "free")]
    await settled()
    world.runners.began.clear()
    for _ in range(40):
        world.now += 0.02
        await world.runners.release()
    count = Counter(world.runners.began)
    assert 2.4 <= count["gold"] / count["free"] <= 3.6
    for task in asked:
        task.cancel()
    while world.runners.running:
        await world.runners.release()


async def test_the_urgent_goes_first_among_its_tenants_own() -> None:
    """Whenever it came; who does not say is in the middle."""
    world = World(slots=1)
    asked = [world.ask(number=number, priority=priority) for number, priority in enumerate((0, 9, 0, 1, 5))]
    await settled()
    order = []
    while world.runners.running:
        order.append(next(iter(world.runners.running.values()))[1]["number"])
        await world.runners.release()
    await asyncio.gather(*asked)
    assert order == [0, 3, 2, 4, 1]


async def test_of_more_than_may_wait_the_least_urgent_is_refused() -> None:
    """The newest of those; one that is as urgent as any of them is refused itself."""
    world = World(slots=1, queue=3)
    running, *waiting = [world.ask(number=number, priority=priority) for number, priority in enumerate((5, 9, 9, 5))]
    await settled()
    urgent = world.ask(number=4, priority=1)
    with pytest.raises(errors.ResourceExhausted) as caught:
        await waiting[1]
    assert caught.value.reason == "QUEUE_FULL"
    assert caught.value.retry_after_s is not None
    with pytest.raises(errors.ResourceExhausted) as caught:
        await world.ask(priority=9)
    assert caught.value.reason == "QUEUE_FULL"
    assert world.scheduler.waiting() == 3
    while world.runners.running:
        await world.runners.release()
    done = await asyncio.gather(running, waiting[0], waiting[2], urgent)
    assert [reply.values["number"] for reply in done] == [0, 1, 3, 4]


async def test_what_cannot_be_done_in_time_takes_nobodys_place() -> None:
    """However urgent it is."""
    world = World(slots=1, queue=1)
    await world.teach("acme", 2.0)
    asked = [world.ask(priority=5), world.ask(priority=9)]
    await settled()
    with pytest.raises(errors.ResourceExhausted) as caught:
        await world.ask(priority=1, timeout_s=3.0)
    assert caught.value.reason == "DEADLINE_UNREACHABLE"
    while world.runners.running:
        await world.runners.release()
    await asyncio.gather(*asked)


async def test_one_more_than_may_wait_is_refused_with_when_to_come_back() -> None:
    """And at that time there is room."""
    world = World(slots=1, queue=4)
    await world.teach("acme", 2.0)
    asked = [world.ask() for _ in range(5)]
    await settled()
    with pytest.raises(errors.ResourceExhausted) as caught:
        await world.ask()
    assert caught.value.reason == "QUEUE_FULL"
    assert caught.value.retry_after_s == pytest.approx(5 * 2.0, rel=0.1)
    while caught.value.retry_after_s > world.now - 2.0 and world.runners.running:
        world.now += 2.0
        await world.runners.release()
    again = world.ask()
    await settled()
    await world.runners.release()
    await asyncio.gather(again, *asked)


async def test_a_full_queue_is_its_tenants_own() -> None:
    """Another's call is taken."""
    world = World(slots=1, queue=1)
    asked = [world.ask(), world.ask()]
    await settled()
    other = world.ask("globex")
    await settled()
    await world.runners.release(3)
    await asyncio.gather(other, *asked)


async def test_what_cannot_be_in_time_is_refused_before_it_costs_anything() -> None:
    """With when it could be."""
    world = World(slots=1)
    await world.teach("acme", 1.0)
    asked = [world.ask(), world.ask()]
    await settled()
    with pytest.raises(errors.ResourceExhausted) as caught:
        await world.ask(timeout_s=1.5)
    assert caught.value.reason == "DEADLINE_UNREACHABLE"
    assert caught.value.retry_after_s == pytest.approx(2.0, rel=0.1)
    assert len(world.runners.began) == 2
    await world.runners.release(2)
    await asyncio.gather(*asked)


async def test_an_estimate_alone_refuses_nobody() -> None:
    """On an idle machine it is tried, or a first slow answer would shut a model out for ever."""
    world = World(slots=1)
    await world.teach("acme", 100.0)
    asked = world.ask(timeout_s=1.0)
    await settled()
    await world.runners.release()
    await asked


async def test_on_a_busy_machine_it_refuses_nobody_for_ever() -> None:
    """What is never run is never measured again: one image may have been so much larger than those that came after."""
    world = World(slots=1)
    await world.teach("acme", 2.0)
    busy = world.ask("other", number=1)
    refused = 0
    while True:
        asked = world.ask(timeout_s=1.0)
        await settled()
        if not asked.done():
            break
        with pytest.raises(errors.ResourceExhausted):
            await asked
        refused += 1
    assert 5 < refused < 20
    await world.runners.release(2)
    await asyncio.gather(busy, asked)


async def test_what_a_load_takes_is_not_what_a_call_costs() -> None:
    """The process says that it had to load something, though its model has answered before."""
    world = World(slots=1)
    await world.teach("acme", 0.01)
    world.runners.loads = True
    await world.teach("acme", 5.0)
    await counted()
    assert [one.cold for one in world.served] == [False, True]
    busy = world.ask()
    waits = world.ask(timeout_s=0.5)
    await settled()
    await world.runners.release(2)
    await asyncio.gather(busy, waits)


async def test_what_waits_past_its_deadline_never_runs() -> None:
    """It is told so at once."""
    world = World(slots=1)
    first = world.ask()
    await settled()
    late = world.ask(timeout_s=0.05)
    with pytest.raises(errors.DeadlineExceeded) as caught:
        await late
    assert caught.value.reason == "DEADLINE_PASSED"
    await world.runners.release()
    await first
    await settled()
    assert len(world.runners.began) == 1
    with pytest.raises(errors.DeadlineExceeded):
        await world.ask(timeout_s=0.0)


async def test_the_callers_own_deadline_counts() -> None:
    """The shorter one."""
    world = World(slots=1)
    world.patience = 0.0
    with pytest.raises(errors.DeadlineExceeded):
        await world.ask()
    assert world.runners.began == []


async def test_who_goes_away_while_it_runs_still_pays() -> None:
    """The slot is kept until the work ends, and the tenant is charged."""
    world = World(slots=1)
    gone = world.ask()
    await settled()
    gone.cancel()
    await settled()
    other = world.ask("globex")
    await settled()
    assert len(world.runners.running) == 1
    world.now += 3.0
    await world.runners.release(2)
    await other
    await counted()
    assert [(one.tenant_id, one.compute_s) for one in world.served] == [("acme", 3.0), ("globex", 0.0)]


async def test_who_goes_away_while_it_waits_costs_nothing() -> None:
    """It is never run."""
    world = World(slots=1)
    first = world.ask()
    await settled()
    gone = world.ask()
    await settled()
    gone.cancel()
    await settled()
    assert world.scheduler.waiting() == 0
    await world.runners.release()
    await first
    assert len(world.runners.began) == 1


async def test_loads_never_take_the_last_slot() -> None:
    """Those whose models are there go on."""
    world = World(slots=2)
    world.runners.cold = {("b", "m"), ("c", "m")}
    loads = [world.ask("b"), world.ask("c")]
    await settled()
    assert world.runners.began == ["b"]
    warm = world.ask("a")
    await settled()
    assert world.runners.began == ["b", "a"]
    await world.runners.release(3)
    await asyncio.gather(warm, *loads)


async def test_a_process_that_keeps_dying_waits_without_a_slot() -> None:
    """All slots are the others' meanwhile, and then it has its turn."""
    world = World(slots=1)
    world.runners.resting["bad"] = time.monotonic() + 1
    bad = world.ask("bad")
    good = world.ask("good")
    await settled()
    assert world.runners.began == ["good"]
    await world.runners.release()
    await good
    async with asyncio.timeout(DEADLINE_S):
        while not world.runners.running:
            await asyncio.sleep(0.01)
    await world.runners.release()
    assert (await bad).values["domain"] == "bad"


async def test_a_failure_gives_its_slot_back() -> None:
    """And is the caller's to hear."""
    world = World(slots=1)
    world.runners.fails = True
    failing = [world.ask(), world.ask()]
    await settled()
    await world.runners.release(2)
    for one in failing:
        with pytest.raises(errors.Unavailable):
            await one
    assert world.scheduler.running() == 0
    await counted()
    assert world.served[0].error is not None


async def test_closing_refuses_what_waits_and_lets_end_what_runs() -> None:
    """Nobody is left hanging."""
    world = World(slots=1)
    first, second = world.ask(), world.ask()
    await settled()
    await settled()
    world.scheduler.close()
    with pytest.raises(errors.Unavailable) as caught:
        await second
    assert caught.value.reason == "SHUTTING_DOWN"
    await world.runners.release()
    await first


@settings(max_examples=80, deadline=None)
@given(
    slots=st.integers(1, 4),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("ask"), st.sampled_from("abc"), st.sampled_from("mn")),
            st.tuples(st.just("release"), st.integers(0, 3), st.just("")),
            st.tuples(st.just("cancel"), st.integers(0, 60), st.just("")),
            st.tuples(st.just("fail"), st.integers(0, 1), st.just("")),
        ),
        max_size=60,
    ),
)
def test_never_an_answer_to_another_caller(slots: int, steps: list[tuple[str, Any, str]]) -> None:
    """Whatever is asked, cancelled and failed in whatever order: each answer is its own, and no slot is lost."""

    async def scenario() -> None:
        world = World(slots=slots, queue=100)
        world.runners.cold = {(tenant, model) for tenant in "abc" for model in "mn"}
        asked: list[tuple[str, bytes, asyncio.Task[Reply]]] = []
        for step, what, model in steps:
            if step == "ask":
                blob = f"{what}-{len(asked)}".encode()
                asked.append((what, blob, world.ask(what, number=len(asked), subject=model, blobs=[blob])))
            elif step == "cancel" and asked:
                asked[what % len(asked)][2].cancel()
            elif step == "fail":
                world.runners.fails = bool(what)
            elif step == "release" and world.runners.running:
                world.now += 0.01
                await world.runners.release()
            await settled()
            assert world.runners.most <= slots
        world.runners.fails = False
        while world.runners.running:
            await world.runners.release()
        for number, (tenant, blob, task) in enumerate(asked):
            outcome = (await asyncio.gather(task, return_exceptions=True))[0]
            if isinstance(outcome, Reply):
                assert (outcome.values["domain"], outcome.values["number"]) == (tenant, number)
                assert outcome.blobs == [blob]
            else:
                assert isinstance(outcome, errors.Unavailable | asyncio.CancelledError)
        assert (world.scheduler.running(), world.scheduler.waiting()) == (0, 0)

    asyncio.run(scenario())


async def test_who_asks_for_little_does_not_wait_for_who_asks_for_too_much() -> None:
    """The flood's process is paused until the answer is there, gets all its slots back, and pays for none of it."""
    world = World(slots=2, queue=100)
    flood = [world.ask("flood", number=index) for index in range(20)]
    await settled()
    little = world.ask("little", number=99)
    await settled()
    assert world.runners.paused == {"flood"}
    assert [domain for domain, _, _ in world.runners.running.values()] == ["flood", "little"]
    world.now += 0.01
    await world.runners.release()
    assert (await little).values["cores"] == 2
    assert not world.runners.paused
    world.now += 0.03
    await world.runners.release()
    await counted()
    seen = {(served.tenant_id, round(served.run_s, 3), round(served.queue_s, 3)) for served in world.served}
    assert seen == {("little", 0.01, 0.0), ("flood", 0.03, 0.01)}
    for task in flood:
        task.cancel()
    while world.runners.running:
        await world.runners.release()


async def test_how_long_a_call_waited_for_its_turn_is_told_when_that_comes() -> None:
    world = World(slots=1)
    first, second = world.ask(), world.ask()
    await settled()
    assert world.queued == [0.0]
    world.now += 0.25
    await world.runners.release()
    await settled()
    assert world.queued == [0.0, 0.25]
    await world.runners.release()
    await asyncio.gather(first, second)


async def test_those_that_ask_for_too_much_do_not_pause_each_other() -> None:
    """They take turns."""
    world = World(slots=2, queue=100)
    asked = [world.ask(tenant) for _ in range(10) for tenant in ("acme", "globex")]
    await settled()
    while world.runners.running:
        world.now += 0.02
        await world.runners.release()
        assert not world.runners.paused
    await asyncio.gather(*asked)


async def test_who_has_had_its_part_pauses_nobody() -> None:
    """However little it asks for at a time: the flood gets its part of the time."""
    world = World(slots=1, queue=200)
    flood = [world.ask("flood") for _ in range(150)]
    await settled()
    seconds = Counter[str]()
    mine = world.ask("always")
    for _ in range(100):
        await settled()
        (at_work,) = [one for one, _, _ in world.runners.running.values() if one not in world.runners.paused]
        world.now += 0.02
        seconds[at_work] += 1
        await world.runners.release()
        if mine.done():
            mine = world.ask("always")
    assert 40 <= seconds["flood"] <= 60, seconds
    for task in (*flood, mine):
        task.cancel()
    while world.runners.running:
        await world.runners.release()


async def test_a_long_load_stands_still_again_and_again() -> None:
    """What it has had so far counts already, though it is charged at its end."""
    world = World(slots=2, queue=100)
    world.runners.cold = {("slow", "m")}
    slow = [world.ask("slow", subject="m") for _ in range(5)]
    for _ in range(10):
        await settled()
        world.now += 0.1
        little = world.ask("little")
        await settled()
        assert world.runners.paused == {"slow"}
        world.now += 0.02
        await world.runners.release()
        await little
    for task in slow:
        task.cancel()
    while world.runners.running:
        await world.runners.release()


async def test_a_flood_stands_still_from_when_a_tenants_only_call_comes_until_it_is_answered() -> None:
    """Not only while its model runs, and for nobody who is at work already or is as far ahead."""
    world = World(slots=2, queue=100)
    flood = [world.ask("flood") for _ in range(20)]
    await settled()
    world.scheduler.pause("flood")
    assert not world.runners.paused
    world.scheduler.pause("little")
    assert world.runners.paused == {"flood"}
    little = world.ask("little")
    await settled()
    world.now += 0.01
    await world.runners.release()
    assert (await little).values["cores"] == 2
    assert world.runners.paused == {"flood"}
    world.scheduler.resume()
    assert not world.runners.paused
    for task in flood:
        task.cancel()
    while world.runners.running:
        await world.runners.release()


async def test_who_has_had_its_part_has_nobody_stand_still_for_its_next_call() -> None:
    """It waits for its turn."""
    world = World(slots=1, queue=100)
    asked = [world.ask(tenant) for tenant in ("always", "flood", "flood", "flood")]
    await settled()
    world.now += 5.0
    await world.runners.release()
    world.scheduler.pause("always")
    assert not world.runners.paused
    world.scheduler.resume()
    while world.runners.running:
        await world.runners.release()
    await asyncio.gather(*asked)


async def test_what_takes_longer_than_was_expected_stands_still() -> None:
    """A model that was quick for one image may take half a minute for another."""
    world = World(slots=2)
    await world.teach("slow", 0.01)
    slow = world.ask("slow")
    await settled()
    little = world.ask("little")
    await settled()
    assert not world.runners.paused
    world.now += 1.0
    async with asyncio.timeout(10):
        while not world.runners.paused:
            await asyncio.sleep(0.01)
    assert [domain for domain, _, _ in world.runners.running.values()] == ["slow", "little"]
    await world.runners.release()
    await little
    await world.runners.release()
    await slow


async def test_nobody_stands_still_for_long() -> None:
    """What was thought to be short and is not has the cores with the others then."""
    world = World(slots=1, queue=100)
    asked = [world.ask("flood") for _ in range(3)]
    await settled()
    asked.append(world.ask("little"))
    await settled()
    assert world.runners.paused == {"flood"}
    async with asyncio.timeout(60):
        while world.runners.paused:
            await asyncio.sleep(0.01)
    while world.runners.running:
        await world.runners.release()
    await asyncio.gather(*asked)


async def test_what_takes_long_pauses_nobody() -> None:
    """It waits for its turn."""
    world = World(slots=1, queue=100)
    await world.teach("heavy", 5.0)
    asked = [world.ask("flood") for _ in range(5)]
    await settled()
    asked.append(world.ask("heavy"))
    await settled()
    assert not world.runners.paused
    while world.runners.running:
        await world.runners.release()
    await asyncio.gather(*asked)
