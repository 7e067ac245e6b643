"""Rollouts in Dapr state.

tenants/{tenant}/models/{model}/rollout                the last one
tenants/{tenant}/models/{model}/rollouts/{rollout}     those before it, which never change
tenants/{tenant}/models/{model}/rollouts/index/…       a hint for lists
rollouts/index/…                                       a hint for controllers: what they have to do
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from facetmesh.detection.rollout.record import Rollout
from facetmesh.kit.errors import Aborted
from facetmesh.kit.etags import etag_of
from facetmesh.kit.index import Index

if TYPE_CHECKING:
    from facetmesh.kit.dapr import State

_JSON = TypeAdapter(Rollout)


class DaprRolloutStore:
    """The store of rollouts.

    Args:
        state: Dapr state of the app detection.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._active = Index(state, "rollouts")

    async def active(self) -> list[str]:
        """The names of those that may have something to be done."""
        return await self._active.ids()

    async def current(self, model: str) -> Rollout | None:
        """The model's last rollout; None where it never had one."""
        return await self._read(f"{model}/rollout")

    async def put_current(self, rollout: Rollout) -> Rollout:
        """Stores a rollout over the one that has its etag, or a model's first one; Aborted where it cannot."""
        model = _model(rollout)
        if rollout.is_active:
            await self._active.add(rollout.name)
        await self._index(model).add(rollout.id)
        key = f"{model}/rollout"
        encoded = _encoded(rollout)
        await self._state.put(key, encoded, etag=rollout.etag or None, create=not rollout.etag)
        # Before, lest a crash hide it from controllers; and after, lest one that found no record yet has forgotten it.
        await (self._active.add if rollout.is_active else self._active.remove)(rollout.name)
        return replace(rollout, etag=await etag_of(self._state, key, encoded, before=rollout.etag))

    async def forget_active(self, name: str) -> None:
        """Nothing is to be done for it any more."""
        await self._active.remove(name)

    async def archive(self, rollout: Rollout) -> None:
        """Keeps a rollout that is over; once more changes nothing."""
        try:
            await self._state.put(rollout.name, _encoded(rollout), create=True)
        except Aborted:
            return

    async def archived(self, name: str) -> Rollout | None:
        """A rollout that was archived; None where there is none."""
        return await self._read(name)

    async def ids(self, model: str) -> list[str]:
        """The ids of a model's rollouts, sorted."""
        return await self._index(model).ids()

    async def delete_all(self, model: str) -> None:
        """Deletes all of a model's rollouts, what lists them last."""
        for rollout_id in await self.ids(model):
            await self._state.delete(f"{model}/rollouts/{rollout_id}")
            await self._active.remove(f"{model}/rollouts/{rollout_id}")
        await self._state.delete(f"{model}/rollout")
        await self._index(model).clear()

    def _index(self, model: str) -> Index:
        return Index(self._state, f"{model}/rollouts")

    async def _read(self, key: str) -> Rollout | None:
        entry = await self._state.get(key)
        return None if entry is None else replace(_JSON.validate_json(entry.value), etag=entry.etag)


def _model(rollout: Rollout) -> str:
    return rollout.name.partition("/rollouts/")[0]


def _encoded(rollout: Rollout) -> bytes:
    return _JSON.dump_json(replace(rollout, etag=""))
