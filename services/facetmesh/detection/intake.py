"""How a model comes in: from the catalogue, or as a tenant's own file; checked before anything runs it."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

from facetmesh.detection.hints import NONE, Hints
from facetmesh.detection.leftovers import Leftovers, NoteStore
from facetmesh.detection.versions import Version
from facetmesh.detection.workshop import UPLOAD
from facetmesh.kit import licences
from facetmesh.kit.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from facetmesh.detection.models import Model, Models
    from facetmesh.detection.shelf import Shelf
    from facetmesh.detection.signatures import Policy
    from facetmesh.detection.uploads import Upload, Uploads
    from facetmesh.detection.workshop import Works
    from facetmesh.kit.profiles import Tenancy


@dataclass(frozen=True, slots=True)
class Spec:
    """What is uploaded."""

    sha256: str
    """Of the whole file, in hex."""
    size_bytes: int
    licence: str
    """An SPDX expression."""
    offset: int = 0
    """Where in the file what comes begins."""
    converted: bool = False
    """Whether it is a checkpoint that has to be converted to ONNX."""
    hints: Hints = NONE
    """What the file does not say of itself."""
    signature: bytes = b""
    """By a key of the tenant's policy; empty for none."""


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
    def size_bytes(self) -> int:
        """Of its file."""
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


class PolicyStore(Protocol):
    """Where tenants' policies are kept."""

    async def policy(self, tenant_id: str) -> Policy:
        """What the tenant asks of uploads."""
        ...


class IntakeStore(PolicyStore, NoteStore, Protocol):
    """Where both are kept."""


