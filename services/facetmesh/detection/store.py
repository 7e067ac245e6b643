"""Models, versions, uploads and policies in Dapr state.

tenants/{tenant}/models/{model}                       a model
tenants/{tenant}/models/{model}/versions/{version}    a version, which never changes
tenants/{tenant}/models/index/…                       a hint for lists
tenants/{tenant}/uploads/{sha256}                     how far an upload got
tenants/{tenant}/uploads/index/…                      a hint for lists
uploads/index/…                                       a hint for who deletes those that rested too long
leftovers/index/…                                     files that come or go, as tenant/model/blob/parts/seconds
tenants/{tenant}/modelPolicy                          what is asked of uploads
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from facetmesh.detection.leftovers import Note
from facetmesh.detection.models import Model
from facetmesh.detection.signatures import Policy
from facetmesh.detection.splits import Traffic
from facetmesh.detection.uploads import Upload
from facetmesh.detection.versions import ClassAgreement, Facts, Quantization, Tensor, Version
from facetmesh.kit.errors import Aborted
from facetmesh.kit.etags import etag_of
from facetmesh.kit.index import Index

if TYPE_CHECKING:
    from facetmesh.kit.dapr import State


_BUCKETS = 16


class DaprStore:
    """The store of detection.

    Args:
        state: Dapr state of the app detection.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._everybodys_uploads = Index(state, "uploads", buckets=_BUCKETS)
        self._leftovers = Index(state, "leftovers", buckets=_BUCKETS)

    async def model(self, tenant_id: str, model_id: str) -> Model | None:
        """The model, a deleted one too; None when there never was one."""
        entry = await self._state.get(_model_key(tenant_id, model_id))
        if entry is None:
            return None
        fields = json.loads(entry.value)
        traffic = fields.pop("traffic")
        traffic["targets"] = tuple((version, percent) for version, percent in traffic["targets"])
        fields |= {"versions": tuple(fields["versions"]), "traffic": Traffic(**traffic), "etag": entry.etag}
        return Model(**fields)

    async def put_model(self, model: Model) -> Model:
        """Stores a model over what has its etag, or a new one when it has none; Aborted where it cannot."""
        index = self._index(model.tenant_id, "models")
        if not model.deleted:
            await index.add(model.id)
        key = _model_key(model.tenant_id, model.id)
        etag = await self._put(key, asdict(model), model.etag)
        if model.deleted:
            await index.remove(model.id)
        return replace(model, etag=etag)

    async def model_ids(self, tenant_id: str) -> list[str]:
        """The ids of the tenant's models, sorted."""
        return await self._index(tenant_id, "models").ids()

    async def version(self, tenant_id: str, model_id: str, number: int) -> Version | None:
        """The version; None when there is none."""
        entry = await self._state.get(_version_key(tenant_id, model_id, number))
        if entry is None:
            return None
        fields = json.loads(entry.value)
        made = fields.get("quantization")
        return Version(
            **{**fields, "facts": _facts(fields["facts"]), "quantization": _quantization(made) if made else None}
        )

    async def create_version(self, version: Version) -> bool:
        """Stores a new version; False when there is one with its number."""
        key = _version_key(version.tenant_id, version.model_id, version.number)
        try:
            await self._state.put(key, json.dumps(asdict(version)).encode(), create=True)
        except Aborted:
            return False
        return True

    async def delete_version(self, version: Version) -> None:
        """Deletes a version."""
        await self._state.delete(_version_key(version.tenant_id, version.model_id, version.number))

    async def upload(self, tenant_id: str, sha256: str) -> Upload | None:
        """The upload; None when there is none."""
        entry = await self._state.get(_upload_key(tenant_id, sha256))
        return None if entry is None else Upload(**{**json.loads(entry.value), "etag": entry.etag})

    async def put_upload(self, upload: Upload) -> Upload:
        """Stores an upload over what has its etag, or a new one when it has none; Aborted where it cannot."""
        if not upload.etag:
            await self._everybodys_uploads.add(f"{upload.tenant_id}/{upload.sha256}")
            await self._index(upload.tenant_id, "uploads").add(upload.sha256)
        key = _upload_key(upload.tenant_id, upload.sha256)
        return replace(upload, etag=await self._put(key, asdict(upload), upload.etag))

    async def delete_upload(self, upload: Upload) -> None:
        """Forgets an upload."""
        await self._state.delete(_upload_key(upload.tenant_id, upload.sha256))
        await self._index(upload.tenant_id, "uploads").remove(upload.sha256)
        await self._everybodys_uploads.remove(f"{upload.tenant_id}/{upload.sha256}")

    async def uploads(self, tenant_id: str) -> list[Upload]:
        """The tenant's uploads that have not ended."""
        found = [await self.upload(tenant_id, sha256) for sha256 in await self._index(tenant_id, "uploads").ids()]
        return [upload for upload in found if upload is not None]

    async def everybodys_uploads(self) -> list[Upload]:
        """All tenants' uploads that have not ended."""
        items = [item.partition("/") for item in await self._everybodys_uploads.ids()]
        found = [await self.upload(tenant_id, sha256) for tenant_id, _, sha256 in items]
        return [upload for upload in found if upload is not None]

    async def add_note(self, note: Note) -> None:
        """Keeps a note of a file that may be no version's."""
        await self._leftovers.add(_item(note))

    async def remove_note(self, note: Note) -> None:
        """Forgets a note; nothing happens when there is none."""
        await self._leftovers.remove(_item(note))

    async def notes(self) -> list[Note]:
        """All tenants' notes."""
        return [_note(*item.split("/")) for item in await self._leftovers.ids()]

    async def policy(self, tenant_id: str) -> Policy:
        """What the tenant asks of uploads."""
        entry = await self._state.get(f"tenants/{tenant_id}/modelPolicy")
        return Policy() if entry is None else Policy(**{**json.loads(entry.value), "etag": entry.etag})

    async def put_policy(self, tenant_id: str, policy: Policy) -> None:
        """Stores a policy over what has its etag, or a new one when it has none; Aborted where it cannot."""
        await self._put(f"tenants/{tenant_id}/modelPolicy", asdict(policy), policy.etag)

    async def delete_all(self, tenant_id: str) -> None:
        """Deletes all of a tenant's records, what lists them last."""
        for model_id in await self.model_ids(tenant_id):
            model = await self.model(tenant_id, model_id)
            for number in model.versions if model else ():
                await self._state.delete(_version_key(tenant_id, model_id, number))
            await self._state.delete(_model_key(tenant_id, model_id))
        for upload in await self.uploads(tenant_id):
            await self.delete_upload(upload)
        await self._state.delete(f"tenants/{tenant_id}/modelPolicy")
        for collection in ("models", "uploads"):
            await self._index(tenant_id, collection).clear()

    async def _put(self, key: str, fields: dict[str, Any], etag: str) -> str:
        """Stores fields over what has the etag, or anew where it is empty; returns the new etag."""
        encoded = json.dumps({**fields, "etag": ""}).encode()
        await self._state.put(key, encoded, etag=etag or None, create=not etag)
        return await etag_of(self._state, key, encoded, before=etag)

    def _index(self, tenant_id: str, collection: str) -> Index:
        return Index(self._state, f"tenants/{tenant_id}/{collection}")


def _facts(fields: dict[str, Any]) -> Facts:
    tensors = {
        side: tuple(Tensor(one["name"], one["datatype"], tuple(one["shape"])) for one in fields[side])
        for side in ("inputs", "outputs")
    }
    return Facts(**{**fields, "labels": tuple(fields["labels"]), **tensors})


def _quantization(fields: dict[str, Any]) -> Quantization:
    return Quantization(**{**fields, "classes": tuple(ClassAgreement(**one) for one in fields["classes"])})


def _item(note: Note) -> str:
    return f"{note.tenant_id}/{note.model_id}/{note.blob}/{note.parts}/{note.created_s}"


def _note(tenant_id: str, model_id: str, blob: str, parts: str, created_s: str) -> Note:
    return Note(tenant_id, model_id, blob, int(parts), int(created_s))


def _model_key(tenant_id: str, model_id: str) -> str:
    return f"tenants/{tenant_id}/models/{model_id}"


def _version_key(tenant_id: str, model_id: str, number: int) -> str:
    return f"{_model_key(tenant_id, model_id)}/versions/{number}"


def _upload_key(tenant_id: str, sha256: str) -> str:
    return f"tenants/{tenant_id}/uploads/{sha256}"
