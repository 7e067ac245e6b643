"""The line: fair between tenants whatever they ask for, and nobody waits for ever."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facetmesh.fusion.line import SHARES, Line, Pace, Priority, Ticket
from facetmesh.fusion.operations import Ref


def ticket(tenant_id: str, number: int, priority: Priority = Priority.STANDARD) -> Ticket:
    return Ticket(Ref(tenant_id, f"{number:032x}"), priority)


def equal(_: str) -> float:
    return 1.0


def test_among_equals_the_oldest_is_first() -> None:
    tickets = [ticket("acme", number) for number in (3, 1, 2)]
    assert list(Line(equal).order(tickets)) == sorted(tickets)


def test_tenants_take_turns_however_much_each_has() -> None:
    many = [ticket("acme", number) for number in range(10)]
    late = [ticket("globex", number) for number in range(100, 103)]
    order = [one.ref.tenant_id for one in Line(equal).order(many + late)]
    assert order[:6] == ["acme", "globex"] * 3


def test_nobody_gets_ahead_of_others_by_what_it_calls_its_jobs() -> None:
    vip = [ticket("acme", number, Priority.VIP) for number in range(20)]
    batch = [ticket("globex", number, Priority.BATCH) for number in range(20)]
    first = list(Line(equal).order(vip + batch))[:20]
    assert Counter(one.ref.tenant_id for one in first) == {"acme": 10, "globex": 10}


def test_turns_are_by_weight() -> None:
    tickets = [ticket(tenant_id, number) for number in range(40) for tenant_id in ("acme", "globex")]
    line = Line({"acme": 3.0, "globex": 1.0}.__getitem__)
    assert Counter(one.ref.tenant_id for one in list(line.order(tickets))[:40]) == {"acme": 30, "globex": 10}


def test_priorities_share_a_tenants_turns() -> None:
    tickets = [ticket("acme", number, priority) for number in range(70) for priority in Priority]
    first = list(Line(equal).order(tickets))[:42]
    assert Counter(one.priority for one in first) == {one: 2 * SHARES[one] for one in Priority}


def test_who_had_no_jobs_has_saved_nothing_up() -> None:
    line = Line(equal)
    for number in range(100):
        line.served(ticket("acme", number))
    tickets = [ticket(tenant_id, number) for number in range(100, 110) for tenant_id in ("acme", "globex")]
    assert Counter(one.ref.tenant_id for one in list(line.order(tickets))[:10]) == {"acme": 5, "globex": 5}


JOBS = st.lists(st.tuples(st.sampled_from(["acme", "globex", "initech"]), st.sampled_from(list(Priority))), max_size=40)


@given(JOBS, JOBS)
def test_the_order_is_of_all_and_it_is_what_happens(
    jobs: list[tuple[str, Priority]], past: list[tuple[str, Priority]]
) -> None:
    line = Line(equal)
    for number, (tenant_id, priority) in enumerate(past):
        line.served(ticket(tenant_id, number, priority))
    waiting = {ticket(tenant_id, number, priority) for number, (tenant_id, priority) in enumerate(jobs)}
    expected = list(line.order(waiting))
    assert len(expected) == len(waiting)
    assert set(expected) == waiting
    taken = []
    while waiting:
        one = next(line.order(waiting))
        line.served(one)
        waiting.remove(one)
        taken.append(one)
    assert taken == expected


def test_the_pace_is_the_last_minutes() -> None:
    pace = Pace()
    assert pace.takes_s(3) is None
    pace.moved(0, 2.0)
    assert pace.takes_s(3) is None
    pace.moved(4, 2.0)
    assert pace.takes_s(3) == pytest.approx(3.0, rel=0.05)
    for _ in range(200):
        pace.moved(1, 2.0)
    assert pace.takes_s(3) == pytest.approx(6.0, rel=0.01)
