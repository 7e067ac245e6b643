"""Signed notes and checkpoints: the specification's example, and everything that must be refused."""

from __future__ import annotations

import base64

import pytest

from facetmesh.audit.note import LogSigner
from facetmesh.verify import Checkpoint, VerificationError, VerifierKey, open_checkpoint, open_note, verify_growth
from facetmesh.verify.note import SIGNATURE_PREFIX

from .audit_world import ORIGIN, b64, seed

# The example in the documentation of Go's golang.org/x/mod/sumdb/note.
NEUMANN_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
NEUMANN = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
SIGNATURE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH = "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
NOTE = f"{TEXT}\n{SIGNATURE}"

SIGNER = LogSigner(ORIGIN, seed("log"))
KEY = str(SIGNER.verifier)
ROOT = bytes(range(32))


def test_the_known_note_opens() -> None:
    assert open_note(NOTE, VerifierKey.parse(NEUMANN)) == TEXT
    assert open_note(f"{TEXT}\n{ENOCH}{SIGNATURE}", VerifierKey.parse(NEUMANN)) == TEXT


def test_the_known_note_is_made() -> None:
    signer = LogSigner("PeterNeumann", NEUMANN_SEED)
    assert str(signer.verifier) == NEUMANN
    assert signer.sign(TEXT) == NOTE


@pytest.mark.parametrize(
    ("note", "reason"),
    [
        pytest.param(NOTE.replace("answer", "Answer"), "NOTE_SIGNATURE_WRONG", id="text"),
        pytest.param(NOTE.replace("x08go/ZJ", "x08go/ZK"), "NOTE_SIGNATURE_WRONG", id="signature"),
        pytest.param(NOTE.replace("x08go", "y08go"), "NOTE_UNSIGNED", id="key hash"),
        pytest.param(f"{TEXT}\n{ENOCH}", "NOTE_UNSIGNED", id="only another's"),
        pytest.param(NOTE.replace("— PeterNeumann", "— Neumann"), "NOTE_UNSIGNED", id="name"),
        pytest.param(TEXT, "NOTE_MALFORMED", id="no signature"),
        pytest.param("", "NOTE_MALFORMED", id="empty"),
        pytest.param(NOTE[:-1], "NOTE_MALFORMED", id="no newline at the end"),
        pytest.param(f"{NOTE}\n", "NOTE_MALFORMED", id="an empty line more"),
        pytest.param(NOTE.replace("—", "-"), "NOTE_MALFORMED", id="another dash"),
        pytest.param(f"{NOTE}— PeterNeumann \n", "NOTE_MALFORMED", id="empty signature"),
        pytest.param(f"{NOTE}— Peter+Neumann x08go/ZJ\n", "NOTE_MALFORMED", id="plus in a name"),
        pytest.param(NOTE.replace("crypto", "crypto\0"), "NOTE_MALFORMED", id="control character"),
        pytest.param(TEXT + "\n" + SIGNATURE * 101, "NOTE_MALFORMED", id="too many"),
        pytest.param("x" * 1_000_001 + NOTE, "NOTE_MALFORMED", id="too large"),
    ],
)
def test_notes_that_do_not_open(note: str, reason: str) -> None:
    with pytest.raises(VerificationError) as refusal:
        open_note(note, VerifierKey.parse(NEUMANN))
    assert refusal.value.reason == reason


@pytest.mark.parametrize(
    "key",
    [
        "",
        "PeterNeumann",
        "Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",  # too long, its hash right
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",  # another algorithm, its hash right
        "PeterNeumann+c74f20a3+ARpc2Qc",
        "PeterNeumann+c74f20a3+***",
    ],
)
def test_keys_that_are_none(key: str) -> None:
    with pytest.raises(VerificationError) as refusal:
        VerifierKey.parse(key)
    assert refusal.value.reason == "KEY_MALFORMED"


def test_a_log_has_a_name() -> None:
    for name in ("", "two words", "a+b"):
        with pytest.raises(ValueError, match="named"):
            LogSigner(name, seed("log"))


def test_a_checkpoint_is_what_was_signed() -> None:
    assert open_checkpoint(SIGNER.checkpoint(7, ROOT), KEY) == Checkpoint(ORIGIN, 7, ROOT)


def test_extension_lines_are_allowed() -> None:
    text = f"{ORIGIN}\n7\n{b64(ROOT)}\nanything\nelse\n"
    assert open_checkpoint(SIGNER.sign(text), KEY).size == 7


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"another/log\n7\n{b64(ROOT)}\n", "ORIGIN_MISMATCH"),
        (f"{ORIGIN}\n07\n{b64(ROOT)}\n", "CHECKPOINT_MALFORMED"),
        (f"{ORIGIN}\n-7\n{b64(ROOT)}\n", "CHECKPOINT_MALFORMED"),
        (f"{ORIGIN}\n٧\n{b64(ROOT)}\n", "CHECKPOINT_MALFORMED"),  # noqa: RUF001 - a digit, and not an ASCII one
        (f"{ORIGIN}\n7\n{b64(ROOT[1:])}\n", "CHECKPOINT_MALFORMED"),
        (f"{ORIGIN}\n7\nno hash\n", "CHECKPOINT_MALFORMED"),
        (f"{ORIGIN}\n7\n", "CHECKPOINT_MALFORMED"),
        (f"{ORIGIN}\n7\n{b64(ROOT)}\n\nextension\n", "CHECKPOINT_MALFORMED"),
    ],
)
def test_signed_notes_that_are_no_checkpoint(text: str, reason: str) -> None:
    with pytest.raises(VerificationError) as refusal:
        open_checkpoint(SIGNER.sign(text), KEY)
    assert refusal.value.reason == reason


def test_growth_is_of_one_log() -> None:
    with pytest.raises(VerificationError) as refusal:
        verify_growth(Checkpoint("one", 7, ROOT), Checkpoint("other", 7, ROOT), [])
    assert refusal.value.reason == "ORIGIN_MISMATCH"
    verify_growth(Checkpoint("one", 7, ROOT), Checkpoint("one", 7, ROOT), [])
    assert SIGNATURE_PREFIX in NOTE
