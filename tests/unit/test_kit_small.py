"""The small parts of kit: index, keyring, blobs, API keys, logs, settings, status."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from facetmesh.auth.__main__ import AuthSettings
from facetmesh.kit import apikeys, errors, logs, status
from facetmesh.kit.blobs import Blobs, open_store
from facetmesh.kit.index import Index, page
from facetmesh.kit.keyring import Keyring
from facetmesh.kit.settings import load

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import MemoryState

KEK = bytes(32)


async def test_an_index_survives_writers_at_once(state: MemoryState) -> None:
    index = Index(state, "things", buckets=4)
    await asyncio.gather(*(index.add(f"t{n}") for n in range(40)))
    assert await index.ids() == sorted(f"t{n}" for n in range(40))
    await index.remove("t0")
    await index.remove("t0")
    assert "t0" not in await index.ids()


@given(count=st.integers(0, 30), size=st.integers(1, 10))
def test_pages_cover_everything_once(count: int, size: int) -> None:
    ids, seen, token = [f"id-{n:02}" for n in range(count)], [], ""
    for _ in range(count + 1):
        chosen, token = page(ids, size, token)
        seen += chosen
        if not token:
            break
    assert seen == ids


@pytest.mark.parametrize("token", ["?", "AAAA", "ü", "aWQtOTk="])
def test_a_page_token_of_others_is_refused(token: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        page(["id-01"], 1, token)


async def test_ciphertext_is_bound_to_its_tenant_and_place(state: MemoryState) -> None:
    keyring = Keyring(state, KEK)
    sealed = await keyring.encrypt("acme", b"secret", b"here")
    assert b"secret" not in sealed
    assert await Keyring(state, KEK).decrypt("acme", sealed, b"here") == b"secret"
    await keyring.encrypt("globex", b"x")
    for tenant, data, aad in [
        ("globex", sealed, b"here"), ("acme", sealed, b"there"), ("acme", sealed[:-1] + b"\0", b"here"),
        ("acme", b"\x01" + sealed[1:], b"here"), ("acme", b"", b"here"),
    ]:  # fmt: skip
        with pytest.raises(errors.Internal) as refusal:
            await keyring.decrypt(tenant, data, aad)
        assert refusal.value.reason == "DATA_CORRUPT"


async def test_two_replicas_agree_on_one_data_key(state: MemoryState) -> None:
    one, two = Keyring(state, KEK), Keyring(state, KEK)
    sealed = await asyncio.gather(one.encrypt("acme", b"1"), two.encrypt("acme", b"2"))
    assert [await two.decrypt("acme", sealed[0]), await one.decrypt("acme", sealed[1])] == [b"1", b"2"]


async def test_destroying_the_key_destroys_the_data(state: MemoryState) -> None:
    keyring = Keyring(state, KEK)
    sealed = await keyring.encrypt("acme", b"secret")
    await keyring.destroy("acme")
    with pytest.raises(errors.NotFound) as refusal:
        await keyring.decrypt("acme", sealed)
    assert refusal.value.reason == "DATA_DESTROYED"


async def test_the_state_alone_opens_nothing(state: MemoryState) -> None:
    sealed = await Keyring(state, KEK).encrypt("acme", b"secret")
    with pytest.raises(errors.Internal):
        await Keyring(state, bytes(31) + b"\1").decrypt("acme", sealed)


async def test_blobs_lie_encrypted_below_their_tenant(state: MemoryState, tmp_path: Path) -> None:
    blobs = Blobs(open_store(str(tmp_path / "blobs")), Keyring(state, KEK))
    await blobs.put("acme", "fusions/1/source", b"a photo")
    stored = tmp_path / "blobs/acme/fusions/1/source"
    assert b"a photo" not in stored.read_bytes()
    assert await blobs.get("acme", "fusions/1/source") == b"a photo"
    stored.rename(tmp_path / "blobs/acme/fusions/1/other")
    with pytest.raises(errors.Internal):
        await blobs.get("acme", "fusions/1/other")
    with pytest.raises(errors.NotFound):
        await blobs.get("acme", "fusions/1/source")
    await blobs.delete("acme", "fusions/1/source")


async def test_much_data_is_worked_on_part_by_part_at_a_pace(state: MemoryState, tmp_path: Path) -> None:
    asked, free = asyncio.Event(), asyncio.Event()

    async def pace(tenant: str) -> None:
        assert tenant == "acme"
        asked.set()
        await free.wait()

    store, keyring = open_store(str(tmp_path / "blobs")), Keyring(state, KEK)
    blobs = Blobs(store, keyring, pace)
    await blobs.put("acme", "record", b"little")
    assert not asked.is_set()
    for work in (lambda: blobs.put("acme", "part", bytes(2 << 20)), lambda: _assembled(blobs, tmp_path / "whole")):
        asked.clear()
        free.clear()
        working = asyncio.create_task(work())
        await asyncio.wait_for(asked.wait(), 60)
        assert not working.done()
        free.set()
        await asyncio.wait_for(working, 60)
    assert (tmp_path / "whole").stat().st_size == 2 << 20


async def _assembled(blobs: Blobs, path: Path) -> None:
    await blobs.assemble("acme", ["part"], path)


def test_an_api_key_says_whose_it_is_and_a_typo_is_seen() -> None:
    text = apikeys.new_key("acme", "0123456789abcdef")
    assert apikeys.parse(text) == apikeys.ApiKey("acme", "0123456789abcdef")
    assert apikeys.new_key("acme", "0123456789abcdef") != text
    for position in range(len(text)):
        other = "0" if text[position] != "0" else "1"
        assert apikeys.parse(text[:position] + other + text[position + 1 :]) is None


@given(st.text(max_size=120))
def test_other_texts_are_no_api_keys(text: str) -> None:
    assert apikeys.parse(text) is None


def test_logs_are_json_and_hold_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    key = apikeys.new_key("acme", "k1")
    token = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"
    try:
        logs.configure("auth")
        try:
            raise ValueError(f"with {key}")
        except ValueError:
            logging.getLogger("x").exception(
                "key %s of a@b.example", key, extra={"authorization": "Bearer x", "header": f"Bearer {token}",
                                                   "image": b"\xff" * 99, "nested": {"api_key": "k", "n": 1}},
            )  # fmt: skip
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    text = capsys.readouterr().err
    line = json.loads(text)
    assert (line["service"], line["level"], line["logger"]) == ("auth", "error", "x")
    assert line["nested"] == {"api_key": "***", "n": 1}
    assert "ValueError" in line["exception"]
    for secret in (key, token, "a@b.example", "Bearer x"):
        assert secret not in text


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FACETMESH_PORT", "99999")
    monkeypatch.setenv("DAPR_GRPC_PORT", "x")
    monkeypatch.delenv("FACETMESH_HOME", raising=False)
    with pytest.raises(SystemExit) as ended:
        load(AuthSettings)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert all(name in said for name in ("FACETMESH_PORT", "DAPR_GRPC_PORT", "FACETMESH_HOME"))


@pytest.mark.parametrize("kind", errors.BY_CODE.values(), ids=lambda kind: kind.code)
def test_an_error_crosses_the_wire_whole(kind: type[errors.FacetmeshError]) -> None:
    error = kind(
        "text", reason="SOME_REASON", metadata={"a": "b"}, retry_after_s=1.5,
        violations=[errors.FieldViolation("f", "d")],
    )
    again = status.from_status(status.to_status(error))
    assert type(again) is kind
    assert (again.message, again.reason, again.metadata, again.retry_after_s, again.violations) == (
        "text", "SOME_REASON", {"a": "b"}, 1.5, (errors.FieldViolation("f", "d"),),
    )  # fmt: skip


@pytest.mark.parametrize("text", ["x", "ü", "😀"])
def test_a_refusal_arrives_however_long_a_requests_names_are(text: str) -> None:
    """Clients get no metadata of more than 8 KB, in which the message is there twice, once as %F0%9F%98%80."""
    violations = [errors.FieldViolation("labels", "must be unique")] * 10_000
    told = status.to_status(
        errors.InvalidArgument(f"What is {text * 1_000_000}?", reason="FIELD_INVALID", violations=violations)
    )
    assert told.message.startswith(f"What is {text}")
    assert len(told.SerializeToString()) + len(quote(told.message)) < 7000
    assert 0 < len(status.from_status(told).violations) < 100


def test_a_refusal_for_quota_says_which() -> None:
    sent = status.to_status(errors.ResourceExhausted("too many", reason="TOO_MANY_CALLS"))
    failure = error_details_pb2.QuotaFailure()
    assert any(detail.Unpack(failure) for detail in sent.details)
    assert failure.violations[0].subject == "TOO_MANY_CALLS"
