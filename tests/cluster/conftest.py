"""The control plane that the tests of manifests, canaries and rollouts share."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key

from facetmesh.cli.mesh import binaries

from . import gateway as gateways
from . import prometheus as prometheuses
from .controlplane import control_plane

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .controlplane import ControlPlane

ROOT = Path(__file__).resolve().parents[2]
K8S = ROOT / "k8s"
_KEY = generate_private_key(SECP256R1())
_BUILD_S = 3600


@pytest.fixture(scope="session")
def parts() -> Any:
    """The control plane's programs and resource definitions, built and fetched if they are not here."""
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "cluster.py"], stdout=subprocess.PIPE, text=True, check=True,
        timeout=_BUILD_S,
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def cluster(parts: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server that knows the resources of Istio, Dapr, KEDA and the Prometheus operator."""
    with control_plane(tmp_path_factory.mktemp("cluster"), parts["programs"]) as cluster:
        cluster.define(parts["definitions"])
        for namespace in ("istio-ingress", "istio-system"):
            cluster.kubectl("create", "namespace", namespace)
        yield cluster


@pytest.fixture(scope="session")
def envoy(cluster: ControlPlane) -> gateways.Gateway:
    """The gateway, with nothing to do yet."""
    cluster.programs = {**cluster.programs, "envoy": str(binaries.envoy())}
    return gateways.start(cluster)


@pytest.fixture(scope="session")
def prometheus(cluster: ControlPlane) -> prometheuses.Prometheus:
    """A Prometheus with our rules, and nothing to scrape yet."""
    return prometheuses.start(cluster)


@pytest.fixture(scope="module")
def gateway(cluster: ControlPlane, envoy: gateways.Gateway) -> gateways.Gateway:
    """The gateway, with our manifests but for what needs certificates, whatever other tests have applied meanwhile."""
    public = jwt.algorithms.ECAlgorithm.to_jwk(_KEY.public_key(), as_dict=True) | {"kid": "one", "alg": "ES256"}
    rendered = yaml.safe_load_all(cluster.kubectl("kustomize", str(K8S / "overlays" / "dev")).stdout)
    istio = [one for one in rendered if "istio.io" in one["apiVersion"] or one["kind"] == "Namespace"]
    for one in istio:
        if one["kind"] == "Gateway":
            server = one["spec"]["servers"][0]
            server["port"] = {"number": envoy.port, "name": "http2", "protocol": "HTTP2"}
            del server["tls"]
        if one["kind"] == "DestinationRule":
            one["spec"]["trafficPolicy"]["tls"] = {"mode": "DISABLE"}
        if one["kind"] == "RequestAuthentication":  # no pod of auth is there to be asked
            (rule,) = one["spec"]["jwtRules"]
            del rule["jwksUri"]
            rule["jwks"] = json.dumps({"keys": [public]})
    cluster.apply(*istio)
    return envoy


def token(tenant_id: str, key: EllipticCurvePrivateKey = _KEY) -> str:
    """A token as auth would sign it."""
    now = int(time.time())
    claims = {
        "iss": "https://facetmesh.local/auth", "aud": "facetmesh", "sub": f"tenants/{tenant_id}/keys/one",
        "tenant": f"tenants/{tenant_id}", "iat": now, "exp": now + 3600,
    }  # fmt: skip
    return jwt.encode(claims, key, "ES256", {"kid": "one"})
