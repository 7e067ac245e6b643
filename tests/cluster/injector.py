"""Dapr's control plane as far as Pods meet it before they run: its sentry, and its injector as the webhook that it is.

Both are the real ones, told of things as Dapr's chart does; what pods of theirs
would be given, they are given here: tokens that name pods, and the trust anchors.
"""

from __future__ import annotations

import contextlib
import urllib.request
from http import HTTPStatus
from typing import TYPE_CHECKING

from tests.contract.harness import free_port

if TYPE_CHECKING:
    from .controlplane import ControlPlane

NAMESPACE = "dapr-system"
IMAGE = "daprio/daprd:1.18.1"
_INJECTOR = "dapr-sidecar-injector"
_TRUST = "dapr-trust-bundle"
_DOMAIN = "cluster.local"
_AUDIENCE = f"spiffe://{_DOMAIN}/ns/{NAMESPACE}/dapr-sentry"

_ENVIRONMENT = {
    "NAMESPACE": NAMESPACE,
    # What keeps an image from running as root there would keep tests from running as root here.
    "DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK": "true",
}


def start(cluster: ControlPlane) -> None:
    """Starts both, and has the API server ask the injector about each new Pod."""
    sentry, port, health = free_port(), free_port(), free_port()
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    cluster.apply(
        {"apiVersion": "dapr.io/v1alpha1", "kind": "Configuration", "metadata": _named("daprsystem"),
         "spec": {"mtls": {"enabled": True, "controlPlaneTrustDomain": _DOMAIN,
                           "sentryAddress": f"127.0.0.1:{sentry}"}}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": _named(_TRUST)},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _named(_TRUST)},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _named(_INJECTOR)},
        {"apiVersion": "v1", "kind": "Pod",
         "metadata": {**_named(_INJECTOR), "annotations": {"dapr.io/control-plane": "injector"}},
         "spec": {"serviceAccountName": _INJECTOR, "containers": [{"name": "injector", "image": "injector"}]}},
    )  # fmt: skip
    credentials = cluster.folder / "credentials"
    credentials.mkdir()
    cluster.run(
        "sentry", "--mode=kubernetes", f"--kubeconfig={cluster.kubeconfig}", f"--trust-domain={_DOMAIN}",
        "--listen-address=127.0.0.1", f"--port={sentry}", f"--healthz-port={free_port()}",
        "--healthz-listen-address=127.0.0.1", "--enable-metrics=false",
        f"--issuer-credentials={credentials}", environment=_ENVIRONMENT,
    )  # fmt: skip
    cluster.until(lambda: _anchors(cluster), "sentry has made its certificates")
    anchors = cluster.folder / "anchors.pem"
    anchors.write_text(_anchors(cluster))
    token = cluster.folder / "injector.token"
    token.touch(mode=0o600)
    token.write_text(cluster.kubectl(
        "create", "token", _INJECTOR, f"--namespace={NAMESPACE}", f"--audience={_AUDIENCE}",
        "--bound-object-kind=Pod", f"--bound-object-name={_INJECTOR}",
    ).stdout.strip())  # fmt: skip
    _register(cluster, port)
    cluster.run(
        "injector", f"--kubeconfig={cluster.kubeconfig}", f"--port={port}", f"--healthz-port={health}",
        "--healthz-listen-address=127.0.0.1", "--enable-metrics=false",
        environment={
            **_ENVIRONMENT, "SIDECAR_IMAGE": IMAGE, "KUBE_CLUSTER_DOMAIN": _DOMAIN,
            "DAPR_SENTRY_ADDRESS": f"127.0.0.1:{sentry}", "DAPR_SENTRY_TOKEN_FILE": str(token),
            "DAPR_TRUST_ANCHORS_FILE": str(anchors), "DAPR_CONTROL_PLANE_TRUST_DOMAIN": _DOMAIN,
            # What docs/kubernetes.md asks of Dapr's chart.
            "SIDECAR_DROP_ALL_CAPABILITIES": "true",
        },
    )  # fmt: skip
    cluster.until(lambda: _healthy(health), "the injector serves, and has told the API server whom to trust")


def stop(cluster: ControlPlane) -> None:
    """Has the API server ask nobody any more: where the injector does not answer, no Pod would come to be."""
    cluster.kubectl("delete", "mutatingwebhookconfiguration", _INJECTOR, "--ignore-not-found")


def _register(cluster: ControlPlane, port: int) -> None:
    """As Dapr's chart does, but that its Service is an alias of the loopback, where there are no pods."""
    cluster.apply(
        {"apiVersion": "v1", "kind": "Service", "metadata": _named(_INJECTOR),
         "spec": {"type": "ExternalName", "externalName": "localhost"}},
        {"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
         "metadata": {"name": _INJECTOR},
         "webhooks": [{
             "name": "sidecar-injector.dapr.io", "reinvocationPolicy": "IfNeeded", "failurePolicy": "Fail",
             "sideEffects": "None", "admissionReviewVersions": ["v1", "v1beta1"],
             # Whom to trust, the injector tells it.
             "clientConfig": {
                 "service": {"namespace": NAMESPACE, "name": _INJECTOR, "path": "/mutate", "port": port},
             },
             "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}],
         }]},
    )  # fmt: skip


def _named(name: str) -> dict[str, str]:
    return {"name": name, "namespace": NAMESPACE}


def _anchors(cluster: ControlPlane) -> str:
    """PEM of the authorities of Dapr's certificates; nothing before sentry has made them."""
    return str(cluster.get("configmap", _TRUST, f"--namespace={NAMESPACE}").get("data", {}).get("ca.crt", ""))


def _healthy(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1) as answer:
        return bool(answer.status == HTTPStatus.OK)
    return False
