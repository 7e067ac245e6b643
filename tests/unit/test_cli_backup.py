"""Backups without a mesh: what is copied under writing, what is refused, and that nothing is half done."""

from __future__ import annotations

import asyncio
import base64
import fcntl
import io
import json
import shutil
import sqlite3
import tarfile
import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from facetmesh.audit.database import LogDatabase
from facetmesh.audit.note import LogSigner
from facetmesh.audit.sqlite import SqliteConnection
from facetmesh.cli.backup import archive, manifest, sealed, series
from facetmesh.cli.backup import restore as restoring
from facetmesh.cli.backup.contents import blob_folders, left_out
from facetmesh.cli.backup.links import Links
from facetmesh.cli.backup.sqlite import Snapshot
from facetmesh.cli.backup.take import Job, take
from facetmesh.cli.mesh.home import Home
from facetmesh.cli.mesh.secrets import ensure
from facetmesh.kit import holds, journal
from facetmesh.kit.dapr import Outgoing
from facetmesh.kit.errors import FacetmeshError, FailedPrecondition, InvalidArgument, Unavailable
from facetmesh.kit.telemetry import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

PHRASE = b"correct horse battery staple"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder as a mesh leaves it, and a backup of it with its secrets, whose sealing takes a while."""
    folder = tmp_path_factory.mktemp("template")
    made = Home(folder / "home")
    made.prepare()
    ensure(made)
    with closing(sqlite3.connect(made.path / "sidecar.db")) as state:
        state.execute("PRAGMA journal_mode = WAL")
        state.execute("CREATE TABLE state (key TEXT PRIMARY KEY, value BLOB, etag TEXT, expires REAL)")
        state.execute("INSERT INTO state VALUES ('auth||tenants/acme', x'00', '1', NULL)")
        state.commit()
    with closing(SqliteConnection(made.path / "audit.db")) as log:
        LogDatabase(log)
    (made.path / "blobs" / "acme").mkdir(parents=True)
    (made.path / "blobs" / "acme" / "one").write_bytes(b"first")
    take(Job(made, folder / "backup", PHRASE))
    return folder


@pytest.fixture
def home(template: Path, tmp_path: Path) -> Home:
    """A copy of the state folder."""
    return Home(shutil.copytree(template / "home", tmp_path / "home"))


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """A copy of the backup."""
    return shutil.copytree(template / "backup", tmp_path / "backup")


def reason(call: Callable[[], object]) -> str:
    """Why the call is refused."""
    with pytest.raises(FacetmeshError) as refusal:
        call()
    return refusal.value.reason


def keys(file: Path) -> set[str]:
    with closing(sqlite3.connect(file)) as state:
        return {key for (key,) in state.execute("SELECT key FROM state")}


def test_what_is_restored_is_what_was_saved(home: Home, folder: Path, tmp_path: Path) -> None:
    fresh = Home(tmp_path / "fresh")
    restored = restoring.restore(restoring.Job(folder, fresh, PHRASE))
    assert restored.files == 5
    for name in ("secrets/auth.json", "secrets/audit.json", "log.vkey", "admin.key", "blobs/acme/one"):
        assert (fresh.path / name).read_bytes() == (home.path / name).read_bytes()
    assert keys(fresh.path / "sidecar.db") == {"auth||tenants/acme"}
    assert fresh.path.stat().st_mode & 0o777 == 0o700
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "no scratch is left"


def test_a_tar_is_the_same(home: Home, folder: Path, tmp_path: Path) -> None:
    archive.pack(folder, tmp_path / "backup.tar", lambda *_: None)
    fresh = Home(tmp_path / "fresh")
    restoring.restore(restoring.Job(tmp_path / "backup.tar", fresh, PHRASE))
    assert (fresh.path / "secrets/auth.json").read_bytes() == (home.path / "secrets/auth.json").read_bytes()
    assert (fresh.path / "blobs/acme/one").read_bytes() == b"first"


def test_no_secret_is_in_a_backup_in_clear(home: Home, folder: Path, tmp_path: Path) -> None:
    archive.pack(folder, tmp_path / "backup.tar", lambda *_: None)
    everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    everything += (tmp_path / "backup.tar").read_bytes()
    secrets = [json.loads(path.read_text()) for path in home.secrets.iterdir()]
    assert secrets
    assert not [value for content in secrets for value in content.values() if value.encode() in everything]
    assert b"admin.key" not in everything


def test_a_snapshot_stays_as_it_was_while_others_write(tmp_path: Path) -> None:
    file = tmp_path / "live.db"
    with closing(sqlite3.connect(file)) as live:
        live.execute("PRAGMA journal_mode = WAL")
        live.execute("CREATE TABLE state (key INTEGER PRIMARY KEY, value BLOB)")
        live.executemany("INSERT INTO state VALUES (?, zeroblob(4000))", [(n,) for n in range(20_000)])
        live.commit()
    steps: list[int] = []

    def progress(done: int, _: int) -> None:
        """Writes between the steps of the copy, all over the file."""
        steps.append(done)
        with closing(sqlite3.connect(file)) as live:
            live.execute("UPDATE state SET value = x'01' WHERE key % 97 = ?", (len(steps) % 97,))
            live.execute("INSERT INTO state VALUES (?, x'02')", (1_000_000 + len(steps),))
            live.commit()

    with Snapshot(file) as snapshot:
        with closing(sqlite3.connect(file)) as live:
            live.execute("DELETE FROM state WHERE key < 100")
            live.commit()
        snapshot.copy(tmp_path / "copy.db", progress)
    assert len(steps) > 2
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (count, least, largest), = copy.execute("SELECT count(*), min(length(value)), max(key) FROM state")
    assert (count, least, largest) == (20_000, 4000, 19_999)


def test_data_keys_are_taken_as_they_are_after_the_log(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    def meanwhile(_: Links) -> None:
        with closing(sqlite3.connect(home.path / "sidecar.db")) as live:
            live.execute("INSERT INTO state VALUES ('audit||data-keys/new', x'01', '1', NULL)")
            live.execute("UPDATE state SET value = x'02', etag = '2' WHERE key = 'audit||data-keys/old'")
            live.execute("INSERT INTO state VALUES ('auth||tenants/new', x'01', '1', NULL)")
            live.commit()

    with closing(sqlite3.connect(home.path / "sidecar.db")) as live:
        live.execute("INSERT INTO state VALUES ('audit||data-keys/old', x'01', '1', NULL)")
        live.commit()

    monkeypatch.setattr(Links, "make", meanwhile)
    take(Job(home, tmp_path / "backup", None))
    copy = tmp_path / "backup" / "sidecar.db"
    assert keys(copy) == {"auth||tenants/acme", "audit||data-keys/new", "audit||data-keys/old"}
    with closing(sqlite3.connect(copy)) as state:
        assert state.execute("SELECT value FROM state WHERE key LIKE '%old'").fetchone() == (b"\2",)


class Broker:
    """Takes events, or is away."""

    def __init__(self, *, away: bool = False) -> None:
        self.away = away
        self.ids: list[str] = []

    async def publish_many(self, _: str, events: Sequence[Outgoing], *, type: str) -> list[str]:  # noqa: A002 - the Protocol's name
        """Takes events."""
        del type
        if self.away:
            raise Unavailable("away", reason="DAPR_UNAVAILABLE")
        self.ids += [event.id for event in events]
        return []


async def test_an_event_that_leaves_its_journal_meanwhile_is_in_the_backup(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may be in the state's queue too: audit drops a repeat."""
    fix = Snapshot.__enter__

    def fixed(snapshot: Snapshot) -> Snapshot:
        """The event is published, and deleted in the journal, just before the state's moment."""
        if snapshot._path.name == "sidecar.db":
            with closing(sqlite3.connect(home.path / "detection.journal")) as live:
                live.execute("DELETE FROM events")
                live.commit()
        return fix(snapshot)

    monkeypatch.setattr(Snapshot, "__enter__", fixed)
    monkeypatch.setattr(journal, "_CLOSING_S", 0.0)
    async with journal.opened(home.path / "detection.journal", Broker(away=True), Metrics.create()) as live:
        await live.publish_many("audit.events", [Outgoing("a", b"event", {})], type="SignedEvent")
        await asyncio.to_thread(take, Job(home, tmp_path / "backup", PHRASE))
    fresh = Home(tmp_path / "fresh")
    await asyncio.to_thread(restoring.restore, restoring.Job(tmp_path / "backup", fresh, PHRASE))
    broker = Broker()
    async with journal.opened(fresh.path / "detection.journal", broker, Metrics.create()) as restored:
        await asyncio.wait_for(restored.emptied(), 30)
    assert broker.ids == ["a"]
    assert not left_out(fresh)


