"""The gateway's certificate, which Envoy reads again when it is replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from pathlib import Path

_COMMON = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
CERTIFICATE, KEY, CLIENT_CA = "tls.crt", "tls.key", "ca.crt"
"""As Kubernetes names them in a secret of the type kubernetes.io/tls."""


def transport_socket(folder: Path | None) -> dict[str, Any] | None:
    """Envoy's TLS for the listener; None where there is no folder.

    Raises:
        FailedPrecondition: CERTIFICATES_MISSING.
    """
    if folder is None:
        return None
    for name in (CERTIFICATE, KEY):
        if not (folder / name).is_file():
            raise FailedPrecondition(f"There is no {folder / name}.", reason="CERTIFICATES_MISSING")
    context: dict[str, Any] = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificates": [{
            "certificate_chain": {"filename": str(folder / CERTIFICATE)},
            "private_key": {"filename": str(folder / KEY)},
            "watched_directory": {"path": str(folder)},
        }],
    }  # fmt: skip
    required = {}
    if (folder / CLIENT_CA).is_file():
        context["validation_context"] = {"trusted_ca": {"filename": str(folder / CLIENT_CA)},
                                         "watched_directory": {"path": str(folder)}}  # fmt: skip
        required = {"require_client_certificate": True}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": f"{_COMMON}.DownstreamTlsContext", "common_tls_context": context, **required},
    }


def listener_filters(folder: Path | None) -> list[dict[str, Any]] | None:
    """What reads the name that a client asks for; None without TLS."""
    if folder is None:
        return None
    inspector = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"
    return [{"name": "envoy.filters.listener.tls_inspector", "typed_config": {"@type": inspector}}]
