"""The last stage: a C2PA manifest that says how the picture was made (EU AI Act, Art. 50), put into the file.

The key that signs it stays with the service. So marking has two halves: `begin` makes the manifest and hands out what
is to be signed, `finish` takes the signature. Between them C2PA's library waits, in a thread, for the callback by which
it asks for the signature.
"""

from __future__ import annotations

import io
import json
import queue
import threading
from typing import TYPE_CHECKING, Any

from facetmesh import __version__
from facetmesh.kit.errors import DeadlineExceeded, FailedPrecondition, Internal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
"""IPTC's term for a picture of which a part was made by a model."""
ASSERTION = "dev.facetmesh.fusion"
"""The label of what only we say: the receipt's name, and hashes of what went in."""
MEDIA_TYPE = "image/png"
WAIT_S = 30.0
"""How long either half waits for the other."""
_SETTINGS = {
    # A thumbnail would add ten times the rest, and show the face once more.
    "builder": {"thumbnail": {"enabled": False}},
    # A runner has no network, and the reader's verdict is the reader's.
    "verify": {"verify_after_sign": False, "remote_manifest_fetch": False, "ocsp_fetch": False},
}


class Marking:
    """A picture that is being marked.

    Args:
        image: The PNG file.
        chain: The certificates, PEM, the signer's first.
        facts: What our assertion says: `receipt`, `source_sha256`, `target_sha256`.

    Raises:
        FailedPrecondition: PROVENANCE_MISSING: C2PA's library is not installed.
    """

    def __init__(self, image: bytes, chain: str, facts: Mapping[str, str]) -> None:
        self._library = _library()
        self._image = image
        self._chain = chain
        self._manifest = json.dumps(manifest(facts))
        self._asked: queue.Queue[bytes] = queue.Queue(1)
        self._signature: queue.Queue[bytes] = queue.Queue(1)
        self._marked: bytes | None = None
        self._thread = threading.Thread(target=self._sign, daemon=True)

    def begin(self) -> bytes:
        """What is to be signed: the Sig_structure of COSE (RFC 9052, section 4.4).

        Raises:
            Internal: MARKING_FAILED; C2PA's library refused the picture or the certificates.
        """
        self._thread.start()
        # Empty: it ended without having asked.
        if not (asked := self._asked.get()):
            raise Internal("The picture could not be marked.", reason="MARKING_FAILED")
        return asked

    def finish(self, signature: bytes) -> bytes:
        """The PNG file with its manifest.

        Args:
            signature: ECDSA over P-256 and SHA-256: r and s, 32 bytes each.

        Raises:
            DeadlineExceeded: It takes too long.
            Internal: MARKING_FAILED.
        """
        self._signature.put_nowait(signature)
        self._thread.join(WAIT_S)
        if self._thread.is_alive():
            raise DeadlineExceeded("Marking the picture took too long.", reason="MARKING_TIMEOUT")
        if self._marked is None:
            raise Internal("The picture could not be marked.", reason="MARKING_FAILED")
        return self._marked

    def _sign(self) -> None:
        c2pa = self._library
        try:
            context = c2pa.Context.from_dict(_SETTINGS)
            signer = c2pa.Signer.from_callback(self._ask, c2pa.C2paSigningAlg.ES256, self._chain, None)
            out = io.BytesIO()
            builder = c2pa.Builder.from_json(self._manifest, context)
            builder.sign(signer, MEDIA_TYPE, io.BytesIO(self._image), out)
            self._marked = out.getvalue()
        finally:
            if self._asked.empty():
                self._asked.put(b"")

    def _ask(self, data: bytes) -> bytes:
        self._asked.put(bytes(data))
        return self._signature.get(timeout=WAIT_S)


def manifest(facts: Mapping[str, str]) -> dict[str, Any]:
    """The manifest's definition, for C2PA's builder."""
    agent = {"name": "facetmesh", "version": __version__}
    action = {"action": "c2pa.created", "digitalSourceType": SOURCE_TYPE, "softwareAgent": agent}
    return {
        "claim_generator_info": [agent],
        "title": "A fused face",
        "format": MEDIA_TYPE,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [action]}},
            {"label": ASSERTION, "data": dict(facts)},
        ],
    }


def _library() -> ModuleType:
    try:
        import c2pa  # noqa: PLC0415 - 50 MB of native code, which only runners load
    except ImportError:
        raise FailedPrecondition(
            "Results cannot be marked: install c2pa-python.", reason="PROVENANCE_MISSING"
        ) from None
    library: ModuleType = c2pa
    return library