async def test_no_blob_is_deleted_while_a_backup_looks(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    with holds.held(tmp_path / "blobs"):
        with pytest.raises(Unavailable) as refusal:
            async with holds.deleting(tmp_path / "blobs", patience_s=0.1):
                pytest.fail("it was let in")
        assert refusal.value.reason == "BACKUP_UNDER_WAY"
    async with holds.deleting(tmp_path / "blobs", patience_s=0.1):
        waiting = threading.Thread(target=lambda: holds.held(tmp_path / "blobs").__enter__(), daemon=True)
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive(), "a backup waits for what is being deleted"
    waiting.join(30)
    assert not waiting.is_alive()


def test_a_blob_that_is_not_whole_yet_is_left_out(home: Home, tmp_path: Path) -> None:
    (home.path / "blobs" / "acme" / "two#1").write_bytes(b"half")
    assert "blobs/acme/two#1" not in take(Job(home, tmp_path / "backup", None)).files


def test_blobs_elsewhere_are_taken_along_and_an_object_stores_are_not(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "elsewhere" / "acme").mkdir(parents=True)
    (tmp_path / "elsewhere" / "acme" / "far").write_bytes(b"far")
    monkeypatch.setenv("FACETMESH_BLOBS", str(tmp_path / "elsewhere"))
    assert "blobs/acme/far" in take(Job(home, tmp_path / "one", None)).files
    monkeypatch.setenv("FACETMESH_BLOBS", "s3://bucket/prefix")
    assert not blob_folders(home)
    assert not [name for name in take(Job(home, tmp_path / "two", None)).files if name.startswith("blobs")]


def test_a_log_in_postgresql_is_left_to_it(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "audit.db" in take(Job(home, tmp_path / "here", None)).files
    monkeypatch.setenv("FACETMESH_LOG_URL", "postgresql://localhost/audit")
    assert "audit.db" not in take(Job(home, tmp_path / "elsewhere", None)).files
    restored = restoring.restore(
        restoring.Job(tmp_path / "elsewhere", Home(tmp_path / "fresh"), secrets=home.secrets)
    )
    assert restored.log_size == 0


def test_what_a_backup_does_not_know_is_told(home: Home) -> None:
    assert left_out(home) == []
    (home.path / "notes.txt").write_text("mine")
    assert left_out(home) == ["notes.txt"]


@pytest.mark.parametrize("name", ["sidecar.db", "audit.db", "blobs/acme/one", "log.vkey", "service-keys.json"])
def test_a_changed_or_missing_file_is_refused_by_name(folder: Path, tmp_path: Path, name: str) -> None:
    fresh = Home(tmp_path / "fresh")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    for _ in range(2):
        with pytest.raises(FailedPrecondition, match=name) as refusal:
            restoring.restore(restoring.Job(folder, fresh, PHRASE))
        assert refusal.value.reason == "BACKUP_DAMAGED"
        (folder / name).unlink(missing_ok=True)
    assert not fresh.path.exists()


def test_a_file_more_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    (folder / "blobs" / "acme" / "planted").write_bytes(b"x")
    with pytest.raises(FailedPrecondition, match="planted"):
        restoring.restore(restoring.Job(folder, Home(tmp_path / "fresh"), PHRASE))


def test_a_forged_manifest_does_not_open_the_secrets(folder: Path, tmp_path: Path) -> None:
    (folder / "blobs" / "acme" / "one").write_bytes(b"forged")
    made = manifest.Manifest.load((folder / manifest.NAME).read_bytes())
    files = {**made.files, "blobs/acme/one": manifest.Entry.of(folder / "blobs/acme/one")}
    forged = manifest.Manifest(made.facetmesh, made.taken, made.checkpoint, files)
    (folder / manifest.NAME).write_bytes(forged.dump())
    job = restoring.Job(folder, Home(tmp_path / "fresh"), PHRASE)
    assert reason(lambda: restoring.restore(job)) == "SECRETS_LOCKED"


def test_without_its_secrets_a_backup_is_not_restored(home: Home, folder: Path, tmp_path: Path) -> None:
    fresh = Home(tmp_path / "fresh")
    assert reason(lambda: restoring.restore(restoring.Job(folder, fresh))) == "PASSPHRASE_MISSING"
    assert reason(lambda: restoring.restore(restoring.Job(folder, fresh, b"another passphrase"))) == "SECRETS_LOCKED"
    take(Job(home, tmp_path / "bare", None))
    assert reason(lambda: restoring.restore(restoring.Job(tmp_path / "bare", fresh))) == "SECRETS_MISSING"
    other = Home(tmp_path / "other")
    other.prepare()
    ensure(other)
    job = restoring.Job(tmp_path / "bare", fresh, secrets=other.secrets)
    assert reason(lambda: restoring.restore(job)) == "SECRETS_MISMATCH"
    (other.secrets / "auth.json").unlink()
    assert reason(lambda: restoring.restore(job)) == "SECRETS_INCOMPLETE"
    assert not fresh.path.exists()
    restoring.restore(restoring.Job(tmp_path / "bare", fresh, secrets=home.secrets))
    assert fresh.admin_key.read_text() == home.admin_key.read_text()


def test_a_folder_with_something_in_it_is_left_alone(folder: Path, tmp_path: Path) -> None:
    fresh = Home(tmp_path / "fresh")
    fresh.path.mkdir()
    restoring.restore(restoring.Job(folder, fresh, PHRASE))  # an empty one will do
    before = sorted(path.name for path in fresh.path.iterdir())
    assert reason(lambda: restoring.restore(restoring.Job(folder, fresh, PHRASE))) == "HOME_NOT_EMPTY"
    assert sorted(path.name for path in fresh.path.iterdir()) == before


def test_a_log_that_does_not_continue_the_checkpoint_is_refused(home: Home, tmp_path: Path) -> None:
    """A checkpoint of two entries, signed by the log, over a log that has none."""
    seed = base64.b64decode(json.loads((home.secrets / "audit.json").read_text())["log-signing-key"])
    note = LogSigner("facetmesh.local/audit", seed).checkpoint(2, b"\1" * 32)
    take(Job(home, tmp_path / "backup", None, checkpoint=note))
    with pytest.raises(FailedPrecondition, match="continue") as refusal:
        restoring.restore(restoring.Job(tmp_path / "backup", Home(tmp_path / "fresh"), secrets=home.secrets))
    assert refusal.value.reason == "LOG_DAMAGED"
    take(Job(home, tmp_path / "unsigned", None, checkpoint=note.replace("\n2\n", "\n3\n")))
    job = restoring.Job(tmp_path / "unsigned", Home(tmp_path / "fresh"), secrets=home.secrets)
    assert reason(lambda: restoring.restore(job)) == "LOG_DAMAGED"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: m.update(format=2), "BACKUP_TOO_NEW"),
        (lambda m: m["files"].update({"../../etc/passwd": m["files"]["audit.db"]}), "MANIFEST_INVALID"),
        (lambda m: m["files"].update({"/etc/passwd": m["files"]["audit.db"]}), "MANIFEST_INVALID"),
        (lambda m: m["files"].update({"blobs/../../x/y": m["files"]["audit.db"]}), "MANIFEST_INVALID"),
        (lambda m: m["files"].update({"secrets/auth.json": m["files"]["audit.db"]}), "MANIFEST_INVALID"),
        (lambda m: m["files"]["audit.db"].update(size=-1), "MANIFEST_INVALID"),
        (lambda m: m["files"]["audit.db"].update(sha256="zz"), "MANIFEST_INVALID"),
        (lambda m: m["files"].pop("sidecar.db"), "MANIFEST_INVALID"),
        (lambda m: m.pop("files"), "MANIFEST_INVALID"),
    ],
)
def test_a_hostile_manifest_is_refused(
    folder: Path, tmp_path: Path, change: Callable[[dict[str, object]], object], why: str,
) -> None:
    content = json.loads((folder / manifest.NAME).read_text())
    change(content)
    (folder / manifest.NAME).write_text(json.dumps(content))
    assert reason(lambda: restoring.restore(restoring.Job(folder, Home(tmp_path / "fresh"), PHRASE))) == why


