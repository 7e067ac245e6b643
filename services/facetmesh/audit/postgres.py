"""The log's database in PostgreSQL, which several replicas of the service may share.

One of them writes at a time: each of their transactions takes the same lock, which
PostgreSQL lets go when the transaction ends, in whatever way. One that has stopped
in the middle is thrown out after `REST_S`, and what it did is undone: it cannot
commit later. So the log has one order, and no replica waits long for a dead one.

PostgreSQL itself does so only to who stopped between two statements. Within one, in
the middle of a COPY for instance, it waits for its client for ever, and no timeout of
its own counts. So who waits for the lock looks each `LOOK_S` whether its holder rests.
"""

from __future__ import annotations

import logging
import select
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import IsolationLevel, sql
from psycopg.errors import LockNotAvailable

from facetmesh.audit.connection import store_failed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LOCK = 0x6661636574  # "facet": any number, the same for all replicas
REST_S = 3
"""How long the server may wait for a writer that says nothing, in seconds; then it is thrown out."""
LOOK_S = 1
"""How often who waits for the lock looks what its holder does, in seconds."""
_LOOKS = 10
"""After so many it gives up: the events come again."""
_OPTIONS = (
    f"-c idle_in_transaction_session_timeout={REST_S}s -c lock_timeout={LOOK_S}s -c statement_timeout=60s"
    # A commit is durable when it returns, whatever the server's own setting is.
    " -c synchronous_commit=on"
    # A host that vanished is noticed as soon as a process that stopped.
    " -c tcp_keepalives_idle=1 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=2"
)
_CONNECT_S = 5
_THROW_OUT = """
    SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND (classid::bigint << 32) + objid::bigint = ?
        AND datname = current_database() AND wait_event_type = 'Client'
        AND state_change < now() - make_interval(secs => ?)
"""
_log = logging.getLogger(__name__)


class PostgresConnection:
    """A connection with a database; made anew after it broke.

    Args:
        url: postgresql://user@host/database, as libpq reads it.
        password: The user's; None where none is asked for, or libpq finds it itself.
        patient: Whether a transaction may rest for long: for who only reads.

    Raises:
        Unavailable: PostgreSQL does not answer, or lets nobody in.
    """

    dialect = "postgresql"
    """Whose SQL it speaks."""

    def __init__(self, url: str, password: str | None = None, *, patient: bool = False) -> None:
        self._url = url
        self._password = password
        self._options = f"{_OPTIONS} -c idle_in_transaction_session_timeout=0" if patient else _OPTIONS
        self._db: psycopg.Connection[tuple[Any, ...]] | None = None
        self._in_transaction = False
        with self._our_errors():
            self._connected()

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows that a statement gives."""
        with self._our_errors():
            cursor = self._connected().execute(_translated(sql), values)
            return cursor.fetchall() if cursor.description else []

    def insert(self, table: str, rows: Sequence[Sequence[object]]) -> None:
        """Inserts rows, all columns of each in the table's order."""
        with self._our_errors(), self._connected().cursor() as cursor:
            statement = sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(table))
            with cursor.copy(statement) as copy:
                for row in rows:
                    copy.write_row(row)

    def execute_many(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Runs a statement once with each row of values."""
        with self._our_errors(), self._connected().cursor() as cursor:
            cursor.executemany(_translated(sql), rows)

    def script(self, sql: str) -> None:
        """Runs statements without values."""
        with self._our_errors():
            self._connected().execute(sql.encode())

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction that no other writer's can come between, on this machine or another; durable at its end."""
        for looks_left in reversed(range(_LOOKS)):
            with self._transaction() as db:
                try:
                    db.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                except LockNotAvailable:
                    if not looks_left:
                        raise
                else:
                    yield
                    return
            if self.query(_THROW_OUT, _LOCK, REST_S):
                _log.warning("another replica has stopped while it wrote to the log: what it did is undone")

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Shows everything as it is at the first read, whatever is written meanwhile."""
        with self._our_errors():
            self._connected().isolation_level = IsolationLevel.REPEATABLE_READ
        try:
            with self._transaction():
                yield
        finally:
            if self._db is not None:
                self._db.isolation_level = None

    def integrity(self) -> list[str]:
        """What PostgreSQL finds wrong with its own files: pages whose checksums are wrong, where it keeps them."""
        wrong = "SELECT checksum_failures FROM pg_stat_database WHERE datname = current_database()"
        ((failures,),) = self.query(wrong)
        return [f"{failures} pages with a wrong checksum"] if failures else []

    def close(self) -> None:
        """Ends the connection."""
        if self._db is not None:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        with self._our_errors():
            db = self._connected()
            with db.transaction():
                self._in_transaction = True
                try:
                    yield db
                    if db.closed:  # psycopg would leave such a transaction without a word
                        raise psycopg.OperationalError("the connection was lost before the commit")
                finally:
                    self._in_transaction = False

    def _connected(self) -> psycopg.Connection[tuple[Any, ...]]:
        # A new connection knows nothing of a transaction that was begun on another, nor has its lock.
        if self._db is None or (not self._in_transaction and _lost(self._db)):
            self._db = psycopg.connect(
                self._url, password=self._password, autocommit=True, connect_timeout=_CONNECT_S,
                application_name="facetmesh-audit", options=self._options,
                keepalives_idle=1, keepalives_interval=1, keepalives_count=2, tcp_user_timeout=REST_S * 1000,
            )
        return self._db

    @contextmanager
    def _our_errors(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise store_failed(error) from error


def _lost(connection: psycopg.Connection[tuple[Any, ...]]) -> bool:
    """Whether a connection at rest is of no more use: a server has nothing to say to it but farewell."""
    if connection.closed:
        return True
    readable, _, _ = select.select([connection.fileno()], [], [], 0)
    if readable:
        connection.close()
    return bool(readable)


def _translated(statement: str) -> bytes:
    """Our SQL with psycopg's placeholders. None of our statements has a percent sign or a literal question mark."""
    return statement.replace("?", "%s").encode()
