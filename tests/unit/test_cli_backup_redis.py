"""A Redis's state in a backup: a real Redis gives it, and a real Redis starts from it."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest

from facetmesh.cli.backup import redis
from facetmesh.cli.mesh import binaries, daprd
from facetmesh.kit.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEADLINE_S = 60
PASSWORD = "a password of these tests"


@contextmanager
def running(folder: Path) -> Iterator[redis.Connection]:
    """A Redis as a mesh runs it, over what lies in folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = daprd.Redis(binaries.redis_server(), folder, port, PASSWORD.replace(" ", "-"))
    process = subprocess.Popen(server.command(), stdout=subprocess.DEVNULL)
    try:
        with closing(_connected(folder / "redis.conf")) as connection:
            yield connection
    finally:
        process.kill()
        process.wait()


def _connected(configuration: Path) -> redis.Connection:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            connection = redis.Connection(configuration)
            connection.call(b"GET", b"x")  # refused while it loads
        except (FailedPrecondition, OSError):
            assert time.monotonic() < deadline, "Redis does not serve"
            time.sleep(0.05)
        else:
            return connection


def test_what_one_redis_gave_another_starts_from(tmp_path: Path) -> None:
    copy = tmp_path / "copy.aof"
    with running(tmp_path / "one") as live:
        live.call(b"HSET", b"auth||tenants/acme", b"data", bytes(range(256)), b"version", b"1")
        live.call(b"HSET", b"audit||data-keys/old", b"data", b"old", b"version", b"1")
        live.call(b"XADD", b"audit.events", b"*", b"data", b"event")
        live.call(b"XGROUP", b"CREATE", b"audit.events", b"audit", b"0")
        with redis.Snapshot(tmp_path / "one" / "redis.conf") as snapshot:
            live.call(b"HSET", b"auth||tenants/late", b"data", b"x", b"version", b"1")
            live.call(b"HSET", b"audit||data-keys/old", b"data", b"rotated", b"version", b"2")
            live.call(b"HSET", b"audit||data-keys/new", b"data", b"new", b"version", b"1")
            told: list[tuple[int, int]] = []
            snapshot.copy(copy, lambda done, total: told.append((done, total)))
        assert told[-1][0] == told[-1][1] == copy.stat().st_size
        redis.renew(copy, tmp_path / "one" / "redis.conf", match=b"*||data-keys/*")
    (tmp_path / "two").mkdir()
    copy.rename(tmp_path / "two" / "appendonly.aof")
    with running(tmp_path / "two") as restored:
        assert restored.call(b"HGET", b"auth||tenants/acme", b"data") == bytes(range(256))
        assert restored.call(b"EXISTS", b"auth||tenants/late") == 0
        assert restored.call(b"HGET", b"audit||data-keys/old", b"data") == b"rotated"
        assert restored.call(b"HGET", b"audit||data-keys/new", b"data") == b"new"
        assert restored.call(b"XLEN", b"audit.events") == 1
        groups = restored.call(b"XINFO", b"GROUPS", b"audit.events")
        assert isinstance(groups, list)
        assert len(groups) == 1
        restored.call(b"SET", b"goes-on", b"yes")
    with running(tmp_path / "two") as again:
        assert again.call(b"GET", b"goes-on") == b"yes"
        with pytest.raises(OSError, match="refused"):
            again.call(b"NO-SUCH-COMMAND")


def test_a_redis_that_is_not_there_is_told(tmp_path: Path) -> None:
    configuration = tmp_path / "redis.conf"
    configuration.write_text("port 1\nrequirepass x\n")
    with pytest.raises(FailedPrecondition) as refusal:
        redis.Connection(configuration)
    assert refusal.value.reason == "REDIS_UNREACHABLE"
