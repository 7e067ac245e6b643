"""Tables of every older version are brought up to date, with what is in them."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from facetmesh.audit.bookkeeping import Bookkeeping, changed_rows
from facetmesh.audit.database import LogDatabase, checksum
from facetmesh.audit.migrations import steps
from facetmesh.audit.retention import Retention
from facetmesh.verify.merkle import EMPTY_ROOT

if TYPE_CHECKING:
    from .audit_world import World


@pytest.fixture
def world(audit_world: World) -> World:
    """Services and their keys, with each of the stores."""
    return audit_world


def test_both_dialects_take_the_same_steps() -> None:
    assert len(steps("sqlite")) == len(steps("postgresql")) > 1


@pytest.mark.parametrize("version", range(1, len(steps("sqlite"))))
async def test_an_older_log_goes_on(world: World, version: int) -> None:
    with closing(world.connect()) as old, old.writing():
        old.script("CREATE TABLE migrations (version BIGINT PRIMARY KEY, time_s BIGINT)")
        for number, script in enumerate(steps(old.dialect)[:version], start=1):
            old.script(script)
            old.insert("migrations", [(number, 0)])
        # What an older version left: here a row that its own code would not have written without an entry.
        row = ("0" * 32, "acme", 5, b"digest")
        old.insert("events", [(0, *row, checksum(*row, b"body"), b"body")])
        if version in {2, 3}:
            old.insert("retention", [("acme", 90, 1, "case 17", 5)])
        assert old.query("SELECT count(*) FROM head") == [(0,)]
    with closing(world.connect()) as connection:
        database = LogDatabase(connection)
        found = database.find("0" * 32)
        assert found is not None
        assert found.sealed == b"body"
        assert database.stored_head().root == EMPTY_ROOT
        assert connection.query("SELECT max(version) FROM migrations") == [(len(steps(connection.dialect)),)]
        assert connection.query("SELECT count(*) FROM cursors") == [(0,)]
        assert list(changed_rows(connection)) == []
        kept = [Retention("acme", 90, hold=True, reason="case 17", changed_us=5)] if version in {2, 3} else []
        assert Bookkeeping(connection).retentions() == kept
        LogDatabase(connection)  # again changes nothing
        assert connection.query("SELECT count(*) FROM migrations") == [(len(steps(connection.dialect)),)]
