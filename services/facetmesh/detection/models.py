"""Models: what each tenant can call."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from facetmesh.kit.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Model:
    """A model that a tenant can call. It never changes."""

    tenant_id: str
    id: str
    catalog_id: str
    """The entry of the catalogue that it comes from."""
    licence: str
    """An SPDX licence expression: what its file is under, and the tenant accepted where that is asked for."""
    sha256: str
    """Of its file, in hex."""
    labels: tuple[str, ...]
    """The names of its classes, by class id."""
    created_s: float
    """When it was created, in seconds since the epoch."""
    version_id: str = "1"
    etag: str = ""

    @property
    def name(self) -> str:
        """The resource name."""
        return f"tenants/{self.tenant_id}/models/{self.id}"

    @property
    def version(self) -> str:
        """The version's resource name."""
        return f"{self.name}/versions/{self.version_id}"


class ModelStore(Protocol):
    """Where models are kept."""

    async def model(self, tenant_id: str, model_id: str) -> Model | None:
        """The model."""

    async def create_model(self, model: Model) -> bool:
        """Stores a new model; False when there is one with its id."""
        ...

    async def model_ids(self, tenant_id: str) -> list[str]:
        """The tenant's model ids, sorted."""
        ...


class CatalogEntry(Protocol):
    """What the catalogue says of a model."""

    @property
    def kind(self) -> str:
        """Whether it is a "model"."""
        ...

    @property
    def sha256(self) -> str:
        """Of its file, in hex."""
        ...

    @property
    def licence(self) -> str:
        """An SPDX licence expression."""
        ...

    @property
    def needs_acceptance(self) -> bool:
        """Whether the licence must be accepted by name."""
        ...


class Catalog(Protocol):
    """Models that the operator can fetch."""

    def asset(self, asset_id: str, /) -> CatalogEntry:
        """The entry; raises NotFound."""
        ...

    def path(self, asset_id: str, /) -> Path:
        """Its file; raises FailedPrecondition when it has not been fetched."""
        ...


class Models:
    """What can be done with models.

    Args:
        store: Where they are kept.
        catalog: Where they come from.
        describe: Asks a model for the names of its classes: takes a tenant's id,
            a subject to blame if that goes wrong, the file and its SHA-256.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        store: ModelStore,
        catalog: Catalog,
        describe: Callable[[str, str, Path, str], Awaitable[tuple[str, ...]]],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._describe = describe
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], Model] = OrderedDict()

    async def create(self, tenant_id: str, model_id: str, catalog_id: str, licence: str) -> Model:
        """Gives the tenant a model from the catalogue; the existing one, if it is the same.

        Args:
            tenant_id: Whose it will be.
            model_id: Its id there.
            catalog_id: The catalogue's entry.
            licence: The licence that the tenant accepts; may be empty where the
                catalogue does not ask.

        Raises:
            NotFound: The catalogue has no such entry.
            InvalidArgument: NOT_A_MODEL: the entry is something else.
            FailedPrecondition: LICENCE_NOT_ACCEPTED; MODEL_NOT_FETCHED: the
                operator has not fetched it; MODEL_UNSUPPORTED: it detects nothing.
            AlreadyExists: MODEL_EXISTS: the id is taken by another.
        """
        entry = self._catalog.asset(catalog_id)
        if entry.kind != "model":
            raise InvalidArgument(f'"{catalog_id}" is no model.', reason="NOT_A_MODEL")
        if entry.needs_acceptance and licence != entry.licence:
            raise FailedPrecondition(
                f'"{catalog_id}" is under {entry.licence}: to accept that, set licence to "{entry.licence}".',
                reason="LICENCE_NOT_ACCEPTED",
                metadata={"licence": entry.licence},
            )
        path = self._catalog.path(catalog_id)
        labels = await self._describe(tenant_id, f"catalog/{catalog_id}", path, entry.sha256)
        model = Model(tenant_id, model_id, catalog_id, entry.licence, entry.sha256, labels, self._clock())
        created = await self._store.create_model(model)
        existing = await self.get(tenant_id, model_id)
        if not created and (existing.catalog_id, existing.sha256) != (catalog_id, entry.sha256):
            raise AlreadyExists(f'There is a model "{model_id}" already.', reason="MODEL_EXISTS")
        return existing

    async def get(self, tenant_id: str, model_id: str) -> Model:
        """The model.

        Raises:
            NotFound: MODEL_NOT_FOUND: the tenant has none with that id.
        """
        key = (tenant_id, model_id)
        model = self._kept.get(key)
        if model is None:
            model = await self._store.model(tenant_id, model_id)
            if model is None:
                raise NotFound("There is no such model.", reason="MODEL_NOT_FOUND")
            # Models never change, so what was read once stays true.
            self._kept[key] = model
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return model

    async def ids(self, tenant_id: str) -> list[str]:
        """The tenant's model ids, sorted."""
        return await self._store.model_ids(tenant_id)

    def path(self, model: Model) -> Path:
        """The model's file.

        Raises:
            FailedPrecondition: MODEL_NOT_FETCHED: it is gone from this machine.
        """
        return self._catalog.path(model.catalog_id)
