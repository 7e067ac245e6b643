"""The gateway, as services recognise it: what it says of its callers is believed, and nobody else's word."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import Any

TOKEN_HEADER = "x-facetmesh-gateway"  # noqa: S105 - a header's name
"""What a gateway without a certificate of its own is recognised by."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """How a gateway is recognised; with neither, none is."""

    name: str = ""
    """A URI or DNS name in its certificate, where connections are mutually authenticated."""
    token: str = field(default="", repr=False)
    """What it sends along, where it and the services are on one machine."""

    def speaks(self, context: Any) -> bool:
        """Whether a call comes from it.

        Args:
            context: The call, as gRPC gives it to servicers.
        """
        if self.name and self.name.encode() in context.auth_context().get("x509_subject_alternative_name", ()):
            return True
        if not self.token:
            return False
        shown = dict(context.invocation_metadata() or ()).get(TOKEN_HEADER, "")
        return hmac.compare_digest(str(shown).encode(), self.token.encode())
