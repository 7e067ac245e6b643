"""Decisions: what the platform's policies and a tenant's own say about a call.

Both must allow it, so that a tenant can restrict what happens in its name and
can never widen what the platform allows. Within a set, forbid overrides permit,
and what nothing permits is denied.
"""

from __future__ import annotations

import ipaddress
import json
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import cedarpy

from facetmesh.kit.policy.engine import PLATFORM, PolicySet
from facetmesh.kit.policy.vocabulary import action

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_KEPT = 16384
_MINUTE_S = 60


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What else counts."""

    time_s: float
    """When, in seconds since the epoch."""
    region: str = ""
    """Of the process that was called."""
    plan: str = ""
    """Of the tenant."""
    source: str = ""
    """The caller's address."""


@dataclass(frozen=True, slots=True)
class Question:
    """May this caller do this with that?"""

    subject: str
    """Who calls: the token's subject."""
    tenant: str | None
    """tenants/{tenant} for whom; None for the platform's own."""
    roles: frozenset[str]
    method: str
    """package.Service/Method."""
    resource: str = ""
    """The model as tenants/{tenant}/models/{model}, else the tenant; empty for the platform."""
    facts: tuple[tuple[str, str], ...] = ()
    """What is known of the model beside its name: version, licence."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policies say."""

    allowed: bool
    deciding: tuple[str, ...]
    """What decided: the set's name, # and the policy's id; the set's name alone where nothing in it permits."""
    errors: tuple[str, ...] = field(default=(), compare=False)
    """Policies that could not be evaluated; they deny."""


class Policies:
    """The policies in force, and what they decided lately."""

    def __init__(self) -> None:
        self._sets: dict[str, PolicySet] = {PLATFORM: PolicySet.default(PLATFORM)}
        self._decided: OrderedDict[tuple[object, ...], Decision] = OrderedDict()

    def use(self, owner: str, policies: PolicySet | None) -> None:
        """Puts a set into force, in place of the owner's before.

        Args:
            owner: tenants/{tenant} or platform.
            policies: The set; the default when None.
        """
        if policies is None:
            self._sets.pop(owner, None)
        else:
            self._sets[owner] = policies
        self._sets.setdefault(PLATFORM, PolicySet.default(PLATFORM))
        self._decided.clear()  # it is rare

    def active(self, owner: str) -> str:
        """The name of the owner's set that is in force; "" where it has none of its own."""
        found = self._sets.get(owner)
        return "" if found is None else found.name

    def reads_facts(self, tenant: str | None) -> bool:
        """Whether the policies in force for a tenant want to know more of a model than its name."""
        own = self._sets.get(tenant) if tenant else None
        return self._sets[PLATFORM].reads_facts or (own is not None and own.reads_facts)

    def decide(self, question: Question, now: Circumstances) -> Decision:
        """What the policies in force say; from memory where they were asked the same before."""
        own = self._sets.get(question.tenant) if question.tenant else None
        sets = (self._sets[PLATFORM],) if own is None else (self._sets[PLATFORM], own)
        reads = sets[0].reads if own is None else sets[0].reads | own.reads
        key = (
            question.subject, question.tenant, question.roles, question.method, question.resource, question.facts,
            _considered(reads, now),
        )  # fmt: skip
        decision = self._decided.get(key)
        if decision is None:
            decision = decide(question, now, sets)
            self._decided[key] = decision
            if len(self._decided) > _KEPT:
                self._decided.popitem(last=False)
        return decision


def decide(question: Question, now: Circumstances, sets: Sequence[PolicySet]) -> Decision:
    """What these sets say together. What one denies is denied, by it alone."""
    request = {
        "principal": _principal(question), "action": {"type": "Action", "id": action(question.method).id},
        "resource": _resource(question), "context": _context(now),
    }  # fmt: skip
    entities = json.dumps(_entities(question))
    deciding: list[str] = []
    for policies in sets:
        result = cedarpy.is_authorized(request, policies.prepared, entities)
        decided = tuple(
            sorted(f"{policies.name}#{policies.ids[reason]}" for reason in result.diagnostics.reasons)
        ) or (policies.name,)  # fmt: skip
        # Cedar skips a policy that it cannot evaluate; were that a forbid, skipping it would let the call in.
        errors = tuple(result.diagnostics.errors)
        if errors or not result.allowed:
            return Decision(allowed=False, deciding=(policies.name,) if errors else decided, errors=errors)
        deciding += decided
    return Decision(allowed=True, deciding=tuple(deciding))


def _considered(reads: frozenset[str], now: Circumstances) -> tuple[object, ...]:
    """What of the circumstances makes a difference to policies that read these attributes."""
    if not reads:
        return ()
    every = "*" in reads
    timely = every or not reads.isdisjoint({"now", "hour", "weekday"})
    return (
        now.time_s // _MINUTE_S if timely else None,
        now.region if every or "region" in reads else None,
        now.plan if every or "plan" in reads else None,
        now.source if every or "source" in reads else None,
    )


def _principal(question: Question) -> dict[str, str]:
    kind = question.subject.partition("/")[0]
    types = {"services": "Service", "platform": "Admin"}
    return {"type": types.get(kind, "Key"), "id": question.subject}


def _resource(question: Question) -> dict[str, str]:
    if "/models/" in question.resource:
        return {"type": "Model", "id": question.resource}
    if question.resource:
        return {"type": "Tenant", "id": question.resource}
    return {"type": "Platform", "id": PLATFORM}


def _entities(question: Question) -> list[dict[str, Any]]:
    principal: dict[str, Any] = {
        "uid": _principal(question), "attrs": {},
        "parents": [{"type": "Role", "id": role} for role in sorted(question.roles)],
    }  # fmt: skip
    if question.tenant is not None:
        tenant = {"type": "Tenant", "id": question.tenant}
        principal["attrs"]["tenant"] = {"__entity": tenant}
        principal["parents"].append(tenant)
    found = [principal, _action_entity(question.method)]
    uid = _resource(question)
    if uid["type"] == "Model":
        tenant_name, _, model_id = question.resource.partition("/models/")
        parents = [{"type": "Tenant", "id": tenant_name}]
        found.append({"uid": uid, "attrs": {"id": model_id, **dict(question.facts)}, "parents": parents})
    return found


@lru_cache(maxsize=512)
def _action_entity(method: str) -> dict[str, Any]:
    found = action(method)
    parents = [{"type": "Action", "id": group} for group in found.groups]
    return {"uid": {"type": "Action", "id": found.id}, "attrs": {}, "parents": parents}


def _context(now: Circumstances) -> Mapping[str, Any]:
    time = datetime.fromtimestamp(now.time_s // _MINUTE_S * _MINUTE_S, UTC)
    context: dict[str, Any] = {
        "now": {"__extn": {"fn": "datetime", "arg": time.strftime("%Y-%m-%dT%H:%M:%SZ")}},
        "hour": time.hour, "weekday": time.isoweekday(), "region": now.region, "plan": now.plan,
    }  # fmt: skip
    try:
        address = ipaddress.ip_address(now.source)
    except ValueError:
        return context
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    context["source"] = {"__extn": {"fn": "ip", "arg": str(address)}}
    return context
