"""Budgets, usage and policies in Dapr state.

    ledgers/{tenant}                       what is used and held of a tenant's limits
    usage/{tenant}/{day}                   what was done in a day, by hour and model
    policies/register                      which policies are in force
    {owner}/policies/{version}             a set of policies, of tenants/{tenant} or platform
    {owner}/policies/index/…               hints for lists
"""  # noqa: D208 - a table

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from facetmesh.auth.ledger import Account, Holding, Ledger, ReportSeen, Stake
from facetmesh.auth.policies import Active, Policy, Register
from facetmesh.auth.usage import Counts, Day
from facetmesh.kit.budgets import Amounts
from facetmesh.kit.errors import Aborted
from facetmesh.kit.index import Index

if TYPE_CHECKING:
    from collections.abc import Iterable

    from facetmesh.kit.dapr import State

_REGISTER = "policies/register"


class DaprLimitsStore:
    """The store of budgets, usage and policies.

    Args:
        state: Dapr state of the app auth.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    async def ledger(self, tenant_id: str) -> Ledger:
        """The ledger; a new one where there is none."""
        found, etag = await self._read(f"ledgers/{tenant_id}")
        if found is None:
            return Ledger(tenant_id)
        return Ledger(
            tenant_id,
            found["day"],
            found["hour"],
            {name: _account(account) for name, account in found["accounts"].items()},
            {replica: ReportSeen(**seen) for replica, seen in found["reports"].items()},
            {model: Counts(**counts) for model, counts in found["work"].items()},
            {service: Holding(**holding) for service, holding in found["holdings"].items()},
            etag,
        )

    async def save_ledger(self, ledger: Ledger) -> None:
        """Stores a ledger in place of the one that was read."""
        await self._write(f"ledgers/{ledger.tenant_id}", ledger, ledger.etag)

    async def usage_day(self, tenant_id: str, day: int) -> Day:
        """The usage of a day; an empty one where there is none."""
        found, etag = await self._read(f"usage/{tenant_id}/{day}")
        hours = {} if found is None else {
            int(hour): {model: Counts(**counts) for model, counts in work.items()}
            for hour, work in found["hours"].items()
        }  # fmt: skip
        return Day(day, hours, etag)

    async def save_usage_day(self, tenant_id: str, day: Day) -> None:
        """Stores a day in place of the one that was read."""
        await self._write(f"usage/{tenant_id}/{day.number}", day, day.etag)

    async def policy(self, owner: str, version: str) -> Policy | None:
        """A version."""
        found, _ = await self._read(f"{owner}/policies/{version}")
        return None if found is None else Policy(**found)

    async def create_policy(self, policy: Policy) -> bool:
        """Stores a new version; False when there is one."""
        await self._versions(policy.owner).add(policy.version)
        try:
            await self._write(policy.name, policy, "")
        except Aborted:
            return False
        return True

    async def policy_versions(self, owner: str) -> list[str]:
        """An owner's versions, the newest first."""
        return sorted(await self._versions(owner).ids(), key=int, reverse=True)

    async def register(self) -> Register:
        """What is in force."""
        found, etag = await self._read(_REGISTER)
        if found is None:
            return Register()
        return Register(found["sequence"], {owner: Active(**one) for owner, one in found["active"].items()}, etag)

    async def save_register(self, register: Register) -> None:
        """Stores the register in place of the one that was read."""
        await self._write(_REGISTER, register, register.etag)

    async def delete_all(self, tenant_id: str, days: Iterable[int]) -> None:
        """Deletes what is kept of a tenant: its policies, what it used, and its part of the limits.

        Args:
            tenant_id: Whose.
            days: The days, counted since the epoch, in which it may have used anything.

        Raises:
            Aborted: Policies were put in force meanwhile: try again.
        """
        owner = f"tenants/{tenant_id}"
        register = await self.register()
        if owner in register.active:
            others = {name: active for name, active in register.active.items() if name != owner}
            await self.save_register(replace(register, active=others))
        for version in await self._versions(owner).ids():
            await self._state.delete(f"{owner}/policies/{version}")
        await self._versions(owner).clear()
        for day in days:
            await self._state.delete(f"usage/{tenant_id}/{day}")
        await self._state.delete(f"ledgers/{tenant_id}")

    async def _read(self, key: str) -> tuple[Any, str]:
        entry = await self._state.get(key)
        return (None, "") if entry is None else (json.loads(entry.value), entry.etag)

    async def _write(self, key: str, record: Ledger | Day | Policy | Register, etag: str) -> None:
        fields = {name: value for name, value in asdict(record).items() if name not in {"etag", "tenant_id"}}
        await self._state.put(key, json.dumps(fields).encode(), etag=etag or None, create=not etag)

    def _versions(self, owner: str) -> Index:
        return Index(self._state, f"{owner}/policies")


def _account(found: dict[str, Any]) -> Account:
    stakes = {
        replica: Stake(one["until_s"], Amounts(**one["wanted"]), Amounts(**one["part"]))
        for replica, one in found["stakes"].items()
    }
    return Account(found["images"], found["compute_s"], stakes)
