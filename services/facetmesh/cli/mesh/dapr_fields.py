"""What fields Dapr's resources have, as far as they are of use here, and what may stand in them.

The names are those of dapr 1.18 (pkg/apis) and of components-contrib 1.18 (each
component's metadata.yaml); where a component reads past a value, the rule is what it
really takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, Union

Check = Callable[[Any], str]
"""Says what is wrong with a value; "" if nothing is."""
Rule: TypeAlias = Union[Mapping[str, "Rule"], list["Rule"], Check]  # noqa: UP007 - `|` cannot refer to itself
"""Fields by name, those that must be there with a `!`, any with `*`; or a list of such; or a check."""

_GO_DURATION = re.compile(r"\d+(\.\d+)?(ns|us|ms|s|m|h)(\d+(\.\d+)?(ns|us|ms|s|m|h))*")


def topics_by_app(text: str) -> Mapping[str, frozenset[str]]:
    """`app1=topic1,topic2;app2=` as Dapr writes who may publish or subscribe to what.

    Raises:
        ValueError: It is not like that.
    """
    scopes = {}
    for part in filter(None, text.split(";")):
        app, equals, topics = part.partition("=")
        if not equals:
            raise ValueError(f"'{part}' is not app=topic,topic")
        scopes[app.strip()] = frozenset(filter(None, (topic.strip() for topic in topics.split(","))))
    return scopes


def _anything(value: Any) -> str:
    del value
    return ""


def _text(value: Any) -> str:
    return "" if isinstance(value, str) and value else "must be a text"


def _flag(value: Any) -> str:
    return "" if value in {True, False, "true", "false"} else "must be true or false"


def _whole(value: Any) -> str:
    return "" if re.fullmatch(r"-?\d+", str(value)) else "must be a whole number"


def _duration(value: Any) -> str:
    return "" if _GO_DURATION.fullmatch(str(value)) else "must be a duration such as 500ms or 10s"


def _milliseconds(value: Any) -> str:
    return "" if re.fullmatch(r"\d+", str(value)) else "must be milliseconds, without a unit: daprd reads past others"


def _duration_or_whole(value: Any) -> str:
    return _duration(value) and _whole(value) and "must be a duration, or a whole number"


def _topics(value: Any) -> str:
    try:
        topics_by_app(str(value))
    except ValueError as error:
        return str(error)
    return ""


def _one_of(*known: str) -> Check:
    return lambda value: "" if value in known else f"must be one of {', '.join(known)}"


def _resource(kind: str, version: str, spec: Rule) -> Rule:
    return {
        "apiVersion!": _one_of(f"dapr.io/{version}"),
        "kind!": _one_of(kind),
        "metadata!": {"name!": _text, "namespace": _text, "labels": _anything, "annotations": _anything},
        "spec!": spec,
        "scopes": [_text],
        "auth": {"secretStore!": _text},
    }


_POLICY_NAMES: dict[str, Rule] = {"timeout": _text, "retry": _text, "circuitBreaker": _text}
_API: Rule = [{"name!": _text, "version!": _text, "protocol": _one_of("grpc", "http")}]
_ACTION = _one_of("allow", "deny")

RESOURCES: Final[Mapping[str, Rule]] = {
    "Component": _resource("Component", "v1alpha1", {
        "type!": _text,
        "version!": _text,
        "ignoreErrors": _flag,
        "initTimeout": _duration,
        "metadata": [{
            "name!": _text, "value": _anything, "envRef": _text, "secretKeyRef": {"name!": _text, "key": _text},
        }],
    }),
    "Subscription": _resource("Subscription", "v2alpha1", {
        "pubsubname!": _text,
        "topic!": _text,
        "routes!": {"default": _text, "rules": [{"match!": _text, "path!": _text}]},
        "deadLetterTopic": _text,
        "metadata": {"*": _anything},
        "bulkSubscribe": {"enabled!": _flag, "maxMessagesCount": _whole, "maxAwaitDurationMs": _whole},
    }),
    "Resiliency": _resource("Resiliency", "v1alpha1", {
        "policies!": {
            "timeouts": {"*": _duration},
            "retries": {"*": {
                "policy": _one_of("constant", "exponential"), "duration": _duration, "maxInterval": _duration,
                "maxRetries": _whole, "matching": {"httpStatusCodes": _text, "gRPCStatusCodes": _text},
            }},
            "circuitBreakers": {"*": {
                "maxRequests": _whole, "interval": _duration, "timeout": _duration, "trip": _text,
            }},
        },
        "targets!": {
            "apps": {"*": {**_POLICY_NAMES, "circuitBreakerCacheSize": _whole}},
            "components": {"*": {"inbound": _POLICY_NAMES, "outbound": _POLICY_NAMES}},
        },
    }),
    "Configuration": _resource("Configuration", "v1alpha1", {
        "api": {"allowed": _API, "denied": _API},
        "accessControl": {"defaultAction": _ACTION, "trustDomain": _text, "policies": [_anything]},
        "components": {"deny": [_text]},
        "features": [{"name!": _text, "enabled!": _flag}],
        "logging": {"apiLogging": {"enabled": _flag, "obfuscateURLs": _flag, "omitHealthChecks": _flag}},
        "metrics": {"enabled": _flag, "recordErrorCodes": _flag, "http": _anything, "rules": [_anything],
                    "latencyDistributionBuckets": [_whole]},
        "mtls": {"enabled!": _flag, "workloadCertTTL": _duration, "allowedClockSkew": _duration,
                 "controlPlaneTrustDomain": _text, "sentryAddress": _text},
        "nameResolution": {"component!": _text, "version": _text, "configuration": _anything},
        "secrets": {"scopes": [{"storeName!": _text, "defaultAccess": _ACTION, "allowedSecrets": [_text],
                                "deniedSecrets": [_text]}]},
        "tracing": {
            "samplingRate": _text, "stdout": _flag, "zipkin": {"endpointAddress": _text},
            "otel": {"protocol": _one_of("grpc", "http"), "endpointAddress": _text, "isSecure": _flag,
                     "headers": [_anything], "timeout": _duration},
        },
    }),
}  # fmt: skip
"""By kind."""


def _all(names: str, check: Check = _anything) -> dict[str, Check]:
    return dict.fromkeys(names.split(), check)


_SCOPING = _all("publishingScopes subscriptionScopes", _topics) | _all("allowedTopics protectedTopics consumerID")
_REDIS = (
    _all("redisHost redisPort redisPassword redisUsername sentinelUsername sentinelPassword sentinelMasterName "
         "clientCert clientKey")
    | _all("redisType", _one_of("node", "cluster"))
    | _all("enableTLS insecureSkipTLSVerify failover useEntraID", _flag)
    | _all("redisDB redisMaxRetries poolSize minIdleConns", _whole)
    | _all("redisMinRetryInterval redisMaxRetryInterval dialTimeout readTimeout writeTimeout poolTimeout maxConnAge "
           "idleTimeout idleCheckFrequency", _duration_or_whole)
)  # fmt: skip

METADATA: Final[Mapping[tuple[str, str], Mapping[str, Check]]] = {
    ("state.redis", "v1"): {
        **_REDIS, **_all("keyPrefix queryIndexes actorStateStore"), **_all("ttlInSeconds", _whole),
    },
    ("pubsub.redis", "v1"): {
        **_REDIS, **_SCOPING,
        **_all("concurrency queueDepth maxLenApprox", _whole),
        **_all("processingTimeout redeliverInterval", _milliseconds),
        **_all("streamTTL", _duration),
    },
    ("pubsub.kafka", "v1"): {
        **_SCOPING,
        **_all("brokers consumerGroup clientID version caCert clientCert clientKey saslUsername saslPassword "
               "saslMechanism oidcTokenEndpoint oidcClientID oidcClientSecret oidcScopes oidcExtensions compression "
               "schemaRegistryURL schemaRegistryAPIKey schemaRegistryAPISecret excludeHeaderMetaRegex"),
        **_all("authType", _one_of("none", "password", "mtls", "oidc", "oidc_private_key_jwt",
                                "certificate", "awsiam")),
        **_all("initialOffset", _one_of("newest", "oldest")),
        **_all("consumerGroupRebalanceStrategy", _one_of("range", "sticky", "roundrobin")),
        **_all("disableTls skipVerify consumeRetryEnabled escapeHeaders useAvroJSON schemaCachingEnabled", _flag),
        **_all("maxMessageBytes channelBufferSize consumerFetchMin consumerFetchDefault", _whole),
        **_all("consumeRetryInterval heartbeatInterval sessionTimeout clientConnectionTopicMetadataRefreshInterval "
               "clientConnectionKeepAliveInterval schemaLatestVersionCacheTTL", _duration_or_whole),
    },
    ("state.postgresql", "v2"): {
        **_all("connectionString host hostaddr port database user password sslRootCert tablePrefix metadataTableName "
               "queryExecMode keyPrefix actorStateStore"),
        **_all("maxConns", _whole),
        **_all("timeout cleanupInterval connectionMaxIdleTime", _duration_or_whole),
        **_all("useAWSIAM useAzureAD", _flag),
    },
    ("secretstores.local.file", "v1"): {**_all("secretsFile nestedSeparator"), **_all("multiValued", _flag)},
    ("secretstores.kubernetes", "v1"): _all("kubeconfigPath defaultNamespace"),
}  # fmt: skip
"""By a component's type and version."""
