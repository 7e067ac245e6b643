"""Policies as resources, and decisions on calls that nobody makes."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import cedarpy
import pytest

from facetmesh.auth.limits_store import DaprLimitsStore
from facetmesh.auth.methods import methods
from facetmesh.auth.policies import MOST_VERSIONS, PolicyBook
from facetmesh.auth.trials import Case, Trials
from facetmesh.kit import policy
from facetmesh.kit.errors import FailedPrecondition, InvalidArgument, NotFound

if TYPE_CHECKING:
    from .conftest import Clock, MemoryState

ACME = "tenants/acme"
DETECT = "facetmesh.detection.v1.DetectionService/Detect"
ALL = '@id("all") permit (principal, action, resource);'
NIGHT = ALL + '@id("night") forbid (principal, action, resource) when { context.hour < 6 };'
CHECK = functools.partial(policy.check, schema=cedarpy.Schema.from_str(policy.schema(methods())))


@pytest.fixture
def book(state: MemoryState, clock: Clock) -> PolicyBook:
    store: Any = state
    return PolicyBook(DaprLimitsStore(store), CHECK, clock)


@pytest.fixture
def trials(book: PolicyBook, clock: Clock) -> Trials:
    return Trials(book, CHECK, frozenset(map(policy.full_name, methods())), clock)


async def test_versions_never_change_and_one_is_active(book: PolicyBook) -> None:
    assert await book.active(ACME) == "default"
    first = await book.create(ACME, ALL, "all")
    second = await book.create(ACME, NIGHT, "not at night")
    assert [first.name, second.name] == [f"{ACME}/policies/1", f"{ACME}/policies/2"]
    assert await book.versions(ACME) == ["2", "1", "default"]
    assert await book.active(ACME) == "default"
    await book.activate(ACME, "2")
    assert await book.active(ACME) == "2"
    assert await book.get(ACME, "1") == first
    assert await book.active("tenants/globex") == "default"
    await book.activate(ACME, "default")
    assert await book.active(ACME) == "default"


async def test_what_cannot_be_used_is_not_kept(book: PolicyBook) -> None:
    with pytest.raises(InvalidArgument):
        await book.create(ACME, "permit (", "")
    assert await book.versions(ACME) == ["default"]
    with pytest.raises(NotFound):
        await book.activate(ACME, "1")


async def test_there_is_an_end_of_versions(book: PolicyBook, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = [str(number) for number in range(MOST_VERSIONS, 0, -1)]

    async def full(_: str) -> list[str]:
        return versions

    monkeypatch.setattr(book._store, "policy_versions", full)
    with pytest.raises(FailedPrecondition) as refused:
        await book.create(ACME, ALL, "")
    assert refused.value.reason == "POLICY_VERSIONS_FULL"


async def test_changes_are_told_in_their_order_and_resumed(book: PolicyBook) -> None:
    for owner in ("platform", ACME, "tenants/globex"):
        await book.activate(owner, (await book.create(owner, ALL, "")).version)
    changes, more = await book.changes(0)
    assert ([one.owner for one in changes], more) == (["platform", ACME, "tenants/globex"], False)
    assert changes[1].text == ALL
    await book.activate(ACME, "default")
    changes, _ = await book.changes(changes[-1].sequence)
    assert [(one.owner, one.name) for one in changes] == [(ACME, "")]
    everything, _ = await book.changes(10_000)  # the store was set back
    assert len(everything) == 3
    await book.activate(ACME, "default")  # it is already
    assert await book.changes(everything[-1].sequence) == ([], False)


async def test_cases_are_decided_by_what_is_tried(trials: Trials, clock: Clock) -> None:
    clock.now = 1_795_262_400.0  # 12:00 UTC
    cases = [Case(DETECT), Case(DETECT, time_s=clock.now - 8 * 3600), Case(DETECT, roles=("auditor",))]
    assert [one.allowed for one in await trials.decide(ACME, cases)] == [True, True, False]
    tried = await trials.decide(ACME, cases, NIGHT)
    assert [one.allowed for one in tried] == [True, False, False]
    assert tried[1].deciding == (f"{ACME}/policies/trial#night",)
    assert (await trials.decide("platform", [Case(DETECT, "tenants/acme/keys/k")]))[0].allowed
    suspend = Case("facetmesh.auth.v1.AuthService/SuspendTenant", "platform/admin", ("platform-admin",), ACME)
    (decision,) = await trials.decide(ACME, [suspend], '@id("no") forbid (principal, action, resource);')
    assert decision.deciding == ("platform/policies/default#platform-admins",)


async def test_a_decision_is_explained(trials: Trials, book: PolicyBook) -> None:
    await book.activate(ACME, (await book.create(ACME, NIGHT, "")).version)
    decision, texts = await trials.explain(ACME, Case(DETECT, time_s=1_795_262_400.0 - 8 * 3600))
    assert not decision.allowed
    assert list(texts) == [f"{ACME}/policies/1#night"]
    assert "context.hour" in texts[f"{ACME}/policies/1#night"]
    decision, texts = await trials.explain(ACME, Case(DETECT, roles=("auditor",)))
    assert (decision.deciding, texts) == (("platform/policies/default",), {"platform/policies/default": ""})


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (Case("facetmesh.detection.v1.DetectionService/Detec"), "METHOD_UNKNOWN"),
        (Case(DETECT, time_s=-1), "TIME_INVALID"), (Case(DETECT, time_s=1e12), "TIME_INVALID"),
    ],
)  # fmt: skip
async def test_cases_that_are_none(trials: Trials, case: Case, reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await trials.decide(ACME, [case])
    assert refused.value.reason == reason
