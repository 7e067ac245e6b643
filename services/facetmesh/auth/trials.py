"""Decisions on calls that nobody makes: to try policies out, and to explain what they say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facetmesh.kit.errors import InvalidArgument
from facetmesh.kit.policy import PLATFORM, Circumstances, PolicySet, Question, decide

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from facetmesh.auth.policies import PolicyBook
    from facetmesh.kit.policy import Decision

_SUBJECT_TENANT = re.compile(r"(tenants/[^/]+)/keys/[^/]+")
_LAST_S = 253_402_300_800  # the year 10000
_EXAMPLE_KEY = "keys/example"


@dataclass(frozen=True, slots=True)
class Case:
    """A call."""

    method: str
    """package.Service/Method."""
    subject: str = ""
    """Who calls; a key of the tenant when empty."""
    roles: tuple[str, ...] = ()
    """A caller's when empty."""
    resource: str = ""
    """A model or a tenant; the caller's tenant when empty."""
    facts: tuple[tuple[str, str], ...] = ()
    """The model's licence and version, where they are known."""
    plan: str = ""
    region: str = ""
    source: str = ""
    time_s: float | None = None
    """In seconds since the epoch; now when None."""


class Trials:
    """Decides on calls that nobody makes.

    Args:
        policies: The policies.
        check: Raises InvalidArgument for a text that cannot be used.
        methods: The methods there are, as package.Service/Method.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        policies: PolicyBook,
        check: Callable[[str], None],
        methods: frozenset[str],
        clock: Callable[[], float],
    ) -> None:
        self._policies = policies
        self._check = check
        self._methods = methods
        self._clock = clock

    async def decide(self, owner: str, cases: Sequence[Case], text: str = "") -> list[Decision]:
        """How calls would be decided.

        Args:
            owner: tenants/{tenant}, whose policies count beside the platform's, or platform.
            cases: The calls.
            text: Policies in place of the owner's active ones; those when empty.

        Raises:
            InvalidArgument: POLICY_INVALID, METHOD_UNKNOWN or TIME_INVALID.
        """
        sets = await self._sets(owner, text)
        asked = [self._asked(owner, case) for case in cases]
        return [decide(question, now, _for(question, sets)) for question, now in asked]

    async def explain(self, owner: str, case: Case) -> tuple[Decision, Mapping[str, str]]:
        """How a call is decided, and the texts of the policies that decide, by name. Raises as `decide` does."""
        question, now = self._asked(owner, case)
        sets = {one.name: one for one in _for(question, await self._sets(owner, ""))}
        decision = decide(question, now, list(sets.values()))
        texts = {}
        for name in decision.deciding:
            set_name, _, policy_id = name.partition("#")
            texts[name] = sets[set_name].policy(policy_id) if policy_id else ""
        return decision, texts

    async def _sets(self, owner: str, text: str) -> list[PolicySet]:
        sets = [await self._active(one) for one in dict.fromkeys((PLATFORM, owner))]
        if text:
            self._check(text)
            sets[-1] = PolicySet(f"{owner}/policies/trial", text)
        return sets

    async def _active(self, owner: str) -> PolicySet:
        policy = await self._policies.get(owner, await self._policies.active(owner))
        return PolicySet(policy.name, policy.text)

    def _asked(self, owner: str, case: Case) -> tuple[Question, Circumstances]:
        if case.method not in self._methods:
            raise InvalidArgument(f'method: there is no "{case.method}".', reason="METHOD_UNKNOWN")
        subject = case.subject or ("platform/admin" if owner == PLATFORM else f"{owner}/{_EXAMPLE_KEY}")
        match = _SUBJECT_TENANT.fullmatch(subject)
        of_platform = owner == PLATFORM or subject.startswith(f"{PLATFORM}/")
        tenant = match[1] if match else None if of_platform else owner
        roles = case.roles or (("caller",) if tenant else ("platform-admin",))
        now = self._clock() if case.time_s is None else case.time_s
        if not 0 <= now < _LAST_S:
            raise InvalidArgument("time: it is none.", reason="TIME_INVALID")
        return (
            Question(subject, tenant, frozenset(roles), case.method, case.resource or tenant or "", case.facts),
            Circumstances(now, case.region, case.plan, case.source),
        )


def _for(question: Question, sets: Sequence[PolicySet]) -> list[PolicySet]:
    """The sets that count for a caller: those who belong to no tenant are not subject to a tenant's."""
    return [one for one in sets if question.tenant is not None or one.name.startswith(f"{PLATFORM}/")]
