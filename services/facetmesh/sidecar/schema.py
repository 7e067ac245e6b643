"""The YAML of Dapr's resources, as far as the embedded sidecar knows it. Field names are Dapr's, in camel case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from facetmesh.sidecar import durations

if TYPE_CHECKING:
    from collections.abc import Mapping


def _topics_by_app(text: str) -> Mapping[str, frozenset[str]]:
    """`app1=topic1,topic2;app2=` as Dapr writes who may publish or subscribe to what."""
    scopes = {}
    for part in filter(None, text.split(";")):
        app, equals, topics = part.partition("=")
        if not equals:
            raise ValueError(f"'{part}' is not app=topic,topic")
        scopes[app.strip()] = frozenset(_names(topics))
    return scopes


def _names(text: str) -> frozenset[str]:
    return frozenset(filter(None, (name.strip() for name in text.split(","))))


_Seconds = Annotated[float, BeforeValidator(lambda value: durations.seconds(str(value)))]
_Names = Annotated[frozenset[str], BeforeValidator(_names)]
_TopicsByApp = Annotated[dict[str, frozenset[str]], BeforeValidator(_topics_by_app)]
_RelativePath = Annotated[str, AfterValidator(lambda value: value.removeprefix("file:"))]


class Model(BaseModel):
    """What all have in common: Dapr's field names, and none that is not known."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


class StateSettings(Model):
    """What a `state.sqlite` component says."""

    connection_string: _RelativePath
    """The file, relative to the home folder."""


class PubsubSettings(Model):
    """What a `pubsub.sqlite` component says. Names as in `pubsub.redis` where it has them."""

    connection_string: _RelativePath
    """The file, relative to the home folder."""
    concurrency: Annotated[int, Field(ge=1)] = 10
    """How many deliveries of one subscription are under way at once, to each replica."""
    processing_timeout: _Seconds = 60.0
    """How long an app may take for one delivery, in seconds, where no resiliency policy says it."""
    max_len_approx: Annotated[int, Field(ge=0)] = 10_000
    """How many messages are kept of a topic to which nobody subscribes, dead letters above all."""
    publishing_scopes: _TopicsByApp = {}
    """Which topics an app may publish to; an app that is not named may publish to any."""
    subscription_scopes: _TopicsByApp = {}
    """Which topics an app may subscribe to; an app that is not named may subscribe to any."""
    allowed_topics: _Names = frozenset()
    """Which topics there are; empty for any."""
    protected_topics: _Names = frozenset()
    """Topics for apps only that the scopes name."""

    def may_publish(self, app: str, topic: str) -> bool:
        """Whether app may publish to topic."""
        return self._may(self.publishing_scopes, app, topic)

    def may_subscribe(self, app: str, topic: str) -> bool:
        """Whether app may subscribe to topic."""
        return self._may(self.subscription_scopes, app, topic)

    def _may(self, scopes: Mapping[str, frozenset[str]], app: str, topic: str) -> bool:
        # The order is daprd's, see rtpubsub.IsOperationAllowed.
        if self.allowed_topics and topic not in self.allowed_topics:
            return False
        if app not in scopes:
            return topic not in self.protected_topics
        return topic in scopes[app]


class SecretsSettings(Model):
    """What a `secretstores.local.file` component says."""

    secrets_file: str
    """The file, relative to the home folder; {appID} in it is each app's id."""
    nested_separator: str = ":"
    """Between the parts of a nested secret's name."""


class ObjectMeta(Model):
    """A resource's name."""

    name: Annotated[str, Field(min_length=1)]
    namespace: str = "default"


class NameValue(Model):
    """One setting of a component."""

    name: str
    value: str | bool | int | float


class ComponentSpec(Model):
    """What a component is."""

    type: str
    version: Literal["v1"]
    metadata: list[NameValue] = []


class Component(Model):
    """A state store, a broker or a secret store."""

    api_version: Literal["dapr.io/v1alpha1"]
    kind: Literal["Component"]
    metadata: ObjectMeta
    spec: ComponentSpec
    scopes: list[str] = []


class Routes(Model):
    """What the app is told as an event's route. Rules are daprd's only."""

    default: str = "/"


class BulkSubscribe(Model):
    """Many events at once."""

    enabled: bool = False
    # Both defaults are daprd's.
    max_messages_count: Annotated[int, Field(ge=1)] = 100
    max_await_duration_ms: Annotated[int, Field(ge=0)] = 1000


class SubscriptionMetadata(Model):
    """What else a subscription may say."""

    raw_payload: bool = False


class SubscriptionSpec(Model):
    """Which topic, and how."""

    pubsubname: str
    topic: str
    routes: Routes
    dead_letter_topic: str = ""
    bulk_subscribe: BulkSubscribe = BulkSubscribe()
    metadata: SubscriptionMetadata = SubscriptionMetadata()


class Subscription(Model):
    """Which events apps get."""

    api_version: Literal["dapr.io/v2alpha1"]
    kind: Literal["Subscription"]
    metadata: ObjectMeta
    spec: SubscriptionSpec
    scopes: list[str] = []


class Retry(Model):
    """How often to try."""

    policy: Literal["constant", "exponential"] = "constant"
    duration: _Seconds = 5.0
    max_interval: _Seconds = 60.0
    max_retries: Annotated[int, Field(ge=-1)] = -1


class Policies(Model):
    """Policies by name."""

    timeouts: dict[str, _Seconds] = {}
    retries: dict[str, Retry] = {}


class PolicyNames(Model):
    """Which policies hold."""

    timeout: str | None = None
    retry: str | None = None


class ComponentTarget(Model):
    """What holds for the deliveries of a broker."""

    inbound: PolicyNames


class Targets(Model):
    """What policies are for."""

    components: dict[str, ComponentTarget] = {}


class ResiliencySpec(Model):
    """Policies, and what they are for."""

    policies: Policies
    targets: Targets


class Resiliency(Model):
    """How failures are met."""

    api_version: Literal["dapr.io/v1alpha1"]
    kind: Literal["Resiliency"]
    metadata: ObjectMeta
    spec: ResiliencySpec
    scopes: list[str] = []
