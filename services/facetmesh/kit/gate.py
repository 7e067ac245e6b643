"""What stands between a caller who is known and the work: the policies, and the tenant's limits."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from facetmesh.kit import access
from facetmesh.kit.errors import PermissionDenied
from facetmesh.kit.policy import Circumstances, Policies, Question
from facetmesh.kit.profiles import Tenancy, Unlimited

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from google.protobuf.message import Message

    from facetmesh.kit.audit import Record
    from facetmesh.kit.identity import Principal

    ModelFacts = Callable[[str], Awaitable[Mapping[str, str]]]
    """What is known of tenants/{tenant}/models/{model}: its version and its licence; nothing of what is not there."""

_POLICY_SERVICE = "facetmesh.auth.v1.PolicyService/"
_log = logging.getLogger(__name__)


class Gate:
    """Decides on calls whose caller is known.

    Args:
        policies: The policies in force; those that are shipped when None.
        tenancy: What is known of the tenants.
        region: Where this process runs.
        facts: What is known of models, where this service knows more than their names.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        policies: Policies | None = None,
        tenancy: Tenancy | None = None,
        *,
        region: str = "",
        facts: ModelFacts | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._policies = policies or Policies()
        self._tenancy = tenancy or Unlimited()
        self._region = region
        self._facts = facts
        self._clock = clock

    async def authorize(self, principal: Principal, request: Message, record: Record) -> None:
        """Returns when the policies allow the call; what decided goes into the record.

        Raises:
            PermissionDenied: POLICY_DENIED.
        """
        if _beyond_policies(principal, record.method):
            return
        now = Circumstances(
            self._clock(), self._region, self._tenancy.profile(principal.tenant or "").plan, record.source_address
        )
        deciding: list[str] = []
        for resource in sorted(access.models(principal, request)) or [_tenant(principal, request)]:
            question = Question(
                principal.subject, principal.tenant, principal.roles, record.method, resource,
                await self._known(principal, resource),
            )  # fmt: skip
            decision = self._policies.decide(question, now)
            if not decision.allowed:
                record.deciding_policies = decision.deciding
                if decision.errors:
                    _log.error("a policy cannot be evaluated", extra={"errors": decision.errors})
                raise PermissionDenied("A policy does not allow this.", reason="POLICY_DENIED")
            deciding += decision.deciding
        record.deciding_policies = tuple(dict.fromkeys(deciding))

    async def _known(self, principal: Principal, resource: str) -> tuple[tuple[str, str], ...]:
        if self._facts is None or "/models/" not in resource or not self._policies.reads_facts(principal.tenant):
            return ()
        return tuple(sorted((await self._facts(resource)).items()))


def _beyond_policies(principal: Principal, method: str) -> bool:
    """Whether a policy that stopped this could not be taken back: the mesh's own talk, and setting policies."""
    own_talk = principal.tenant is None and "service" in principal.roles
    return own_talk or (principal.is_platform_admin and method.startswith(_POLICY_SERVICE))


def _tenant(principal: Principal, request: Message) -> str:
    """The tenant that a request is about; "" where it is about none."""
    for name in access.named(principal, request):
        if name.startswith("tenants/"):
            return "/".join(name.split("/")[:2])
    return principal.tenant or ""
