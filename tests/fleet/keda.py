"""KEDA's operator and its metrics server, as processes beside the API server."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.contract.harness import free_port
from tests.unit.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from .fleet import Fleet

FACETMESH = "facetmesh"
NAMESPACE = "keda"
_METRICS = "v1beta1.external.metrics.k8s.io"
_LONGEST_HEAD = 8192


@contextlib.asynccontextmanager
async def keda(fleet: Fleet, services: Mapping[str, int]) -> AsyncIterator[None]:
    """KEDA runs until the context ends.

    Args:
        fleet: Where.
        services: The ports of the loopback that services of the cluster are to be found at, by the name and port that
            our manifests call them by.
    """
    async with _names(services) as proxy:
        started = await asyncio.to_thread(_start, fleet, proxy)
        try:
            yield
        finally:
            # Else whoever asks the API server what there is would be told that a part is missing.
            fleet.cluster.kubectl("delete", "apiservice", _METRICS)
            for process in started:
                fleet.cluster.end(process)
            # What KEDA made goes on without it, and would take replicas beyond its bounds from whoever scales next.
            fleet.cluster.kubectl("delete", "horizontalpodautoscalers", "--all", f"--namespace={FACETMESH}")


def _start(fleet: Fleet, proxy: int) -> list[object]:
    cluster = fleet.cluster
    metrics, api = free_port(), free_port()
    certificates = cluster.folder / "keda"
    certificates.mkdir(exist_ok=True)
    _certify(certificates)
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        # KEDA reads what the pods' environment is made of.
        *(
            {
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": FACETMESH},
                "stringData": {key: "none"},
            }
            for name, key in (("blobs", "url"), ("dapr-api-token", "token"), ("dapr-app-token", "token"))
        ),
        # Addresses of the loopback cannot be endpoints; its name can be a service.
        {
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "keda-metrics-apiserver", "namespace": NAMESPACE},
            "spec": {"type": "ExternalName", "externalName": "localhost"},
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": _METRICS},
            "spec": {
                "group": "external.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100,
                "versionPriority": 100, "insecureSkipTLSVerify": True,
                "service": {"name": "keda-metrics-apiserver", "namespace": NAMESPACE, "port": api},
            },
        },
    )  # fmt: skip
    environment = {
        "KUBECONFIG": str(cluster.kubeconfig), "POD_NAMESPACE": NAMESPACE, "KEDA_CLUSTER_OBJECT_NAMESPACE": NAMESPACE,
        "WATCH_NAMESPACE": "",
        # No DNS of the cluster is here: a proxy knows where its names are.
        "HTTP_PROXY": f"http://127.0.0.1:{proxy}", "HTTPS_PROXY": f"http://127.0.0.1:{proxy}",
    }  # fmt: skip
    operator = cluster.run(
        "keda-operator", f"--metrics-service-bind-address=127.0.0.1:{metrics}", f"--cert-dir={certificates}",
        "--metrics-bind-address=0", f"--health-probe-bind-address=127.0.0.1:{free_port()}",
        environment=environment,
    )  # fmt: skip
    adapter = cluster.run(
        "keda-adapter", f"--metrics-service-address=127.0.0.1:{metrics}", f"--cert-dir={certificates}",
        "--bind-address=127.0.0.1", f"--secure-port={api}", f"--port={free_port()}",
        f"--client-ca-file={certificates / 'ca.crt'}",
        f"--tls-cert-file={certificates / 'tls.crt'}", f"--tls-private-key-file={certificates / 'tls.key'}",
        *(f"--{what}-kubeconfig={cluster.kubeconfig}" for what in ("lister", "authentication", "authorization")),
        environment=environment,
    )  # fmt: skip
    fleet.until(
        lambda: any(
            one["type"] == "Available" and one["status"] == "True"
            for one in cluster.get("apiservice", _METRICS).get("status", {}).get("conditions", [])
        ),
        "KEDA's metrics are served",
    )
    return [operator, adapter]


def _certify(folder: Path) -> None:
    authority = Authority()
    leaf = authority.leaf("keda")
    for name, content in (("ca.crt", authority.pem), ("tls.crt", leaf.certificate), ("tls.key", leaf.key)):
        (folder / name).write_bytes(content)


@contextlib.asynccontextmanager
async def _names(services: Mapping[str, int]) -> AsyncIterator[int]:
    """A proxy that leads to each service by its name in the cluster. Yields its port."""
    calls: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        calls.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await _serve(services, reader, writer)
        finally:
            calls.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=_LONGEST_HEAD)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def _serve(services: Mapping[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    method, name, _ = head.decode("latin-1").split(" ", 2)
    tunnel = method == "CONNECT"
    if not tunnel:  # plain HTTP: the address is whole, which servers take as well
        name = urlsplit(name).netloc
    if name not in services:
        writer.write(b"HTTP/1.1 502 Nobody has this name\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
        return
    there = await asyncio.open_connection("127.0.0.1", services[name])
    if tunnel:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    else:
        there[1].write(head)
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(_pass_on(reader, there[1]))
            both.create_task(_pass_on(there[0], writer))
    finally:
        there[1].close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # Either end may go when it likes.
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
