"""Where a call comes from: the address of who connected, or of whom the gateway says that it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from facetmesh.kit.gateways import Gateway

HEADER = "x-facetmesh-source"
"""The address that the gateway knows its caller by."""
_LONGEST = 64


def source(context: Any, gateway: Gateway) -> str:
    """The address of the caller, without port.

    Args:
        context: The call, as gRPC gives it to servicers.
        gateway: Who may name another than its own.
    """
    if gateway.speaks(context):
        return str(dict(context.invocation_metadata() or ()).get(HEADER, ""))[:_LONGEST]
    return address(context.peer())


def address(peer: str) -> str:
    """The address in gRPC's peer string: ipv4:127.0.0.1:5000, ipv6:%5B::1%5D:5000, or unix:path."""
    kind, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in {"ipv4", "ipv6"} else kind