def test_a_hostile_archive_writes_nothing_outside(folder: Path, tmp_path: Path) -> None:
    def made_of(*members: tuple[tarfile.TarInfo, bytes]) -> Path:
        file = tmp_path / "hostile.tar"
        with tarfile.open(file, "w") as tar:
            for member, content in members:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return file

    text = (folder / manifest.NAME).read_bytes()
    first = tarfile.TarInfo(manifest.NAME)
    link = tarfile.TarInfo("sidecar.db")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    for members in (
        [(tarfile.TarInfo("sidecar.db"), b"x")],
        [(first, text), (tarfile.TarInfo("../outside"), b"x")],
        [(first, text), (link, b"")],
        [(first, text), (first, text)],
        [(first, text)],
        [],
    ):
        job = restoring.Job(made_of(*members), Home(tmp_path / "fresh"), PHRASE)
        assert reason(lambda job=job: restoring.restore(job)) == "BACKUP_DAMAGED"
    (tmp_path / "noise.tar").write_bytes(b"\0noise" * 1000)
    job = restoring.Job(tmp_path / "noise.tar", Home(tmp_path / "fresh"), PHRASE)
    assert reason(lambda: restoring.restore(job)) == "BACKUP_DAMAGED"
    archive.pack(folder, tmp_path / "cut.tar", lambda *_: None)
    whole = (tmp_path / "cut.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: len(whole) // 2])
    job = restoring.Job(tmp_path / "cut.tar", Home(tmp_path / "fresh"), PHRASE)
    assert reason(lambda: restoring.restore(job)) == "BACKUP_DAMAGED"
    assert not (tmp_path / "fresh").exists()
    assert not (tmp_path / "outside").exists()


def test_sealed_secrets_that_ask_for_all_memory_are_refused(folder: Path) -> None:
    text = (folder / manifest.NAME).read_bytes()
    content = json.loads((folder / sealed.NAME).read_text())
    assert sealed.unseal(json.dumps(content).encode(), PHRASE, text)
    for change in ({"n": 1 << 30}, {"kdf": "pbkdf2"}, {"nonce": "AAAA"}, {"salt": None}):
        data = json.dumps({**content, **change}).encode()
        assert reason(lambda data=data: sealed.unseal(data, PHRASE, text)) == "SECRETS_INVALID"


def test_a_passphrase_is_long_and_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "phrase"
    file.write_text("correct horse battery staple\n")
    file.chmod(0o644)
    assert reason(lambda: sealed.passphrase(file)) == "PASSPHRASE_EXPOSED"
    file.chmod(0o600)
    assert sealed.passphrase(file) == PHRASE
    file.write_text("too short\n")
    with pytest.raises(InvalidArgument):
        sealed.passphrase(file)


def test_a_series_links_what_has_not_changed_and_keeps_the_newest(home: Home, tmp_path: Path) -> None:
    job = Job(home, tmp_path / "unused", None)
    first = series.take_next(job, tmp_path / "series", keep=2)
    (home.path / "blobs" / "acme" / "two").write_bytes(b"second")
    second = series.take_next(job, tmp_path / "series", keep=2)
    one = "blobs/acme/one"
    assert (first.folder / one).stat().st_ino == (second.folder / one).stat().st_ino
    assert "blobs/acme/two" in second.manifest.files
    third = series.take_next(job, tmp_path / "series", keep=2)
    assert series.taken(tmp_path / "series") == [second.folder, third.folder]
    (tmp_path / "series" / "20990101T000000.000000Z.partial").mkdir()
    restored = restoring.restore(
        restoring.Job(tmp_path / "series", Home(tmp_path / "fresh"), secrets=home.secrets)
    )
    assert restored.files == 6


def test_one_backup_at_a_time_and_a_failed_one_leaves_nothing(home: Home, tmp_path: Path) -> None:
    with (home.path / "backup.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert reason(lambda: take(Job(home, tmp_path / "backup", None))) == "BACKUP_RUNNING"
    (home.path / "sidecar.db").write_bytes(b"no database" * 1000)
    assert reason(lambda: take(Job(home, tmp_path / "backup", None))) == "FILE_UNREADABLE"
    assert not (tmp_path / "backup").exists()
    assert not list(home.path.glob(".backup-*"))
    assert reason(lambda: take(Job(Home(tmp_path / "nothing"), tmp_path / "backup", PHRASE))) == "STATE_MISSING"
