"""Start-time fair queueing: who goes next, and who owes what."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from facetmesh.detection.fairness import FairQueue

COST = 0.1


def drain(queue: FairQueue[str], costs: dict[str, float], seconds: float) -> dict[str, float]:
    """Serves one after the other for so many core-seconds, and returns what each flow got."""
    got = dict.fromkeys(costs, 0.0)
    while sum(got.values()) < seconds:
        taken = queue.take()
        assert taken is not None
        name, _, expected = taken
        queue.settle(name, expected=expected, actual=costs[name])
        got[name] += costs[name]
    return got


def test_shares_go_by_compute_and_not_by_requests() -> None:
    """A tenant with requests ten times as heavy gets a tenth of the requests."""
    queue: FairQueue[str] = FairQueue()
    for _ in range(500):
        queue.put("heavy", "h", cost=COST)
        queue.put("light", "l", cost=COST)
    got = drain(queue, {"heavy": 1.0, "light": 0.1}, 20.0)
    assert got["heavy"] == pytest.approx(got["light"], abs=1.1)


def test_weights_are_shares() -> None:
    """Three to one."""
    queue: FairQueue[str] = FairQueue()
    for _ in range(500):
        queue.put("gold", "g", cost=COST, weight=3.0)
        queue.put("free", "f", cost=COST)
    got = drain(queue, {"gold": COST, "free": COST}, 20.0)
    assert got["gold"] == pytest.approx(3 * got["free"], rel=0.05)


def test_a_flood_does_not_make_others_wait() -> None:
    """Who comes to a queue of a thousand is next."""
    queue: FairQueue[str] = FairQueue()
    for _ in range(1000):
        queue.put("flood", "f", cost=COST)
    drain(queue, {"flood": COST}, 5.0)
    queue.put("quiet", "q", cost=COST)
    turns = [taken[0] for taken in (queue.take(), queue.take()) if taken]
    assert "quiet" in turns


def test_idleness_saves_nothing_up() -> None:
    """A flow that comes back gets its share from now on, not what it left."""
    queue: FairQueue[str] = FairQueue()
    queue.put("late", "l", cost=COST)
    drain(queue, {"late": COST}, COST)
    for _ in range(200):
        queue.put("busy", "b", cost=COST)
    drain(queue, {"busy": COST}, 10.0)
    for _ in range(200):
        queue.put("late", "l", cost=COST)
    got = drain(queue, {"busy": COST, "late": COST}, 4.0)
    assert got["late"] == pytest.approx(got["busy"], abs=2 * COST)


def test_who_waits_for_one_answer_saves_nothing_up_either() -> None:
    """A flow with a long request at work and none waiting is not behind."""
    queue: FairQueue[str] = FairQueue()
    queue.put("slow", "s", cost=COST)
    assert queue.take()
    for _ in range(200):
        queue.put("busy", "b", cost=COST)
    drain(queue, {"busy": COST}, 10.0)
    for _ in range(100):
        queue.put("slow", "s", cost=COST)
    got = drain(queue, {"busy": COST, "slow": COST}, 4.0)
    assert got["slow"] == pytest.approx(got["busy"], abs=2 * COST)


def test_what_ran_longer_than_expected_is_paid_back() -> None:
    """Even by a flow that leaves and returns at once."""
    queue: FairQueue[str] = FairQueue()
    queue.put("other", "o", cost=COST)
    queue.put("greedy", "g", cost=COST)
    for _ in range(2):
        taken = queue.take()
        assert taken is not None
        queue.settle(taken[0], expected=COST, actual=10.0 if taken[0] == "greedy" else COST)
        queue.put("other", "o", cost=COST)
    queue.put("greedy", "g", cost=COST)
    assert drain(queue, {"other": COST, "greedy": COST}, 2 * COST)["greedy"] == 0


def test_priority_orders_a_flow_and_not_the_flows() -> None:
    """Lower first, then as they came."""
    queue: FairQueue[str] = FairQueue()
    for request, priority in (("a", 5), ("b", 1), ("c", 1)):
        queue.put("one", request, cost=COST, priority=priority)
    queue.put("two", "d", cost=COST)
    order = [taken[1] for taken in iter(queue.take, None) if taken]
    assert [request for request in order if request != "d"] == ["b", "c", "a"]
    assert order.index("d") <= 1


def test_what_is_ahead_of_an_urgent_one_is_what_is_as_urgent() -> None:
    """And the last of a flow is the newest of the least urgent."""
    queue: FairQueue[str] = FairQueue()
    assert queue.last("one") is None
    for request, cost, priority in (("a", 1.0, 9), ("b", 2.0, 5), ("c", 4.0, 9), ("d", 8.0, 1)):
        queue.put("one", request, cost=cost, priority=priority)
    assert [queue.ahead("one", priority=priority) for priority in (1, 4, 5, 9)] == [8, 8, 10, 15]
    assert queue.last("one") == (9, "c")


def test_one_that_may_not_start_is_passed_over() -> None:
    """And keeps its place."""
    queue: FairQueue[str] = FairQueue()
    queue.put("cold", "load", cost=COST)
    queue.put("warm", "run", cost=COST)
    taken = queue.take(lambda request: request != "load")
    assert taken is not None
    assert taken[1] == "run"
    assert queue.take(lambda request: request != "load") is None
    assert len(queue) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.01, 1.0)), max_size=40), st.sampled_from("abcd"))
def test_what_is_ahead_is_what_is_served_first(requests: list[tuple[str, float]], name: str) -> None:
    """The forecast, against what happens: never too little by more than one request of each of the others."""
    queue: FairQueue[object] = FairQueue()
    for flow, cost in requests:
        queue.put(flow, object(), cost=cost)
    forecast = queue.ahead(name)
    mine = object()
    queue.put(name, mine, cost=0.5)
    served = 0.0
    while (taken := queue.take()) is not None and taken[1] is not mine:
        served += taken[2]
        queue.settle(taken[0], expected=taken[2], actual=taken[2])
    assert served <= forecast + sum(max((cost for flow, cost in requests if flow == other), default=0)
                                    for other in "abc" if other != name) + 1e-6  # fmt: skip
    assert served >= forecast - 1e-6


class Served(RuleBasedStateMachine):
    """Whatever happens: nothing is lost, nothing twice, and nothing is remembered for ever."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[object] = FairQueue()
        self.waiting: dict[int, tuple[str, object]] = {}
        self.running: list[tuple[str, float]] = []

    @rule(
        name=st.sampled_from("abcde"), cost=st.floats(0.001, 10), weight=st.floats(0.1, 10),
        priority=st.integers(0, 3),
    )
    def put(self, name: str, cost: float, weight: float, priority: int) -> None:
        request = object()
        self.waiting[id(request)] = (name, request)
        self.queue.put(name, request, cost=cost, weight=weight, priority=priority)

    @precondition(lambda self: self.waiting)
    @rule()
    def take(self) -> None:
        taken = self.queue.take()
        assert taken is not None
        name, request, cost = taken
        assert self.waiting.pop(id(request)) == (name, request)
        self.running.append((name, cost))

    @precondition(lambda self: self.running)
    @rule(actual=st.floats(0, 20))
    def settle(self, actual: float) -> None:
        name, cost = self.running.pop()
        self.queue.settle(name, expected=cost, actual=actual)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.waiting)))
        name, request = self.waiting.pop(key)
        assert self.queue.remove(name, request)
        assert not self.queue.remove(name, request)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert len(self.queue) == len(self.waiting)
        for name in "abcde":
            assert self.queue.waiting(name) == sum(owner == name for owner, _ in self.waiting.values())
        if not self.waiting and not self.running:
            assert self.queue.flows() == 0


TestServed = Served.TestCase
TestServed.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
