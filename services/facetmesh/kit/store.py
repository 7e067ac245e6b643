"""A SQLite file that many coroutines write to, with one fsync for all who wait.

All work happens in one thread. What arrives while a commit is being synced to
the disk goes into the next commit together, so that the rate of durable writes
is not bound by the disk's latency, and the event loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import queue
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

_T = TypeVar("_T")
_LARGEST_BATCH = 512
_BUSY_TIMEOUT_S = 5.0
_PRIMARY = 0xFF
"""The part of SQLite's error codes that says what kind it is."""
_log = logging.getLogger(__name__)

_PRAGMAS = (
    "PRAGMA auto_vacuum = INCREMENTAL",  # works only before the first table
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    f"PRAGMA journal_size_limit = {64 << 20}",
    "PRAGMA foreign_keys = ON",
)


class StoreError(Exception):
    """The file could not be read or written; nothing was changed.

    Args:
        message: What SQLite said.
        full: Whether the disk is full.
    """

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


class _Job(NamedTuple):
    work: Callable[[sqlite3.Connection], Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]


class _Outcome(NamedTuple):
    result: Any
    error: Exception | None


class Store:
    """One SQLite file, opened for this process alone.

    Args:
        path: The file; it is made, with mode 0600, when it is not there.
        schema: SQL that creates what does not yet exist.

    Raises:
        StoreError: Another process has it open, or it cannot be opened.
    """

    def __init__(self, path: Path, schema: str) -> None:
        self.path = path
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = _exclusive(path)
        try:
            self._connection = _open(path, schema)
        except sqlite3.Error as error:
            os.close(self._lock)
            raise StoreError(f"{path}: {error}") from error
        self._closed = False
        self.failing = False
        """Whether the last that could not be done was for the disk's sake: until something is written again."""
        self._thread = threading.Thread(target=self._run, name=f"sqlite {path.name}", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[sqlite3.Connection], _T]) -> asyncio.Future[_T]:
        """What work returns, once all that it wrote is on the disk.

        Work runs in the store's thread, within a transaction, after all that was
        asked for before, and also when nobody waits for it any more. When it
        raises, what it wrote is undone; others in the same commit are not
        touched. It may be run again from the start when a commit fails.

        Raises:
            StoreError: SQLite could not do it.
            Exception: What work raised.
        """
        if self._closed:
            raise StoreError("the store is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()
        self._jobs.put(_Job(work, loop, future))
        return future

    async def check(self) -> None:
        """Returns when the file can be read, and where the disk failed before, written again.

        Raises:
            StoreError: It cannot.
        """
        failed = self.failing
        await self.run(_rewrite if failed else _look)
        if failed:
            self.failing = False

    def close(self) -> None:
        """Finishes what was asked for, and closes the file."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
            self._thread.join()
            os.close(self._lock)

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            batch: list[_Job] = []
            while job is not None:
                batch.append(job)
                if len(batch) == _LARGEST_BATCH:
                    break
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
            if batch:
                self._commit(batch)
            if job is None:
                self._connection.close()
                return

    def _commit(self, batch: Sequence[_Job]) -> None:
        try:
            outcomes = [*zip(batch, self._transaction(batch), strict=True)]
        except sqlite3.Error:
            # One job's failure must not be another's: the disk may be full for a
            # large one and not for a small one, and readers need no room at all.
            outcomes = [(job, self._alone(job)) for job in batch]
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], _Outcome]]] = {}
        for job, outcome in outcomes:
            by_loop.setdefault(job.loop, []).append((job.future, outcome))
        for loop, settled in by_loop.items():
            try:
                loop.call_soon_threadsafe(_settle, settled)
            except RuntimeError:  # its loop has ended: nobody waits any more
                _log.debug("results came after the end of their event loop")

    def _alone(self, job: _Job) -> _Outcome:
        try:
            return self._transaction([job])[0]
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0)
            full = code == sqlite3.SQLITE_FULL
            self.failing = self.failing or (code & _PRIMARY) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
            return _Outcome(None, StoreError(str(error), full=full))

    def _transaction(self, batch: Sequence[_Job]) -> list[_Outcome]:
        execute = self._connection.execute
        shared = len(batch) > 1  # else its savepoint is a transaction
        try:
            if shared:
                execute("BEGIN")
            outcomes = []
            for job in batch:
                execute("SAVEPOINT job")
                try:
                    outcome = _Outcome(job.work(self._connection), None)
                except sqlite3.Error:
                    raise
                except Exception as error:  # noqa: BLE001 - it goes to whoever asked for the work
                    execute("ROLLBACK TO job")
                    outcome = _Outcome(None, error)
                execute("RELEASE job")
                outcomes.append(outcome)
            if shared:
                execute("COMMIT")
        except sqlite3.Error:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise
        return outcomes


def _settle(settled: Sequence[tuple[asyncio.Future[Any], _Outcome]]) -> None:
    for future, (result, error) in settled:
        if future.done():  # whoever asked was cancelled meanwhile
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


def _look(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA user_version").fetchone()


def _rewrite(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {int(version)}")


def _exclusive(path: Path) -> int:
    """A lock beside the file. Not on the file itself: closing that would drop SQLite's own locks."""
    handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise StoreError(f"{path} is in use by another process") from None
    return handle


def _open(path: Path, schema: str) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    for pragma in _PRAGMAS:
        connection.execute(pragma)
    connection.executescript(schema)
    return connection
