"""Policies: checked, prepared, decided, and remembered only for as long as nothing that they read changes."""

from __future__ import annotations

import re
from dataclasses import replace

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.security.api import METHODS, path

from facetmesh.auth.methods import methods
from facetmesh.kit import access, policy
from facetmesh.kit.errors import InvalidArgument
from facetmesh.kit.identity import ROLE_NAMES
from facetmesh.kit.policy import Circumstances, Policies, PolicySet, Question, decisions, vocabulary

SCHEMA = cedarpy.Schema.from_str(policy.schema(methods()))
DETECT = "facetmesh.detection.v1.DetectionService/Detect"
FACES = "tenants/acme/models/faces"
CALL = Question("tenants/acme/keys/k1", "tenants/acme", frozenset({"caller"}), DETECT, FACES)
NOON = Circumstances(1_795_262_400.0, "local", "standard", "192.0.2.7")  # a Saturday, 12:00 UTC
ALL = '@id("all") permit (principal, action, resource);\n'


HEAD = '@id("x") permit (principal, action, resource) when {'
PIECES = ["(", ")", "{a:", "}", "[", "]", "!", "-", "1", "true", '"x"', "//", "\n", "context", ".a", " has a", " == ",
          " && ", " if ", " then ", " else ", "};", HEAD, "ip(",
          "::", "principal", " in ", " like ", "*", '"', "\\"]  # fmt: skip


def forbidding(when: str, name: str = "no") -> PolicySet:
    """A tenant's set that allows all but what is said."""
    text = f'{ALL}@id("{name}") forbid (principal, action, resource) when {{ {when} }};'
    policy.check(text, SCHEMA)
    return PolicySet("tenants/acme/policies/1", text)


def in_force(own: PolicySet | None = None) -> Policies:
    policies = Policies()
    policies.use("tenants/acme", own)
    return policies


@pytest.mark.parametrize("method", METHODS, ids=path)
@pytest.mark.parametrize("role", ROLE_NAMES.values())
def test_the_shipped_policies_allow_what_the_access_rules_do(method: object, role: str) -> None:
    rule = access.rule(path(method))  # type: ignore[arg-type]
    subject = {"platform-admin": "platform/admin", "service": "services/fusion"}.get(role, CALL.subject)
    tenant = None if role == "platform-admin" else "tenants/acme"
    decision = Policies().decide(Question(subject, tenant, frozenset({role}), rule.method, "tenants/acme"), NOON)
    assert decision.allowed == (role in rule.roles)


def test_the_shipped_policies_hold_to_the_schema() -> None:
    policy.check(policy.PLATFORM_DEFAULT, SCHEMA)
    policy.check(PolicySet.default("tenants/acme").text, SCHEMA)


@pytest.mark.parametrize(
    "resource", ["tenants/globex", "tenants/globex/models/faces", "", "tenants/acme-2", "tenants/acm", "x\n"]
)
def test_the_shipped_policies_keep_to_the_tenant(resource: str) -> None:
    decision = Policies().decide(replace(CALL, resource=resource), NOON)
    assert (decision.allowed, decision.deciding) == (False, ("platform/policies/default",))


def test_what_decided_is_told() -> None:
    assert Policies().decide(CALL, NOON).deciding == ("platform/policies/default#callers",)
    policies = in_force(forbidding("context.hour == 12", "siesta"))
    decision = policies.decide(CALL, NOON)
    assert (decision.allowed, decision.deciding) == (False, ("tenants/acme/policies/1#siesta",))
    decision = policies.decide(CALL, replace(NOON, time_s=NOON.time_s - 3600))
    assert decision.deciding == ("platform/policies/default#callers", "tenants/acme/policies/1#all")


