"""Marks results as made by a model: the manifest is made in the tenant's runner, and signed here."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

from facetmesh.fusion.fuser import PNG
from facetmesh.kit.errors import Internal

if TYPE_CHECKING:
    from collections.abc import Callable

    from facetmesh.runners.tasks import Runners

_TIMEOUT_S = 30.0
_SIGNABLE = b"\x84jSignature1"
"""How COSE's Sig_structure begins (RFC 9052, section 4.4): a runner gets nothing else signed."""
_LARGEST = 64 * 1024


class Credential(Protocol):
    """What signs: `kit.credentials.Credential`."""

    @property
    def chain(self) -> str:
        """Its certificates, PEM."""
        ...

    def sign(self, data: bytes) -> bytes:
        """The signature."""
        ...


@dataclass(frozen=True, slots=True)
class Facts:
    """What the manifest says of how a picture was made."""

    receipt: str
    """tenants/{tenant}/receipts/{receipt}."""
    source_sha256: str
    """Of the source's file, in hex."""
    target_sha256: str
    """Of the target's file, in hex."""


def _none(_: str) -> str:
    return ""


class Marker:
    """Puts signed C2PA manifests into results.

    Args:
        runners: Where the pipeline runs.
        credential: Signs those of a tenant, by its id.
        label: The words that are put into a tenant's pictures, by its id; none when empty.
    """

    def __init__(
        self, runners: Runners, credential: Callable[[str], Credential], label: Callable[[str], str] = _none
    ) -> None:
        self._runners = runners
        self._credential = credential
        self._label = label

    async def mark(self, tenant_id: str, subject: str, image: bytes, facts: Facts) -> bytes:
        """The PNG file with its manifest.

        Args:
            tenant_id: In whose process it is done.
            subject: What the process's deaths are held against.
            image: The PNG file.
            facts: What the manifest says.

        Raises:
            FailedPrecondition: PROVENANCE_MISSING: C2PA's library is not installed.
            Unavailable: The process died between the halves; a repeat is safe.
            Internal: The picture could not be marked, or the process asks for what it may not have.
        """
        credential = self._credential(tenant_id)
        arguments = {
            "id": facts.receipt, "chain": credential.chain, "facts": asdict(facts), "label": self._label(tenant_id),
        }  # fmt: skip
        reply = await self._runners.call(
            domain=tenant_id, task="mark", arguments=arguments, blobs=[image], subject=subject, timeout_s=_TIMEOUT_S
        )
        match list(reply.blobs):
            case [asked] if asked.startswith(_SIGNABLE) and len(asked) <= _LARGEST:
                signature = credential.sign(asked)
            case _:
                raise _odd()
        reply = await self._runners.call(
            domain=tenant_id, task="seal", arguments={"id": facts.receipt}, blobs=[signature], subject=subject,
            timeout_s=_TIMEOUT_S,
        )
        match list(reply.blobs):
            case [marked] if marked.startswith(PNG):
                return marked
        raise _odd()


def _odd() -> Internal:
    return Internal("The pipeline's process gave no sensible answer.", reason="RUNNER_REPLY_INVALID")
