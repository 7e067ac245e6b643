"""A monitor shouts when a log does what a log must not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from facetmesh.audit.merkle import Tree
from facetmesh.audit.note import LogSigner
from facetmesh.verify import Monitor, VerificationError
from facetmesh.verify.merkle import leaf_hash
from facetmesh.verify.monitor import read

from .audit_world import ORIGIN, Leaves, seed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .conftest import Clock

SIGNER = LogSigner(ORIGIN, seed("log"))
KEY = str(SIGNER.verifier)


class FakeLog:
    """A log that its operator can do anything with."""

    def __init__(self, text: str = "entry") -> None:
        """Makes its entries."""
        self.leaves = Leaves([leaf_hash(f"{text} {n}".encode()) for n in range(500)])

    def note(self, size: int) -> str:
        """The checkpoint at a size."""
        return SIGNER.checkpoint(size, self.leaves.root(size))

    def prove(self, old_size: int, new_size: int) -> Sequence[bytes]:
        """The consistency proof."""
        return Tree(self.leaves, new_size).consistency(old_size)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where checkpoints are kept."""
    return tmp_path / "checkpoints"


def test_growth_is_followed_over_restarts(file: Path) -> None:
    log = FakeLog()
    for size in (0, 1, 7, 7, 256, 400):
        assert Monitor(KEY, file).check(log.note(size), log.prove).size == size
    assert [seen.checkpoint.size for seen in read(file, KEY)] == [0, 1, 7, 256, 400]


def test_a_checkpoint_that_was_cut_off_was_not_kept(file: Path) -> None:
    """The disk was full, or the machine went down: the next one goes on from the one before."""
    log = FakeLog()
    for size in (3, 5):
        Monitor(KEY, file).check(log.note(size), log.prove)
    file.write_bytes(file.read_bytes()[:-20])
    assert [seen.checkpoint.size for seen in read(file, KEY)] == [3]
    for size in (5, 8):
        Monitor(KEY, file).check(log.note(size), log.prove)
    assert [seen.checkpoint.size for seen in read(file, KEY)] == [3, 5, 8]


@pytest.mark.parametrize(("size", "reason"), [(99, "LOG_ROLLED_BACK"), (100, "LOG_FORKED"), (101, "LOG_FORKED")])
def test_another_log_in_its_place(file: Path, size: int, reason: str) -> None:
    Monitor(KEY, file).check(FakeLog().note(100), FakeLog().prove)
    other = FakeLog("another")
    with pytest.raises(VerificationError) as error:
        Monitor(KEY, file).check(other.note(size), other.prove)
    assert error.value.reason == reason
    assert len(read(file, KEY)) == 1


def test_another_key(file: Path) -> None:
    stranger = LogSigner(ORIGIN, seed("stranger"))
    with pytest.raises(VerificationError) as error:
        Monitor(KEY, file).check(stranger.checkpoint(1, bytes(32)), FakeLog().prove)
    assert error.value.reason == "NOTE_UNSIGNED"
    assert not file.exists()


def test_it_knows_how_long_nothing_grew(file: Path, clock: Clock) -> None:
    log, monitor = FakeLog(), Monitor(KEY, file, clock=clock)
    assert monitor.idle_s() == 0
    monitor.check(log.note(5), log.prove)
    clock.now += 60
    monitor.check(log.note(5), log.prove)
    assert monitor.idle_s() == 60
    assert Monitor(KEY, file, clock=clock).idle_s() == 60


def test_two_monitors_notice_two_faces(tmp_path: Path) -> None:
    log, other = FakeLog(), FakeLog("another")
    one, two = Monitor(KEY, tmp_path / "one"), Monitor(KEY, tmp_path / "two")
    for size in (10, 30):
        one.check(log.note(size), log.prove)
        two.check(log.note(size + 5), log.prove)
    one.compare(two.seen, log.prove)
    three = Monitor(KEY, tmp_path / "three")
    three.check(other.note(20), other.prove)
    with pytest.raises(VerificationError) as error:
        one.compare(three.seen, log.prove)
    assert error.value.reason == "LOG_FORKED"


@pytest.mark.parametrize(
    "text", ["?", "?\n", "[]\n", '{"note": "x"}', '{"time_s": "x", "note": "y"}\n', "log.test/audit+8efc5d48+AXbw"]
)
def test_a_file_that_is_none(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(VerificationError) as error:
        Monitor(KEY, file)
    assert error.value.reason == "CHECKPOINTS_MALFORMED"
    assert file.read_text() == text