class Intake:
    """Takes models in.

    Args:
        models: What the tenants have.
        catalog: What the operator has fetched.
        uploads: Files on their way.
        shelf: Where files go.
        workshop: Looks at them first.
        store: What tenants ask of uploads, and which files come and go.
        tenancy: Which licences they may have, and how much.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        models: Models,
        catalog: Catalog,
        uploads: Uploads,
        shelf: Shelf,
        *,
        workshop: Works,
        store: IntakeStore,
        tenancy: Tenancy,
        clock: Callable[[], float],
    ) -> None:
        self._models = models
        self._catalog = catalog
        self._uploads = uploads
        self._shelf = shelf
        self._workshop = workshop
        self._policies: PolicyStore = store
        self._tenancy = tenancy
        self._clock = clock
        self._leftovers = Leftovers(store, models, shelf, clock)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def create(self, tenant_id: str, model_id: str, catalog_id: str, licence: str) -> Version:
        """Gives the tenant a model from the catalogue; the existing one's version, if it is the same.

        Args:
            tenant_id: Whose it will be.
            model_id: Its id there.
            catalog_id: The catalogue's entry.
            licence: The licence that the tenant accepts; may be empty where the catalogue does not ask.

        Raises:
            NotFound: The catalogue has no such entry.
            InvalidArgument: NOT_A_MODEL: the entry is something else.
            FailedPrecondition: LICENCE_NOT_ACCEPTED; MODEL_NOT_FETCHED: the operator has not fetched it;
                MODEL_UNSUPPORTED: it is none that is known here.
            PermissionDenied: LICENCE_NOT_ALLOWED, MODEL_NOT_ALLOWED: the tenant may not have it.
            AlreadyExists: MODEL_EXISTS: the id is taken by another.
            ResourceExhausted: The tenant may not have more models.
        """
        entry = self._catalog.asset(catalog_id)
        if entry.kind != "model":
            raise InvalidArgument(f'"{catalog_id}" is no model.', reason="NOT_A_MODEL")
        if entry.needs_acceptance and licence != entry.licence:
            raise FailedPrecondition(
                f'"{catalog_id}" is under {entry.licence}: to accept that, set licence to "{entry.licence}", which is '
                f"`--accept-licence {entry.licence}` on the command line.",
                reason="LICENCE_NOT_ACCEPTED",
                metadata={"licence": entry.licence},
            )
        self.check_allowed(tenant_id, model_id, entry.licence)
        path = await asyncio.to_thread(self._catalog.path, catalog_id)  # it reads the whole file
        if (existing := await self._existing(tenant_id, model_id)) is not None:
            first = await self._models.version(tenant_id, model_id, existing.versions[0])
            if (first.catalog_id, first.sha256) != (catalog_id, entry.sha256):
                raise AlreadyExists(f'There is a model "{model_id}" already.', reason="MODEL_EXISTS")
            return first
        async with self._turn(tenant_id):
            facts = await self._workshop.inspect(path, entry.sha256, NONE)
        version = Version(
            tenant_id, model_id, 0, entry.sha256, entry.size_bytes, entry.licence, facts, self._clock(),
            catalog_id=catalog_id,
        )  # fmt: skip
        await self._hold(version)
        return await self._models.add(version)

    async def upload(self, tenant_id: str, model_id: str, spec: Spec, chunks: AsyncIterator[bytes]) -> Version:
        """Makes a version out of a file that comes in chunks.

        Args:
            tenant_id: Whose it will be.
            model_id: Of which model; made if there is none.
            spec: What the file is.
            chunks: The file, from `spec.offset` on.

        Returns:
            The new version, or the model's newest where that is made of the same file.

        Raises:
            FacetmeshError: As `Uploads` and `Workshop` do.
            FailedPrecondition: SIGNATURE_REQUIRED.
            InvalidArgument: SIGNATURE_INVALID.
            PermissionDenied: LICENCE_NOT_ALLOWED, MODEL_NOT_ALLOWED.
            ResourceExhausted: The tenant may not have more.
        """
        self.check_allowed(tenant_id, model_id, spec.licence)
        signer = (await self._policies.policy(tenant_id)).signer(spec.sha256, spec.signature)
        newest = await self._newest(tenant_id, model_id)
        if newest is not None and newest.source_sha256 == spec.sha256 and newest.quantization is None:
            return newest
        upload = await self._uploads.begin(tenant_id, spec.sha256, spec.size_bytes, spec.offset)
        upload = await self._uploads.receive(upload, chunks)
        try:
            async with self._turn(tenant_id):
                version = await self._take(upload, model_id, spec, signer)
        except FailedPrecondition:
            await self._uploads.discard(upload)  # it will not get better
            raise
        await self._uploads.discard(upload)
        return version

    async def delete(self, model: Model) -> None:
        """Deletes a model, its versions and their files."""
        async with self._leftovers.noted(await self._models.versions(model, model.versions)):
            for version in await self._models.delete(model):
                await self._shelf.remove(version)

    async def delete_version(self, version: Version) -> None:
        """Deletes a version and its file.

        Raises:
            FailedPrecondition: VERSION_IN_USE.
        """
        async with self._leftovers.noted([version]):
            await self._models.delete_version(version)
            await self._shelf.remove(version)

    async def _take(self, upload: Upload, model_id: str, spec: Spec, signer: str) -> Version:
        """Makes a version out of a file that is here."""
        with tempfile.TemporaryDirectory(prefix=UPLOAD, dir=self._shelf.folder) as folder:
            path = Path(folder) / "model.onnx"
            sha256 = spec.sha256
            await self._uploads.assemble(upload, path)
            if spec.converted:
                converted = await self._workshop.convert(await asyncio.to_thread(path.read_bytes))
                sha256 = await asyncio.to_thread(write, path, converted)
            facts = await self._workshop.inspect(path, sha256, spec.hints)
            version = Version(
                upload.tenant_id, model_id, 0, sha256, path.stat().st_size, spec.licence, facts, self._clock(),
                source_sha256=spec.sha256, signing_key_id=signer,
            )  # fmt: skip
            return await self.keep(version, path)

    async def sweep(self) -> int:
        """Deletes files whose keeping or deletion was cut off; returns how many were looked at.

        Raises:
            Unavailable: Something may be left.
        """
        return await self._leftovers.sweep()

    async def keep(self, version: Version, path: Path) -> Version:
        """Makes a version out of a file that was checked.

        Args:
            version: What it is; without a number and a place.
            path: The file.

        Raises:
            ResourceExhausted: The tenant may not have more.
        """
        await self._hold(version)
        placed = self._shelf.placed(version)
        async with self._leftovers.noted([placed]):
            await self._shelf.store(placed, path)
            try:
                return await self._models.add(placed)
            except (Aborted, ResourceExhausted):  # it is no version's, for certain
                await self._shelf.remove(placed)
                raise

    def check_allowed(self, tenant_id: str, model_id: str, licence: str) -> None:
        """Refuses what the tenant may not have.

        Raises:
            PermissionDenied: LICENCE_NOT_ALLOWED, MODEL_NOT_ALLOWED.
        """
        profile = self._tenancy.profile(f"tenants/{tenant_id}")
        licences.check(licence, profile.licence_classes, profile.licences)
        if profile.allowed_models and not any(fnmatchcase(model_id, one) for one in profile.allowed_models):
            raise PermissionDenied("The tenant may not have a model with this id.", reason="MODEL_NOT_ALLOWED")

    def _turn(self, tenant_id: str) -> asyncio.Lock:
        """One of a tenant's files at a time lies here in clear and is looked at: who brings many keeps nobody else."""
        return self._turns.setdefault(tenant_id, asyncio.Lock())

    async def _hold(self, more: Version) -> None:
        """Has the tenant hold what it will have with one more version."""
        ids = await self._models.ids(more.tenant_id)
        stored_bytes = more.size_bytes
        for model_id in ids:
            if (model := await self._existing(more.tenant_id, model_id)) is not None:
                versions = await self._models.versions(model, model.versions)
                stored_bytes += sum(version.size_bytes for version in versions if version.blob)
        await self._tenancy.hold(
            f"tenants/{more.tenant_id}", stored_bytes=stored_bytes, models=len({*ids, more.model_id})
        )

    async def _existing(self, tenant_id: str, model_id: str) -> Model | None:
        try:
            return await self._models.get(tenant_id, model_id)
        except NotFound:
            return None

    async def _newest(self, tenant_id: str, model_id: str) -> Version | None:
        model = await self._existing(tenant_id, model_id)
        return await self._models.version(tenant_id, model_id, model.versions[-1]) if model else None


def write(path: Path, data: bytes) -> str:
    """Writes a file; returns its SHA-256 in hex."""
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()