@pytest.mark.parametrize(
    "when",
    [
        'action == Action::"detection.Detect"', 'action in Action::"services/detection"',
        'principal == Key::"tenants/acme/keys/k1"', 'principal in Role::"caller"', 'resource == Model::"' + FACES + '"',
        'resource is Model && resource.id like "fa*"', "context.hour >= 12 && context.weekday >= 6",
        'context.now >= datetime("2026-11-21T12:00:00Z")', 'context.region == "local"', 'context.plan == "standard"',
        'context has source && context.source.isInRange(ip("192.0.2.0/24"))',
        'resource is Model && resource has licence && resource.licence == "AGPL-3.0"',
        'resource is Model && resource has version && resource.version == "2"',
    ],
)  # fmt: skip
def test_every_word_of_the_vocabulary_can_forbid(when: str) -> None:
    question = replace(CALL, facts=(("licence", "AGPL-3.0"), ("version", "2")))
    assert Policies().decide(question, NOON).allowed
    assert not in_force(forbidding(when)).decide(question, NOON).allowed


def test_a_tenants_policies_restrict_and_never_widen() -> None:
    policies = in_force(PolicySet("tenants/acme/policies/1", ALL))
    assert not policies.decide(replace(CALL, roles=frozenset({"auditor"})), NOON).allowed
    assert not policies.decide(replace(CALL, resource="tenants/globex/models/faces"), NOON).allowed


def test_a_tenants_policies_are_nobody_elses() -> None:
    policies = in_force(forbidding("true"))
    other = replace(CALL, subject="tenants/globex/keys/k1", tenant="tenants/globex", resource="tenants/globex/models/m")
    assert policies.decide(other, NOON).allowed
    assert not policies.decide(CALL, NOON).allowed


def test_what_cannot_be_evaluated_denies() -> None:
    text = f'{ALL}@id("broken") forbid (principal, action, resource) when {{ context.hour + 9223372036854775807 > 0 }};'
    policy.check(text, SCHEMA)  # no type is wrong: it overflows
    decision = in_force(PolicySet("tenants/acme/policies/1", text)).decide(CALL, NOON)
    assert not decision.allowed
    assert decision.errors


def test_policies_of_the_platform_can_be_replaced_and_come_back() -> None:
    policies = Policies()
    policies.use("platform", PolicySet("platform/policies/7", '@id("stop") forbid (principal, action, resource);'))
    assert policies.active("platform") == "platform/policies/7"
    assert policies.decide(CALL, NOON).deciding == ("platform/policies/7#stop",)
    policies.use("platform", None)
    assert policies.decide(CALL, NOON).allowed


def test_a_decision_is_remembered_while_nothing_changes_that_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Question] = []
    real = decisions.decide
    monkeypatch.setattr(decisions, "decide", lambda question, *rest: asked.append(question) or real(question, *rest))
    policies = in_force(forbidding("context.hour < 6"))
    for seconds in (0, 1, 59):
        assert policies.decide(CALL, replace(NOON, time_s=NOON.time_s + seconds)).allowed
    assert len(asked) == 1
    policies.decide(CALL, replace(NOON, source="198.51.100.1", region="elsewhere"))  # what no policy reads
    assert len(asked) == 1
    policies.decide(CALL, replace(NOON, time_s=NOON.time_s + 60))
    policies.decide(replace(CALL, facts=(("version", "2"),)), NOON)
    policies.decide(replace(CALL, roles=frozenset({"caller", "auditor"})), NOON)
    assert len(asked) == 4
    policies.use("tenants/acme", None)
    assert policies.decide(CALL, replace(NOON, time_s=NOON.time_s - 8 * 3600)).allowed
    assert len(asked) == 5


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "_KEPT", 3)
    policies = Policies()
    for number in range(10):
        policies.decide(replace(CALL, resource=f"tenants/acme/models/m{number}"), NOON)
    assert len(policies._decided) == 3


