"""Channels to the services."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import grpc

from facetmesh import __version__
from facetmesh.client.retries import service_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facetmesh.client.endpoints import Tls

MAX_MESSAGE_BYTES = 64 << 20
"""As much as the services read: two images of 20 MB each, and enough above to be told what is wrong."""


def open_channel(
    address: str, tls: Tls | None, interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
) -> grpc.aio.Channel:
    """A channel to a service.

    Args:
        address: host:port.
        tls: How it is encrypted; None for not at all.
        interceptors: What is added to each call.
    """
    options = [
        ("grpc.service_config", json.dumps(service_config())),
        # A request must be kept whole to be sent again; gRPC's default keeps 256 KiB.
        ("grpc.per_rpc_retry_buffer_size", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.primary_user_agent", f"facetmesh-python/{__version__}"),
    ]
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options, interceptors=interceptors)
    credentials = grpc.ssl_channel_credentials(tls.root_certificates, tls.private_key, tls.certificate_chain)
    return grpc.aio.secure_channel(address, credentials, options=options, interceptors=interceptors)
