"""What a service knows of the tenants it serves, and what it tells of its work for them.

Auth sends a tenant's profile and its share of each limit with every lease
(`kit.leases`); nothing here asks anybody on the way of a call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Profile:
    """A tenant's settings, as its services follow them. The defaults are the careful ones."""

    plan: str = ""
    """The plan's id; empty while nothing is known of the tenant."""
    weight: float = 1.0
    """Its part of shared compute, relative to the other tenants'."""
    region: str = ""
    """Where it is to be served; anywhere when empty."""
    best_effort_audit: bool = False
    """Whether answers may leave before their audit event was accepted."""
    allowed_models: tuple[str, ...] = ()
    """Ids of the only models that it may create and call, with * for any characters; any when empty."""
    licence_classes: frozenset[str] = frozenset({"permissive"})
    """The classes of licences that it may use: permissive, copyleft, non-commercial."""
    licences: frozenset[str] = frozenset()
    """The licences that it may use beside them, by SPDX identifier."""
    url_allowlist: tuple[str, ...] = ()
    """The only hosts from which its inputs may be fetched, with *. for all below a name; none when empty."""
    result_days: int = 0
    """For how many whole days results are kept after the day on which they were made; 0 for what the operator set."""


class Profiles(Protocol):
    """Who knows the tenants' settings."""

    def profile(self, tenant: str) -> Profile:
        """The settings of tenants/{tenant}; the careful defaults where nothing is known of it yet."""
        ...


class Charges(Protocol):
    """Who counts the work that is done for tenants."""

    def charge(
        self, tenant: str, subject: str, *, model: str = "", images: int = 0, compute_s: float = 0.0
    ) -> None:
        """Counts work that was done, after it was. Costs nothing, refuses nothing: the next call is refused.

        Args:
            tenant: For whom: tenants/{tenant}.
            subject: On whose behalf: the principal's subject, such as tenants/{tenant}/keys/{key}.
            model: The model that did it: tenants/{tenant}/models/{model}; empty where there is none.
            images: How many images it was.
            compute_s: How long it kept a compute slot busy, in seconds.
        """
        ...

    async def hold(self, tenant: str, *, stored_bytes: int, models: int) -> None:
        """Has the tenant hold this much with the calling service: its totals as they will be after a change.

        Call it before the change, and again with less after something was removed.

        Raises:
            ResourceExhausted: It would be more than the tenant may have, together with what other services hold.
        """
        ...


class Tenancy(Profiles, Charges, Protocol):
    """Both."""


class Unlimited:
    """Knows of no tenant and limits none: for a service that stands alone, as in tests.

    Args:
        profile: What every tenant has; every class of licence when None.
    """

    def __init__(self, profile: Profile | None = None) -> None:
        self._profile = profile or Profile(
            licence_classes=frozenset({"permissive", "copyleft", "non-commercial"})
        )

    def profile(self, tenant: str) -> Profile:
        """The same for every tenant."""
        del tenant
        return self._profile

    def charge(
        self, tenant: str, subject: str, *, model: str = "", images: int = 0, compute_s: float = 0.0
    ) -> None:
        """Nothing is counted."""

    async def hold(self, tenant: str, *, stored_bytes: int, models: int) -> None:
        """Nothing is refused."""