@given(st.fixed_dictionaries({name: st.booleans() for name in ("hour", "region", "plan", "source")}), st.booleans())
def test_what_is_remembered_is_what_would_be_decided(changes: dict[str, bool], whole: bool) -> None:  # noqa: FBT001
    when = 'context.hour == 12 && context.region == "local" && context.plan == "standard" && context has source'
    policies = in_force(forbidding(f"({when}) || {'context == context' if whole else 'false'}"))
    policies.decide(CALL, NOON)
    now = replace(
        NOON, time_s=NOON.time_s + 3600 * changes["hour"], region="x" if changes["region"] else "local",
        plan="x" if changes["plan"] else "standard", source="unix" if changes["source"] else NOON.source,
    )  # fmt: skip
    fresh = in_force(forbidding(f"({when}) || {'context == context' if whole else 'false'}"))
    assert policies.decide(CALL, now) == fresh.decide(CALL, now)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "there is none"), ("// nothing", "there is none"),
        ("permit (principal", "unexpected end"), ("permit (principal, action, resource);", "@id"),
        (ALL + ALL, "same @id"), ('@id("a b") permit (principal, action, resource);', "@id"),
        ('@id("t") permit (principal == ?principal, action, resource);', "templates"),
        ('@id("x") permit (principal, action, resource) when { context.sauce == 1 };', "sauce"),
        ('@id("x") permit (principal, action == Action::"detection.Detec", resource);', "detection.Detec"),
        ('@id("x") permit (principal, action, resource is Modell);', "Modell"),
        ('@id("x") permit (principal, action, resource) when { resource.licence == "MIT" };', "licence"),
        ("//" + "x" * policy.LARGEST_TEXT, "characters"),
        ("".join(f'@id("p{n}") permit (principal, action, resource);' for n in range(101)), "101 policies"),
        (HEAD + "(" * 24 + "true" + ")" * 24 + "};", "24 deep"),
        (HEAD + "(" * 8000 + "true" + ")" * 8000 + "};", "24 deep"),
        (HEAD + '(")"==")") && (' * 500 + "true" + ")" * 500 + "};", "24 deep"),
        (HEAD + "(//)))\n" * 1000 + "true" + ")" * 1000 + "};", "24 deep"),
        (HEAD + "[{a:" * 2000 + "1" + "}]" * 2000 + "};", "24 deep"),
        (HEAD + "context has a" + " . a" * 17 + "};", "path"),
        (HEAD + "!" * 8000 + "true};", "!"), (HEAD + "-" * 8000 + "1 == 1};", "-"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_policy_is_told(text: str, problem: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        policy.check(text, SCHEMA)
    assert refused.value.reason == "POLICY_INVALID"
    assert refused.value.violations
    assert problem in " ".join(violation.description for violation in refused.value.violations)


@given(st.text(max_size=200) | st.lists(st.sampled_from(PIECES), max_size=60).map("".join).map(lambda x: HEAD + x))
def test_any_text_is_taken_or_refused(text: str) -> None:
    try:
        policy.check(text, SCHEMA)
    except InvalidArgument as refused:
        assert refused.reason == "POLICY_INVALID"  # noqa: PT017 - most texts are refused, some are fine


@given(
    st.text(max_size=50), st.text(max_size=50), st.text(max_size=50), st.text(max_size=50),
    st.floats(0, 4e9), st.lists(st.text(max_size=20), max_size=3),
)  # fmt: skip
def test_hostile_words_are_decided_on_like_any(
    subject: str, resource: str, source: str, fact: str, time_s: float, roles: list[str]
) -> None:
    question = Question(subject, "tenants/acme", frozenset(roles), DETECT, resource, (("licence", fact),))
    decision = in_force(forbidding("false")).decide(question, Circumstances(time_s, source=source))
    assert decision.allowed <= ("caller" in roles or "tenant-admin" in roles or "service" in roles)


def test_an_empty_set_of_a_tenant_denies_all() -> None:
    assert not in_force(PolicySet("tenants/acme/policies/1", "")).decide(CALL, NOON).allowed


def test_each_method_that_asks_for_a_token_is_an_action() -> None:
    text = policy.schema(methods())
    for method in METHODS:
        found = f'action "{vocabulary.action(path(method)).id}" in' in text
        assert found == (not access.rule(path(method)).public)
    assert re.search(r'action "detection.Detect" in \["roles/caller"', text)
