"""Where a call comes from, and who may say so."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from facetmesh.kit.gateways import Gateway
from facetmesh.kit.source import address, source

NAME = "spiffe://facetmesh.local/gateway"


@dataclass
class Call:
    """As much of gRPC's context as is looked at."""

    metadata: dict[str, str] = field(default_factory=dict)
    names: tuple[bytes, ...] = ()

    def peer(self) -> str:
        """Who connected."""
        return "ipv4:192.0.2.1:5000"

    def invocation_metadata(self) -> Any:
        """What was sent along."""
        return tuple(self.metadata.items())

    def auth_context(self) -> dict[str, tuple[bytes, ...]]:
        """What the connection's certificate says."""
        return {"x509_subject_alternative_name": self.names} if self.names else {}


@pytest.mark.parametrize(
    ("gateway", "shown", "names", "believed"),
    [
        (Gateway(token="t"), "t", (), True),
        (Gateway(token="t"), "x", (), False),
        (Gateway(token="t"), "", (), False),
        (Gateway(token="t"), "t\u00e9", (), False),
        (Gateway(), "", (), False),
        (Gateway(NAME), "", (NAME.encode(),), True),
        (Gateway(NAME), "", (NAME.encode() + b"2",), False),
        (Gateway(), "", (b"",), False),
    ],
)
def test_only_the_gateway_names_another_address_than_its_own(
    gateway: Gateway, shown: str, names: tuple[bytes, ...], *, believed: bool
) -> None:
    call = Call({"x-facetmesh-source": "203.0.113.9", "x-facetmesh-gateway": shown}, names)
    assert source(call, gateway) == ("203.0.113.9" if believed else "192.0.2.1")


def test_without_headers_it_is_who_connected() -> None:
    assert source(Call(), Gateway(NAME, "t")) == "192.0.2.1"


@pytest.mark.parametrize(
    ("peer", "wanted"),
    [("ipv4:127.0.0.1:5000", "127.0.0.1"), ("ipv6:%5B::1%5D:5000", "::1"), ("unix:/run/x", "unix"), ("", "")],
)
def test_an_address_is_read_from_grpcs_peer(peer: str, wanted: str) -> None:
    assert address(peer) == wanted
