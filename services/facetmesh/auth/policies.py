"""Policies as resources: versions that never change, one of each owner's active."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.budgets import ActivePolicy
from facetmesh.kit.errors import Aborted, FailedPrecondition, NotFound
from facetmesh.kit.policy import DEFAULT, PolicySet
from facetmesh.kit.updates import update

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MOST_VERSIONS = 1000
"""Versions of one owner."""
_MOST_AT_ONCE = 100
"""Policies that are told at once: a hundred of the largest stay below gRPC's 4 MiB."""
_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Policy:
    """A set of policies."""

    owner: str
    """tenants/{tenant} or platform."""
    version: str
    """1, 2, …, or default."""
    text: str
    description: str = ""
    created_s: float | None = None
    """When it was created, in seconds since the epoch; None for the default."""

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"{self.owner}/policies/{self.version}"


@dataclass(frozen=True, slots=True)
class Active:
    """Which version of an owner is in force."""

    version: str
    sequence: int
    """The place of its activation in the order of all."""


@dataclass(frozen=True, slots=True)
class Register:
    """What is in force."""

    sequence: int = 0
    """Of the newest activation that there ever was."""
    active: Mapping[str, Active] = field(default_factory=dict)
    """By owner; the default where there is none."""
    etag: str = ""

    def version(self, owner: str) -> str:
        """An owner's version that is in force."""
        found = self.active.get(owner)
        return DEFAULT if found is None else found.version


class PolicyStore(Protocol):
    """Where policies are kept."""

    async def policy(self, owner: str, version: str) -> Policy | None:
        """A version."""
        ...

    async def create_policy(self, policy: Policy) -> bool:
        """Stores a new version; False when there is one."""
        ...

    async def policy_versions(self, owner: str) -> list[str]:
        """An owner's versions, the newest first."""
        ...

    async def register(self) -> Register:
        """What is in force."""
        ...

    async def save_register(self, register: Register) -> None:
        """Stores the register in place of the one that was read.

        Raises:
            Aborted: It was changed since.
        """
        ...


class PolicyBook:
    """What can be done with policies.

    Args:
        store: Where they are kept.
        check: Raises InvalidArgument for a text that cannot be used.
        clock: Seconds since the epoch.
    """

    def __init__(self, store: PolicyStore, check: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._store = store
        self._check = check
        self._clock = clock

    async def create(self, owner: str, text: str, description: str) -> Policy:
        """A new version, not active yet.

        Raises:
            InvalidArgument: POLICY_INVALID.
            FailedPrecondition: POLICY_VERSIONS_FULL.
            Aborted: Too many are created at once.
        """
        self._check(text)
        for _ in range(_ATTEMPTS):
            versions = await self._store.policy_versions(owner)
            if len(versions) >= MOST_VERSIONS:
                raise FailedPrecondition(f"There are {MOST_VERSIONS} versions.", reason="POLICY_VERSIONS_FULL")
            version = str(max(map(int, versions), default=0) + 1)
            policy = Policy(owner, version, text, description, self._clock())
            if await self._store.create_policy(policy):
                return policy
        raise Aborted("Too many changes at once: try again.", retry_after_s=0.1)

    async def get(self, owner: str, version: str) -> Policy:
        """A version.

        Raises:
            NotFound: There is none.
        """
        if version == DEFAULT:
            return Policy(owner, DEFAULT, PolicySet.default(owner).text)
        policy = await self._store.policy(owner, version)
        if policy is None:
            raise NotFound("There is no such policy.", reason="POLICY_NOT_FOUND")
        return policy

    async def versions(self, owner: str) -> list[str]:
        """An owner's versions, the newest first, the default last."""
        return [*await self._store.policy_versions(owner), DEFAULT]

    async def active(self, owner: str) -> str:
        """The version that is in force."""
        return (await self._store.register()).version(owner)

    async def activate(self, owner: str, version: str) -> Policy:
        """Puts a version into force. One that is stays so.

        Raises:
            NotFound: There is none.
            InvalidArgument: POLICY_INVALID; what was good when it was written no longer is.
            Aborted: Too many are activated at once.
        """
        policy = await self.get(owner, version)
        self._check(policy.text)

        def activated(register: Register) -> Register:
            if register.version(owner) == version:
                return register
            sequence = register.sequence + 1
            return replace(register, sequence=sequence, active={**register.active, owner: Active(version, sequence)})

        await update(self._store.register, activated, self._store.save_register)
        return policy

    async def changes(self, after: int) -> tuple[Sequence[ActivePolicy], bool]:
        """What came into force after a sequence number, the oldest first, and whether there is more.

        Args:
            after: The number; beyond the newest (the store was set back), all.
        """
        register = await self._store.register()
        if after > register.sequence:
            after = 0
        news = sorted(
            ((one.sequence, owner, one.version) for owner, one in register.active.items() if one.sequence > after)
        )
        found = [
            ActivePolicy(owner, "", "", sequence) if version == DEFAULT
            else ActivePolicy(owner, (policy := await self.get(owner, version)).name, policy.text, sequence)
            for sequence, owner, version in news[:_MOST_AT_ONCE]
        ]  # fmt: skip
        return found, len(news) > _MOST_AT_ONCE
