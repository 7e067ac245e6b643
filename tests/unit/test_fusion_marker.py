"""Marks: each result says that a model made it, in words that others' readers verify, and no runner has the key."""

from __future__ import annotations

import datetime as dt
import io
import json
from typing import TYPE_CHECKING, Any

import c2pa
import numpy as np
import pytest

from facetmesh.fusion.marker import Facts, Marker
from facetmesh.fusion.pipeline.label import labelled
from facetmesh.fusion.pipeline.mark import ASSERTION, SOURCE_TYPE
from facetmesh.kit.credentials import Credential
from facetmesh.kit.errors import Internal, Unavailable
from facetmesh.runners.images import decode, encode_png
from facetmesh.runners.pool import RunnerPool
from facetmesh.runners.tasks import Reply

from .fusion_jobs import sha256

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FACTS = Facts("tenants/acme/receipts/" + "ab" * 16, sha256(b"source"), sha256(b"target"))
SUBJECT = "operations/1"


@pytest.fixture(scope="module")
def credential() -> Credential:
    """A credential of our own making."""
    return Credential.new(dt.datetime.now(dt.UTC))


@pytest.fixture(scope="module")
def picture() -> bytes:
    """A PNG file."""
    return encode_png(np.random.default_rng(7).integers(0, 255, (60, 80, 3), np.uint8))


@pytest.fixture
async def pool() -> AsyncIterator[RunnerPool]:
    """The pipeline's program in runners, confined as in production."""
    async with RunnerPool("facetmesh.fusion.program", readable=[]) as opened:
        yield opened


def read(image: bytes, *, root: str = "") -> dict[str, Any]:
    """What C2PA's reader says of a file, whose signer's authority it trusts where one is given."""
    settings: dict[str, Any] = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
    if root:
        settings["trust"] = {"trust_anchors": root, "trust_config": "1.3.6.1.5.5.7.3.4"}
    context = c2pa.Context.from_dict(settings)
    with c2pa.Reader("image/png", io.BytesIO(image), context=context) as reader:
        found: dict[str, Any] = json.loads(reader.json())
    return found


def failures(found: dict[str, Any]) -> list[str]:
    return [one["code"] for one in found["validation_results"]["activeManifest"].get("failure", [])]


async def test_a_marked_picture_is_valid_and_says_how_it_was_made(
    pool: RunnerPool, credential: Credential, picture: bytes
) -> None:
    marked = await Marker(pool, lambda _: credential).mark("acme", SUBJECT, picture, FACTS)
    assert (decode(marked) == decode(picture)).all()
    found = read(marked)
    assert found["validation_state"] == "Valid"
    assert failures(found) == ["signingCredential.untrusted"]
    manifest = found["manifests"][found["active_manifest"]]
    said = {one["label"]: one["data"] for one in manifest["assertions"]}
    (action,) = said["c2pa.actions.v2"]["actions"]
    assert (action["action"], action["digitalSourceType"]) == ("c2pa.created", SOURCE_TYPE)
    assert said[ASSERTION] == {
        "receipt": FACTS.receipt, "source_sha256": FACTS.source_sha256, "target_sha256": FACTS.target_sha256,
    }  # fmt: skip
    assert manifest["signature_info"]["issuer"] == "facetmesh"
    assert len(marked) - len(picture) < 20_000


async def test_a_tenant_has_its_own_signature_and_words(pool: RunnerPool, credential: Credential) -> None:
    picture = encode_png(np.full((300, 400, 3), 200, np.uint8))
    own = Credential.new(dt.datetime.now(dt.UTC))
    marker = Marker(pool, {"acme": own}.get, {"acme": "Made by AI"}.get)  # type: ignore[arg-type]
    marked = await marker.mark("acme", SUBJECT, picture, FACTS)
    root = "-----BEGIN" + own.chain.rpartition("-----BEGIN")[2]
    assert read(marked, root=root)["validation_state"] == "Trusted"
    foreign = "-----BEGIN" + credential.chain.rpartition("-----BEGIN")[2]
    assert read(marked, root=foreign)["validation_state"] == "Valid"
    seen = decode(marked)
    corner = seen[-30:, :150]
    assert (seen[:250] == 200).all()
    assert corner.max() > 240
    assert corner.min() < 100


