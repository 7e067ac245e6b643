"""fusion's gRPC face for consents: protobuf in, domain call, protobuf out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp

from facetmesh.fusion.consents import SourceFace, State, Terms
from facetmesh.fusion.v1 import consent_pb2, consent_pb2_grpc
from facetmesh.kit import audit
from facetmesh.kit.errors import NotFound
from facetmesh.kit.index import page

if TYPE_CHECKING:
    from collections.abc import Callable

    from facetmesh.fusion.consents import Consent, Consents

_STATES = {
    State.ACTIVE: consent_pb2.Consent.STATE_ACTIVE,
    State.EXPIRED: consent_pb2.Consent.STATE_EXPIRED,
    State.REVOKED: consent_pb2.Consent.STATE_REVOKED,
}


class ConsentServicer(consent_pb2_grpc.ConsentServiceServicer):
    """Serves facetmesh.fusion.v1.ConsentService.

    Args:
        consents: The consents of all tenants.
        clock: Seconds since the epoch.
    """

    def __init__(self, consents: Consents, clock: Callable[[], float]) -> None:
        self._consents = consents
        self._clock = clock

    async def CreateConsent(self, request: consent_pb2.CreateConsentRequest, _: Any) -> consent_pb2.Consent:
        """Keeps a consent."""
        asked = request.consent
        terms = Terms(
            subject=asked.subject,
            purpose=asked.purpose,
            faces=tuple(SourceFace(face.image_sha256, face.face_index) for face in asked.faces),
            evidence_sha256=asked.evidence_sha256,
            expires_s=asked.expire_time.ToMicroseconds() / 1e6,
        )
        consent = await self._consents.create(request.parent.rpartition("/")[2], terms, request.request_id)
        audit.current().describe(resource=consent.name, output=bytes.fromhex(consent.sha256))
        return self._message(consent)

    async def GetConsent(self, request: consent_pb2.GetConsentRequest, _: Any) -> consent_pb2.Consent:
        """Returns a consent."""
        return self._message(await self._consents.get(*_split(request.name)))

    async def ListConsents(
        self, request: consent_pb2.ListConsentsRequest, _: Any
    ) -> consent_pb2.ListConsentsResponse:
        """Lists a tenant's consents."""
        tenant_id = request.parent.rpartition("/")[2]
        ids, token = page(await self._consents.ids(tenant_id), request.page_size, request.page_token)
        response = consent_pb2.ListConsentsResponse(next_page_token=token)
        for consent_id in ids:
            try:
                found = self._message(await self._consents.get(tenant_id, consent_id))
            except NotFound:
                continue  # the index is a hint
            found.ClearField("subject")
            response.consents.append(found)
        return response

    async def RevokeConsent(self, request: consent_pb2.RevokeConsentRequest, _: Any) -> consent_pb2.Consent:
        """Ends a consent."""
        consent = await self._consents.revoke(*_split(request.name))
        audit.current().describe(output=bytes.fromhex(consent.sha256))
        return self._message(consent)

    def _message(self, consent: Consent) -> consent_pb2.Consent:
        terms = consent.terms
        message = consent_pb2.Consent(
            name=consent.name,
            subject=terms.subject,
            purpose=terms.purpose,
            faces=[
                consent_pb2.ConsentedFace(image_sha256=face.image_sha256, face_index=face.face_index)
                for face in terms.faces
            ],
            evidence_sha256=terms.evidence_sha256,
            expire_time=_time(terms.expires_s),
            create_time=_time(consent.created_s),
            state=_STATES[consent.state(self._clock())],
            salt=consent.salt,
            sha256=consent.sha256,
        )
        if consent.revoked_s is not None:
            message.revoke_time.CopyFrom(_time(consent.revoked_s))
        return message


def _split(name: str) -> tuple[str, str]:
    _, tenant_id, _, consent_id = name.split("/")
    return tenant_id, consent_id


def _time(seconds: float) -> Timestamp:
    time = Timestamp()
    time.FromMicroseconds(round(seconds * 1e6))
    return time
