"""The client's calls about consents."""

from __future__ import annotations

import hashlib
import uuid
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from facetmesh.client import calls
from facetmesh.fusion.v1 import consent_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime


class Consenting(ABC):
    """What AsyncClient can do with consents."""

    _consents: Any  # consent_pb2_grpc.ConsentServiceStub, whose stubs differ for grpc.aio

    async def create_consent(
        self,
        photos: Sequence[bytes],
        *,
        subject: str,
        purpose: str,
        evidence: bytes,
        expire_time: datetime,
        face_index: int = 0,
        request_id: str | None = None,
    ) -> consent_pb2.Consent:
        """Keeps what a person agreed to. Photos and evidence stay here: only their hashes are sent.

        Args:
            photos: The files of the photos whose face may be taken.
            subject: Who agreed: a reference of your own to a person, or the person's name.
            purpose: What for, in the words that the person agreed to.
            evidence: What proves it, such as the signed form's file.
            expire_time: Until when, with its time zone; ten years ahead at most.
            face_index: Which face of each photo; 0 is the largest.
            request_id: A UUID; a second call with the same one returns the first one's consent.
        """
        consent = consent_pb2.Consent(
            subject=subject,
            purpose=purpose,
            faces=[
                consent_pb2.ConsentedFace(image_sha256=hashlib.sha256(photo).hexdigest(), face_index=face_index)
                for photo in photos
            ],
            evidence_sha256=hashlib.sha256(evidence).hexdigest(),
        )
        consent.expire_time.FromDatetime(expire_time)
        request = consent_pb2.CreateConsentRequest(
            parent=await self._parent(None), consent=consent, request_id=request_id or str(uuid.uuid4()),
        )
        return await calls.result(self._consents.CreateConsent(request))

    async def get_consent(self, consent: str) -> consent_pb2.Consent:
        """Returns a consent, by name or id. The audit log records that it was read."""
        request = consent_pb2.GetConsentRequest(name=await self._name("consents", consent))
        return await calls.result(self._consents.GetConsent(request))

    async def list_consents(self, *, limit: int | None = None) -> list[consent_pb2.Consent]:
        """The tenant's consents, without their subjects."""
        request = consent_pb2.ListConsentsRequest(parent=await self._parent(None))
        return await calls.pages(self._consents.ListConsents, request, "consents", limit)

    async def revoke_consent(self, consent: str) -> consent_pb2.Consent:
        """Ends a consent for good, by name or id; what is being made with it is not stored."""
        request = consent_pb2.RevokeConsentRequest(name=await self._name("consents", consent))
        return await calls.result(self._consents.RevokeConsent(request))

    @abstractmethod
    async def _parent(self, tenant: str | None) -> str: ...

    @abstractmethod
    async def _name(self, collection: str, name: str) -> str: ...
