"""Istio's control plane and an Envoy that it configures as the gateway, beside an API server."""

from __future__ import annotations

import contextlib
import json
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.contract.harness import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .controlplane import ControlPlane

NAMESPACE = "istio-ingress"
_HOST = "detection.facetmesh.svc.cluster.local"
_NOBODY = "127.0.0.9"
"""The gateway's own address: one that no endpoint has, else istiod gives the gateway that endpoint's labels."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """An Envoy that has what istiod tells it."""

    port: int
    """Where it takes plain HTTP/2."""
    admin: int
    """Its administration, HTTP."""


def put_behind(cluster: ControlPlane, ports: Mapping[str, int]) -> None:
    """Has these ports of the loopback be detection's subsets, in place of the Service that pods would stand behind."""
    cluster.kubectl("delete", "service", "detection", "--namespace=facetmesh", "--ignore-not-found")
    cluster.apply({
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": {"name": "detection", "namespace": "facetmesh"},
        "spec": {
            "hosts": [_HOST], "location": "MESH_INTERNAL", "resolution": "STATIC",
            "ports": [{"number": 7400, "name": "grpc", "protocol": "GRPC"}],
            "endpoints": [
                {"address": "127.0.0.1", "ports": {"grpc": port}, "labels": {"app": "detection", "version": subset}}
                for subset, port in ports.items()
            ],
        },
    })  # fmt: skip


def start(cluster: ControlPlane) -> Gateway:
    """Starts istiod, and an Envoy for the Gateway resources that select istio: ingressgateway on port 8080.

    The rig has no certificates: what is mutual TLS in the manifests, the test turns off.
    """
    xds = free_port()
    mesh = cluster.folder / "mesh.yaml"
    mesh.write_text(json.dumps({"enableAutoMtls": False, "accessLogFile": ""}))
    networks = cluster.folder / "networks.yaml"
    networks.write_text("networks: {}\n")
    cluster.run(
        "pilot-discovery", "discovery", f"--kubeconfig={cluster.kubeconfig}", f"--meshConfig={mesh}",
        f"--networksConfig={networks}", f"--grpcAddr=127.0.0.1:{xds}", "--httpsAddr=", "--secureGRPCAddr=",
        f"--httpAddr=127.0.0.1:{free_port()}", f"--monitoringAddr=127.0.0.1:{free_port()}",
        f"--ctrlz_port={free_port()}", "--namespace=istio-system",
        environment={
            # Filters that only Istio's own build of Envoy has.
            "PILOT_ENABLE_METADATA_EXCHANGE": "false",
            "PILOT_ENABLE_ALPN_FILTER": "false",
            "ENABLE_CA_SERVER": "false",
            "VALIDATION_WEBHOOK_CONFIG_NAME": "",
            "INJECTION_WEBHOOK_CONFIG_NAME": "",
        },
    )  # fmt: skip
    cluster.until(lambda: _listens(xds), "istiod serves")
    gateway = Gateway(free_port(), free_port())
    bootstrap = cluster.folder / "envoy.json"
    bootstrap.write_text(json.dumps(_bootstrap(gateway, xds)))
    cluster.run("envoy", "--config-path", str(bootstrap), "--disable-hot-restart", "--concurrency", "1")
    cluster.until(lambda: _listens(gateway.admin), "Envoy runs")
    return gateway


def _bootstrap(gateway: Gateway, xds: int) -> dict[str, object]:
    source = {"ads": {}, "resource_api_version": "V3"}
    return {
        "node": {
            "id": f"router~{_NOBODY}~gateway.{NAMESPACE}~{NAMESPACE}.svc.cluster.local",
            "cluster": f"gateway.{NAMESPACE}",
            "metadata": {
                "NAMESPACE": NAMESPACE, "CLUSTER_ID": "Kubernetes", "ISTIO_VERSION": "1.31.1",
                "LABELS": {"istio": "ingressgateway"}, "INSTANCE_IPS": _NOBODY, "PROXY_CONFIG": {},
            },
        },
        "admin": {"address": _address(gateway.admin)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC", "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
            "lds_config": source,
            "cds_config": source,
        },
        "static_resources": {
            "clusters": [{
                "name": "xds", "type": "STATIC", "connect_timeout": "5s",
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": {"http2_protocol_options": {}},
                    }
                },
                "load_assignment": {
                    "cluster_name": "xds",
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(xds)}}]}],
                },
            }],
        },
    }  # fmt: skip


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
