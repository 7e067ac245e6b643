"""The gateway's certificate. Envoy takes it from files that it watches, so that a renewed one needs no restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_TYPES = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
_CERTIFICATE, _KEY, _CLIENT_CA = "tls.crt", "tls.key", "ca.crt"
"""As Kubernetes names them in a secret of the type kubernetes.io/tls."""


def secrets(folder: Path | None) -> Mapping[str, Any]:
    """What Envoy reads the certificate and the clients' authority from: contents by file name.

    Only secrets that come from a file of their own (SDS) are read again when a file is moved into the folder.

    Args:
        folder: With tls.crt and tls.key, and ca.crt where clients must have certificates; None for no TLS.

    Raises:
        FailedPrecondition: CERTIFICATES_MISSING.
    """
    if folder is None:
        return {}
    for name in (_CERTIFICATE, _KEY):
        if not (folder / name).is_file():
            raise FailedPrecondition(f"There is no {folder / name}.", reason="CERTIFICATES_MISSING")
    watched = {"watched_directory": {"path": str(folder)}}
    own = {
        "certificate_chain": {"filename": str(folder / _CERTIFICATE)},
        "private_key": {"filename": str(folder / _KEY)},
        **watched,
    }
    found = {"certificate.json": _secret("certificate", "tls_certificate", own)}
    if (folder / _CLIENT_CA).is_file():
        trusted = {"trusted_ca": {"filename": str(folder / _CLIENT_CA)}, **watched}
        found["clients.json"] = _secret("clients", "validation_context", trusted)
    return found


def transport_socket(folder: Path, files: Mapping[str, Any]) -> dict[str, Any] | None:
    """Envoy's TLS for the listener; None without files.

    Args:
        folder: Where the files are.
        files: What `secrets` gave.
    """
    if not files:
        return None
    context: dict[str, Any] = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [_source("certificate", folder)],
    }
    if required := "clients.json" in files:
        context["validation_context_sds_secret_config"] = _source("clients", folder)
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPES}.DownstreamTlsContext", "common_tls_context": context,
            "require_client_certificate": required,
        },
    }  # fmt: skip


def _secret(name: str, kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    return {"resources": [{"@type": f"{_TYPES}.Secret", "name": name, kind: content}]}


def _source(name: str, folder: Path) -> dict[str, Any]:
    path = {"path_config_source": {"path": str(folder / f"{name}.json")}, "resource_api_version": "V3"}
    return {"name": name, "sds_config": path}