@pytest.mark.parametrize("shape", [(40, 40), (2000, 300), (300, 2000)])
def test_words_fit_into_the_picture(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 128, np.uint8)
    changed = (labelled(image, "This picture was made by a model") != image).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert rows.min() > shape[0] / 2
    assert columns.max() < shape[1] - 1
    assert (image == 128).all()


async def test_who_trusts_the_authority_trusts_the_mark(
    pool: RunnerPool, credential: Credential, picture: bytes
) -> None:
    marked = await Marker(pool, lambda _: credential).mark("acme", SUBJECT, picture, FACTS)
    root = "-----BEGIN" + credential.chain.rpartition("-----BEGIN")[2]
    found = read(marked, root=root)
    assert (found["validation_state"], failures(found)) == ("Trusted", [])
    other = Credential.new(dt.datetime.now(dt.UTC)).chain
    assert failures(read(marked, root="-----BEGIN" + other.rpartition("-----BEGIN")[2])) == [
        "signingCredential.untrusted"
    ]


async def test_a_changed_picture_is_found_out(pool: RunnerPool, credential: Credential, picture: bytes) -> None:
    marked = bytearray(await Marker(pool, lambda _: credential).mark("acme", SUBJECT, picture, FACTS))
    marked[-40] ^= 1
    found = read(bytes(marked))
    assert found["validation_state"] == "Invalid"
    assert "assertion.dataHash.mismatch" in failures(found)


async def test_what_is_no_picture_is_not_marked(pool: RunnerPool, credential: Credential) -> None:
    with pytest.raises(Internal) as refusal:
        await Marker(pool, lambda _: credential).mark("acme", SUBJECT, b"\x89PNG\r\n\x1a\nno", FACTS)
    assert refusal.value.reason == "MARKING_FAILED"


async def test_a_mark_that_was_never_begun_cannot_be_sealed(pool: RunnerPool) -> None:
    """It was in a process that died: the one in its place says so, and lives on."""
    pids = []
    for _ in range(2):
        with pytest.raises(Unavailable) as refusal:
            await pool.call(
                domain="acme", task="seal", arguments={"id": "x"}, blobs=[bytes(64)], subject=SUBJECT, timeout_s=30
            )
        assert refusal.value.reason == "RUNNER_REPLACED"
        pids.append(pool.pids()["acme"])
    assert pids[0] == pids[1]


class Odd:
    """A runner that was taken over: it answers what a test says."""

    def __init__(self, *blobs: bytes) -> None:
        self.blobs = list(blobs)
        self.seen: list[bytes] = []

    async def call(self, *, blobs: list[bytes], **_: object) -> Reply:
        """Answers."""
        self.seen += blobs
        return Reply(blobs=[self.blobs.pop(0)])


@pytest.mark.parametrize("asked", [b"", b"tenants/acme", b"\x84jSignature1" + bytes(64 * 1024)])
async def test_a_runner_gets_nothing_signed_but_manifests(credential: Credential, asked: bytes) -> None:
    odd = Odd(asked)
    with pytest.raises(Internal) as refusal:
        await Marker(odd, lambda _: credential).mark("acme", SUBJECT, b"picture", FACTS)  # type: ignore[arg-type]
    assert refusal.value.reason == "RUNNER_REPLY_INVALID"
    assert odd.seen == [b"picture"]


async def test_what_comes_back_must_be_a_picture(credential: Credential) -> None:
    odd = Odd(b"\x84jSignature1", b"no picture")
    with pytest.raises(Internal) as refusal:
        await Marker(odd, lambda _: credential).mark("acme", SUBJECT, b"picture", FACTS)  # type: ignore[arg-type]
    assert refusal.value.reason == "RUNNER_REPLY_INVALID"
