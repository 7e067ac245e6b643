"""Models: what each tenant can call, and which of their versions answers."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

from facetmesh.detection import splits
from facetmesh.detection.splits import Traffic
from facetmesh.kit.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from facetmesh.detection.versions import Version

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
STABLE = "stable"
"""The alias of the version that answers."""
MAX_VERSIONS = 1000
"""Of one model."""
_NUMBER = re.compile("[1-9][0-9]{0,8}")
"""A version's number: no other spellings of it, and none that is too long for `int`."""
_KEPT = 4096
_FRESH_S = 1.0
"""How long what was read of a model is taken for true: so late a replica hears of a moved alias."""
_STALE_S = 60.0
"""How long it is used while the store does not answer."""
_ATTEMPTS = 10


@dataclass(frozen=True, slots=True)
class Model:
    """A model that a tenant can call."""

    tenant_id: str
    id: str
    created_s: float
    """When it was created, in seconds since the epoch."""
    latest: int = 0
    """The highest number that a version of it ever had."""
    versions: tuple[int, ...] = ()
    """The numbers of the versions that there are, the oldest first."""
    aliases: Mapping[str, int] = field(default_factory=dict)
    """Names for versions, by their numbers."""
    traffic: Traffic = field(default_factory=Traffic)
    """How calls that name no version are split."""
    deleted: bool = False
    """Whether there is only the memory of its versions' numbers."""
    etag: str = ""

    @property
    def name(self) -> str:
        """The resource name."""
        return f"tenants/{self.tenant_id}/models/{self.id}"

    def number(self, version: str) -> int:
        """The number that a version's number or alias stands for.

        Raises:
            NotFound: VERSION_NOT_FOUND: it stands for none.
        """
        number = int(version) if _NUMBER.fullmatch(version) else self.aliases.get(version, 0)
        if number not in self.versions:
            raise NotFound("The model has no such version or alias.", reason="VERSION_NOT_FOUND")
        return number


class ModelStore(Protocol):
    """Where models are kept."""

    async def model(self, tenant_id: str, model_id: str) -> Model | None:
        """The model, a deleted one too."""

    async def put_model(self, model: Model) -> Model:
        """Stores a model over what has its etag, or a new one when it has none.

        Raises:
            Aborted: Somebody else changed it meanwhile.
        """
        ...

    async def model_ids(self, tenant_id: str) -> list[str]:
        """The ids of the tenant's models, sorted."""
        ...

    async def version(self, tenant_id: str, model_id: str, number: int) -> Version | None:
        """The version."""

    async def create_version(self, version: Version) -> bool:
        """Stores a new version; False when there is one with its number."""
        ...

    async def delete_version(self, version: Version) -> None:
        """Deletes a version."""


