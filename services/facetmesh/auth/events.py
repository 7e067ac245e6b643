"""Events of auth: what is revoked, for those who do not watch, and what no call caused, for the audit log."""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING

from facetmesh.kit.errors import FacetmeshError
from facetmesh.kit.tokens import REVOCATIONS_TOPIC, revocation_message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from facetmesh.kit.audit import Recorder
    from facetmesh.kit.dapr import Publisher
    from facetmesh.kit.revocations import Revocation

EVENT_TYPE = "facetmesh.event.v1.Revocation"
_log = logging.getLogger(__name__)


class RevocationEvents:
    """Publishes revocations.

    Args:
        publisher: Where events go.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    async def announce(self, revocation: Revocation) -> None:
        """Publishes one. Where that fails, those who watch hear of it all the same."""
        data = revocation_message(revocation).SerializeToString()
        try:
            await self._publisher.publish(
                REVOCATIONS_TOPIC, data, event_id=secrets.token_hex(16), type=EVENT_TYPE
            )
        except FacetmeshError as error:
            _log.warning("a revocation was not published", extra={"reason": error.reason})


def purge_accountant(recorder: Recorder) -> Callable[[str], Awaitable[None]]:
    """What records that a tenant was purged, and returns when the record is durable.

    It is the platform's event: the tenant's own can be read no more.
    """
    async def account(tenant_id: str) -> None:
        async with recorder.record(method="facetmesh.auth/purge-tenant", tenant="", subject="services/auth") as record:
            record.describe(resource=f"tenants/{tenant_id}")

    return account
