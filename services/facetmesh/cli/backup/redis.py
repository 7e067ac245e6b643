"""The mesh's own Redis as it is at one moment, as a file that Redis starts from.

We ask for what a new replica would get: SYNC, to which Redis answers with a snapshot (RDB) of the moment of its fork.
An append-only file may begin with one (`aof-use-rdb-preamble`, Redis's default), and newer commands may follow it.

Sources: https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/ and …/reference/protocol-spec/.
"""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Self

from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

_TIMEOUT_S = 60
_CHUNK_BYTES = 1 << 20
_SETTING = re.compile(r"^(port|requirepass) (\S+)$", re.MULTILINE)

Reply = bytes | int | list["Reply"] | None


class Connection:
    """A connection with the Redis that a configuration file describes.

    Args:
        configuration: The file, as `facetmesh up` wrote it.

    Raises:
        FailedPrecondition: REDIS_UNREACHABLE.
    """

    def __init__(self, configuration: Path) -> None:
        settings = dict(_SETTING.findall(configuration.read_text()))
        with ExitStack() as stack:
            try:
                self._socket = socket.create_connection(("127.0.0.1", int(settings["port"])), timeout=_TIMEOUT_S)
                stack.callback(self._socket.close)
                self.stream: IO[bytes] = self._socket.makefile("rb")
                self.call(b"AUTH", settings["requirepass"].encode())
            except (OSError, KeyError, ValueError) as error:
                raise FailedPrecondition(
                    f"The mesh's Redis does not answer ({error}): a backup is taken while the mesh serves.",
                    reason="REDIS_UNREACHABLE",
                ) from error
            stack.pop_all()

    def close(self) -> None:
        """Ends the connection."""
        self.stream.close()
        self._socket.close()

    def send(self, *words: bytes) -> None:
        """Sends a command."""
        self._socket.sendall(command(*words))

    def call(self, *words: bytes) -> Reply:
        """The answer to a command.

        Raises:
            OSError: The connection ended, or Redis refused.
        """
        self.send(*words)
        return self._reply()

    def line(self) -> bytes:
        """A line of an answer.

        Raises:
            OSError: The connection ended, or Redis refused.
        """
        line = self.stream.readline()
        if not line.endswith(b"\n"):
            raise OSError("Redis ended the connection")
        if line.startswith(b"-"):
            raise OSError(f"Redis refused: {line[1:].strip().decode(errors='replace')}")
        return line.rstrip(b"\r\n")

    def _reply(self) -> Reply:
        line = self.line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.stream.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self._reply() for _ in range(int(rest))]
        raise OSError(f"Redis answered {line[:40]!r}")


class Snapshot:
    """The Redis as it is when the context is entered.

    Args:
        configuration: Its configuration file.
    """

    def __init__(self, configuration: Path) -> None:
        self._configuration = configuration
        self._connection: Connection
        self._size = 0

    def __enter__(self) -> Self:
        """Fixes the moment; returns once Redis has written its snapshot.

        Raises:
            FailedPrecondition: REDIS_UNREACHABLE.
        """
        self._connection = Connection(self._configuration)
        try:
            self._connection.send(b"SYNC")
            while not (header := self._connection.line()):
                pass  # empty lines keep the connection alive while the snapshot is written
            self._size = int(header.removeprefix(b"$"))
        except (OSError, ValueError) as error:
            self._connection.close()
            raise FailedPrecondition(f"Redis gives no snapshot: {error}.", reason="REDIS_UNREACHABLE") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
    ) -> None:
        """Lets go of it."""
        self._connection.close()

    def copy(self, target: Path, progress: Callable[[int, int], None]) -> None:
        """Writes it to target.

        Args:
            target: A file that is not there yet.
            progress: Is told how many bytes of how many are done.

        Raises:
            FailedPrecondition: REDIS_UNREACHABLE; it ended meanwhile.
        """
        done = 0
        with target.open("xb") as out:
            while done < self._size:
                chunk = self._connection.stream.read(min(_CHUNK_BYTES, self._size - done))
                if not chunk:
                    raise FailedPrecondition("Redis ended meanwhile.", reason="REDIS_UNREACHABLE")
                out.write(chunk)
                done += len(chunk)
                progress(done, self._size)


def renew(copy: Path, configuration: Path, *, match: bytes) -> None:
    """Makes the keys of a copy that match what they are now.

    Args:
        copy: What `Snapshot.copy` wrote.
        configuration: The Redis's configuration file.
        match: As SCAN has it.
    """
    connection = Connection(configuration)
    try:
        with copy.open("ab") as out:
            for key in _scan(connection, match):
                value = connection.call(b"DUMP", key)
                if isinstance(value, bytes):
                    out.write(command(b"RESTORE", key, b"0", value, b"REPLACE"))
    finally:
        connection.close()


def command(*words: bytes) -> bytes:
    """A command as it goes over the wire, and as it stands in an append-only file."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def _scan(connection: Connection, match: bytes) -> Iterator[bytes]:
    cursor = b"0"
    while True:
        reply = connection.call(b"SCAN", cursor, b"MATCH", match, b"COUNT", b"1000")
        if not isinstance(reply, list) or not isinstance(reply[0], bytes) or not isinstance(reply[1], list):
            raise OSError("Redis answered what is no SCAN")
        cursor = reply[0]
        yield from (key for key in reply[1] if isinstance(key, bytes))
        if cursor == b"0":
            return