class Models:
    """What can be done with models.

    Args:
        store: Where they are kept.
        serves: The alias that this process answers with where a call names no
            version and the model has that alias; by the model's traffic when
            empty. For deployments that split by replica.
        clock: Seconds that never go back.
    """

    def __init__(
        self, store: ModelStore, *, serves: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._serves = serves
        self._clock = clock
        self._models: OrderedDict[tuple[str, str], tuple[float, Model]] = OrderedDict()
        self._versions: OrderedDict[tuple[str, str, int], Version] = OrderedDict()

    async def get(self, tenant_id: str, model_id: str) -> Model:
        """The model, as it is now.

        Raises:
            NotFound: MODEL_NOT_FOUND: the tenant has none with that id.
        """
        model = await self._store.model(tenant_id, model_id)
        if model is None or model.deleted:
            self._models.pop((tenant_id, model_id), None)
            raise NotFound("There is no such model.", reason="MODEL_NOT_FOUND")
        _keep(self._models, (tenant_id, model_id), (self._clock(), model))
        return model

    async def ids(self, tenant_id: str) -> list[str]:
        """The ids of the tenant's models, sorted."""
        return await self._store.model_ids(tenant_id)

    async def version(self, tenant_id: str, model_id: str, number: int) -> Version:
        """A version. The hot path asks the store only for the first time.

        Raises:
            NotFound: VERSION_NOT_FOUND.
        """
        key = (tenant_id, model_id, number)
        version = self._versions.get(key) or await self._store.version(*key)
        if version is None:
            raise NotFound("The model has no such version or alias.", reason="VERSION_NOT_FOUND")
        _keep(self._versions, key, version)
        return version

    async def versions(self, model: Model, numbers: Sequence[int]) -> list[Version]:
        """Those of a model's versions that have these numbers."""
        return [await self.version(model.tenant_id, model.id, number) for number in numbers]

    async def choose(self, tenant_id: str, model_id: str, version: str = "", *, key: str = "") -> Version:
        """The version that answers a call.

        Args:
            tenant_id: Whose model.
            model_id: Its id.
            version: A version's number or an alias; by the model's traffic when empty.
            key: What keeps calls together in a sticky split; a random choice when empty.

        Raises:
            NotFound: MODEL_NOT_FOUND, VERSION_NOT_FOUND.
        """
        model = await self._fresh(tenant_id, model_id)
        if not version and self._serves in model.aliases:
            version = self._serves
        chosen = version or splits.choose(model.traffic, f"{model.name}\n{key}" if key else "") or STABLE
        return await self.version(tenant_id, model_id, model.number(chosen))

    async def shadow(self, version: Version) -> Version | None:
        """The version that gets a copy of a call which this one answers; None when none does."""
        model = await self._fresh(version.tenant_id, version.model_id)
        chosen = splits.shadow(model.traffic)
        if not chosen:
            return None
        number = model.number(chosen)
        return None if number == version.number else await self.version(model.tenant_id, model.id, number)

    async def traffic(self, tenant_id: str, model_id: str) -> Traffic:
        """How the model's calls are split."""
        return (await self._fresh(tenant_id, model_id)).traffic

    async def update(self, model: Model) -> Model:
        """Stores a model's aliases and traffic.

        Args:
            model: As it shall be; its etag says over what.

        Raises:
            InvalidArgument: FIELD_INVALID: the alias "stable" is missing, or the percents do not make 100.
            NotFound: VERSION_NOT_FOUND: an alias or the traffic names a version that there is not.
            Aborted: Somebody else changed it meanwhile.
        """
        if STABLE not in model.aliases:
            raise InvalidArgument(f'aliases: "{STABLE}" must name a version.', reason="FIELD_INVALID")
        model.traffic.check()
        for named in {*map(str, model.aliases.values()), *model.traffic.versions()}:
            model.number(named)
        stored = await self._store.put_model(model)
        _keep(self._models, (model.tenant_id, model.id), (self._clock(), stored))
        return stored

    async def add(self, version: Version) -> Version:
        """Stores a version under the next number, and makes its model if there is none.

        The first version of a model is its stable one; a later one waits for an
        alias to be moved.

        Raises:
            ResourceExhausted: TOO_MANY_VERSIONS: old ones must be deleted first.
        """
        key = (version.tenant_id, version.model_id)
        model = await self._store.model(*key)
        if model is not None and len(model.versions) >= MAX_VERSIONS:
            raise ResourceExhausted(
                f"A model has at most {MAX_VERSIONS} versions: delete old ones first.", reason="TOO_MANY_VERSIONS"
            )
        number = model.latest if model else 0
        while True:
            number += 1
            numbered = replace(version, number=number)
            if await self._store.create_version(numbered):
                break
        for _ in range(_ATTEMPTS):
            current = await self._store.model(*key) or Model(*key, version.created_s)
            aliases = dict(current.aliases) or {STABLE: number}
            wanted = replace(
                current, aliases=aliases, latest=max(number, current.latest), deleted=False,
                versions=tuple(sorted({*current.versions, number})),
            )  # fmt: skip
            try:
                stored = await self._store.put_model(wanted)
            except Aborted:
                continue
            _keep(self._models, key, (self._clock(), stored))
            return numbered
        raise Aborted("Too many changes at once; try again.", retry_after_s=1)

    async def delete(self, model: Model) -> list[Version]:
        """Deletes a model; returns the versions that it had, whose files are to go too.

        Raises:
            Aborted: Somebody else changed it meanwhile.
        """
        versions = await self.versions(model, model.versions)
        await self._store.put_model(replace(model, aliases={}, traffic=Traffic(), versions=(), deleted=True))
        self._models.pop((model.tenant_id, model.id), None)
        for version in versions:
            await self._forget(version)
        return versions

    async def delete_version(self, version: Version) -> None:
        """Deletes a version.

        Raises:
            FailedPrecondition: VERSION_IN_USE: an alias or the model's traffic names it.
            Aborted: Somebody else changed the model meanwhile.
        """
        model = await self.get(version.tenant_id, version.model_id)
        used = {*model.aliases.values(), *(model.number(named) for named in model.traffic.versions())}
        if version.number in used:
            raise FailedPrecondition(
                "An alias or the model's traffic names this version: move them first.", reason="VERSION_IN_USE"
            )
        rest = tuple(number for number in model.versions if number != version.number)
        await self._store.put_model(replace(model, versions=rest))
        self._models.pop((model.tenant_id, model.id), None)
        await self._forget(version)

    async def _forget(self, version: Version) -> None:
        await self._store.delete_version(version)
        self._versions.pop((version.tenant_id, version.model_id, version.number), None)

    async def _fresh(self, tenant_id: str, model_id: str) -> Model:
        """The model as it was a moment ago, or, while the store is away, a little longer ago."""
        read_s, model = self._models.get((tenant_id, model_id), (float("-inf"), None))
        age_s = self._clock() - read_s
        if model is not None and age_s < _FRESH_S:
            return model
        try:
            return await self.get(tenant_id, model_id)
        except Unavailable:
            if model is None or age_s > _STALE_S:
                raise
            return model


def _keep(kept: OrderedDict[_Key, _Value], key: _Key, value: _Value) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > _KEPT:
        kept.popitem(last=False)
