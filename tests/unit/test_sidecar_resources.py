"""Component files: what they mean, and how what is wrong in them is told."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from facetmesh.sidecar import durations
from facetmesh.sidecar.resources import ResourceError, Resources, load
from facetmesh.sidecar.retry import RetryPolicy
from facetmesh.sidecar.schema import PubsubSettings, SecretsSettings

SHIPPED = Path(__file__).parents[2] / "components" / "embedded"
SERVICES = ("auth", "detection", "fusion", "audit")

STATE = """
apiVersion: dapr.io/v1alpha1
kind: Component
metadata: {name: state}
spec:
  type: state.sqlite
  version: v1
  metadata: [{name: connectionString, value: file.db}]
"""
PUBSUB = STATE.replace("state", "pubsub")
SUBSCRIPTION = """
apiVersion: dapr.io/v2alpha1
kind: Subscription
metadata: {name: s}
spec: {pubsubname: pubsub, topic: t, routes: {default: /t}}
"""
RESILIENCY = """
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: r}
spec:
  policies:
    timeouts: {short: 1m30s}
    retries: {often: {policy: exponential, maxInterval: 10s, maxRetries: 7}}
  targets:
    components:
      pubsub: {inbound: {retry: often, timeout: short}}
"""


def _load(folder: Path, *documents: str) -> Resources:
    (folder / "all.yaml").write_text("\n---\n".join(documents))
    return load(folder)


def test_several_resources_may_share_a_file(tmp_path: Path) -> None:
    resources = _load(tmp_path, STATE, PUBSUB, SUBSCRIPTION, RESILIENCY)
    assert [component.name for component in resources.components] == ["state", "pubsub"]
    assert [subscription.topic for subscription in resources.subscriptions] == ["t"]
    policy = resources.policy("any", "pubsub")
    assert policy is not None
    assert policy.timeout_s == 90
    assert policy.retry == RetryPolicy(exponential=True, max_interval_s=10, max_retries=7)
    assert resources.policy("any", "other") is None


@pytest.mark.parametrize(
    ("document", "change", "field"),
    [
        (STATE, {"kind": "Configuration"}, "kind"),
        (STATE, {"apiVersion": "dapr.io/v9"}, "apiVersion"),
        (STATE, {"scope": ["a"]}, "scope"),
        (STATE, {"metadata": {}}, "metadata.name"),
        (STATE, {"spec": {"type": "state.redis", "version": "v1", "metadata": []}}, "spec.type"),
        (STATE, {"spec": {"type": "state.sqlite", "version": "v2", "metadata": []}}, "spec.version"),
        (STATE, {"spec": {"type": "state.sqlite", "version": "v1"}}, "spec.metadata.connectionString"),
        (
            STATE,
            {"spec": {"type": "pubsub.sqlite", "version": "v1", "metadata": [
                {"name": "connectionString", "value": "f"}, {"name": "concurrency", "value": "many"}]}},
            "spec.metadata.concurrency",
        ),
        (
            STATE,
            {"spec": {"type": "pubsub.sqlite", "version": "v1", "metadata": [
                {"name": "connectionString", "value": "f"}, {"name": "publishingScopes", "value": "app"}]}},
            "spec.metadata.publishingScopes",
        ),
        (
            STATE,
            {"spec": {"type": "state.sqlite", "version": "v1", "metadata": [
                {"name": "conectionString", "value": "f"}]}},
            "spec.metadata.conectionString",
        ),
        (SUBSCRIPTION, {"spec": {"pubsubname": "p", "topic": "t"}}, "spec.routes"),
        (
            SUBSCRIPTION,
            {"spec": {"pubsubname": "p", "topic": "t", "routes": {"rules": [{"match": "true", "path": "/"}]}}},
            "spec.routes.rules",
        ),
        (
            SUBSCRIPTION,
            {"spec": {"pubsubname": "p", "topic": "t", "routes": {}, "bulkSubscribe": {"enabled": "perhaps"}}},
            "spec.bulkSubscribe.enabled",
        ),
        (
            RESILIENCY,
            {"spec": {"policies": {"circuitBreakers": {}}, "targets": {}}},
            "spec.policies.circuitBreakers",
        ),
        (
            RESILIENCY,
            {"spec": {"policies": {"retries": {"a": {"policy": "linear"}}}, "targets": {}}},
            "spec.policies.retries.a.policy",
        ),
        (
            RESILIENCY,
            {"spec": {"policies": {"timeouts": {"a": "soon"}}, "targets": {}}},
            "spec.policies.timeouts.a",
        ),
        (
            RESILIENCY,
            {"spec": {"policies": {}, "targets": {"components": {"pubsub": {"inbound": {"retry": "none"}}}}}},
            "spec.targets.components.pubsub.inbound.retry",
        ),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_its_file(
    tmp_path: Path, document: str, change: dict[str, object], field: str
) -> None:
    with pytest.raises(ResourceError) as caught:
        _load(tmp_path, yaml.safe_dump(yaml.safe_load(document) | change))
    assert str(tmp_path / "all.yaml") in str(caught.value)
    assert f": {field}: " in str(caught.value)


@pytest.mark.parametrize("text", ["a: [", "- 1", "just text", "\x00"])
def test_what_is_no_resource_is_told_with_its_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(ResourceError, match=r"all\.yaml"):
        _load(tmp_path, text)


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="no component files"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("document", "field"), [(SUBSCRIPTION, "spec.pubsubname"), (RESILIENCY, "spec.targets.components")]
)
def test_what_is_for_a_broker_that_is_not_there_is_told(tmp_path: Path, document: str, field: str) -> None:
    _load(tmp_path, PUBSUB, document)
    with pytest.raises(ResourceError, match=f"all.yaml: {field}: there is no"):
        _load(tmp_path, STATE, document)


def test_an_app_has_the_components_that_are_for_it(tmp_path: Path) -> None:
    resources = _load(tmp_path, STATE + "scopes: [one]\n", STATE.replace("name: state", "name: other"))
    assert set(resources.of("one")) == {"state", "other"}
    assert set(resources.of("two")) == {"other"}


def test_two_components_of_one_name_are_told_whatever_their_scopes(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"all.yaml: metadata.name: there is a Component state already"):
        _load(tmp_path, STATE + "scopes: [one]\n", STATE + "scopes: [two]\n")


def test_the_shipped_components_keep_services_apart() -> None:
    resources = load(SHIPPED)
    for service in SERVICES:
        own = resources.of(service)
        assert set(own) == {"state", "pubsub", "secrets"}
        secrets = own["secrets"].settings
        assert isinstance(secrets, SecretsSettings)
        assert secrets.secrets_file == "secrets/{appID}.json"
        assert resources.policy(service, "pubsub") is not None


def test_the_shipped_subscriptions_are_allowed_and_have_dead_letters() -> None:
    resources = load(SHIPPED)
    pubsub = resources.of("audit")["pubsub"].settings
    assert isinstance(pubsub, PubsubSettings)
    heard = set()
    for subscription in resources.subscriptions:
        assert subscription.dead_letter_topic == f"{subscription.topic}.dead"
        assert subscription.scopes
        for service in SERVICES:
            may = pubsub.may_subscribe(service, subscription.topic)
            assert may == (service in subscription.scopes), (service, subscription.topic)
        heard.add(subscription.topic)
        assert any(pubsub.may_publish(service, subscription.topic) for service in SERVICES)
    assert heard == {"audit.events", "auth.revocations", "models.changes", "fusion.jobs"}
    assert not pubsub.may_publish("detection", "auth.revocations")


@pytest.mark.parametrize(
    ("app", "topic", "may"),
    [
        ("unnamed", "open", True), ("unnamed", "guarded", False), ("unnamed", "unknown", False),
        ("named", "guarded", True), ("named", "open", False), ("silenced", "open", False),
    ],
)  # fmt: skip
def test_topics_are_scoped_as_daprd_does_it(app: str, topic: str, may: bool) -> None:  # noqa: FBT001 - an example
    settings = PubsubSettings.model_validate({
        "connectionString": "f", "allowedTopics": "open, guarded", "protectedTopics": "guarded",
        "publishingScopes": "named=guarded;silenced=",
    })  # fmt: skip
    assert settings.may_publish(app, topic) == may


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("100ms", 0.1), ("1m30s", 90), ("1.5h", 5400), ("90", 90), ("250us", 0.00025)],
)
def test_durations_are_go_durations(text: str, seconds: float) -> None:
    assert durations.seconds(text) == pytest.approx(seconds)


@given(st.text())
def test_no_text_breaks_the_durations(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert durations.seconds(text) >= 0


def test_a_constant_policy_waits_always_the_same() -> None:
    policy = RetryPolicy(duration_s=3, max_retries=2)
    assert [policy.delay_s(failures) for failures in (1, 2, 50)] == [3, 3, 3]
    assert [policy.allows(failures) for failures in (1, 2, 3)] == [True, True, False]


@given(st.integers(1, 10_000))
def test_an_exponential_policy_grows_to_its_cap(failures: int) -> None:
    policy = RetryPolicy(exponential=True, max_interval_s=20)
    middle = min(20, 0.5 * 1.5 ** min(failures - 1, 40))
    assert 0.5 * middle <= policy.delay_s(failures) <= 1.5 * middle
    assert policy.allows(failures)
