"""What stands between a caller who is known and the work: the policies, and the tenant's limits."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from facetmesh.kit import access
from facetmesh.kit.errors import PermissionDenied
from facetmesh.kit.policy import Circumstances, Policies, Question
from facetmesh.kit.policy.vocabulary import action
from facetmesh.kit.profiles import Unlimited

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from google.protobuf.message import Message

    from facetmesh.kit.audit import Record
    from facetmesh.kit.identity import Principal
    from facetmesh.kit.leases import Leases
    from facetmesh.kit.profiles import Profiles

    ModelFacts = Callable[[str], Awaitable[Mapping[str, str]]]
    """What is known of tenants/{tenant}/models/{model}: its version and its licence; nothing of what is not there."""

_POLICY_SERVICE = "facetmesh.auth.v1.PolicyService/"
_log = logging.getLogger(__name__)


class Gate:
    """Decides on calls whose caller is known.

    Args:
        policies: The policies in force; those that are shipped when None.
        profiles: What is known of the tenants.
        limiter: Holds the tenants' limits; none are held when None.
        region: Where this process runs.
        facts: What is known of models, where this service knows more than their names.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        policies: Policies | None = None,
        profiles: Profiles | None = None,
        *,
        limiter: Leases | None = None,
        region: str = "",
        facts: ModelFacts | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._policies = policies or Policies()
        self._profiles = profiles or Unlimited()
        self._limiter = limiter
        self._region = region
        self._facts = facts
        self._clock = clock

    async def admit(self, principal: Principal, method: str) -> None:
        """Returns when the limits let a call in, as far as they count over time. It awaits for an account's first only.

        Raises:
            ResourceExhausted: A limit is reached.
        """
        tenant = _limited(principal)
        if self._limiter is None or tenant is None:
            return
        if not self._limiter.known(tenant, principal.subject):
            await self._limiter.introduce(tenant, principal.subject)
        self._limiter.admit(tenant, principal.subject, infers=action(method).infers)

    def enter(self, principal: Principal | None, method: str) -> Callable[[], None]:
        """Takes a place among the tenant's calls in progress; what is returned gives it back.

        Raises:
            ResourceExhausted: There is none.
        """
        if self._limiter is None or principal is None or not action(method).infers:
            return nothing
        tenant = _limited(principal)
        return nothing if tenant is None else self._limiter.enter(tenant, principal.subject)

    def need_not_wait(self, principal: Principal | None, method: str) -> bool:
        """Whether an answer may leave before its audit event was accepted: of work, where the tenant has it so."""
        if principal is None or principal.tenant is None or not action(method).infers:
            return False
        return self._profiles.profile(principal.tenant).best_effort_audit

    async def authorize(self, principal: Principal, request: Message, record: Record) -> None:
        """Returns when the policies allow the call; what decided goes into the record.

        Raises:
            PermissionDenied: POLICY_DENIED.
        """
        if _beyond_policies(principal, record.method):
            return
        now = Circumstances(
            self._clock(), self._region, self._profiles.profile(principal.tenant or "").plan, record.source_address
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


def nothing() -> None:
    """Gives nothing back, where nothing was taken."""


def _limited(principal: Principal) -> str | None:
    """The tenant whose limits count; None where none do: a service's call belongs to one that was let in."""
    return None if "service" in principal.roles else principal.tenant


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
