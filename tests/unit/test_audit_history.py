"""Events read again: filtered pages, all of them as text, and those to come."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from typing import TYPE_CHECKING

import pytest

from facetmesh.audit import history as history_module
from facetmesh.audit.exports import COLUMNS, csv_lines, json_lines
from facetmesh.audit.filters import parse_filter
from facetmesh.audit.history import History
from facetmesh.event.v1.event_pb2 import AuditEvent
from facetmesh.kit.errors import InvalidArgument, Unavailable

if TYPE_CHECKING:
    from .audit_world import World

DEADLINE_S = 30
ALL = parse_filter("")


@pytest.fixture
def world(audit_world: World) -> World:
    """Services and their keys, with each of the stores."""
    return audit_world


async def logged(world: World, count: int) -> list[AuditEvent]:
    """Events a second apart, of two outcomes and two tenants."""
    events = []
    for number in range(count):
        world.clock.now += 1
        events.append(world.event(
            tenant="tenants/globex" if number % 4 == 3 else "tenants/acme", resource=f"tenants/acme/models/m{number}",
            outcome=AuditEvent.OUTCOME_REFUSED if number % 3 == 0 else AuditEvent.OUTCOME_OK,
        ))  # fmt: skip
    async with world.log() as (log, _):
        await log.ingest([world.services["detection"].sign(event) for event in events])
    return events


async def test_a_filters_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page ends where the search does, full or not, and the pages together are what was asked for."""
    monkeypatch.setattr(history_module, "SCANNED", 10)
    monkeypatch.setattr(history_module, "_AT_ONCE", 5)
    events = await logged(world, 60)
    since = events[20].time.ToJsonString()
    wanted = parse_filter(f'outcome = REFUSED AND time >= "{since}"')
    expected = [
        event.id for event in reversed(events[20:])
        if event.outcome == AuditEvent.OUTCOME_REFUSED and event.tenant == "tenants/acme"
    ]  # fmt: skip
    async with world.store() as store:
        history = History(store, world.keyring)
        found: list[str] = []
        sizes: list[int] = []
        token = ""
        while True:
            page = await history.page("acme", wanted=wanted, size=3, token=token)
            found += [past.event.id for past in page.events]
            sizes.append(len(page.events))
            token = page.next_token
            if not token:
                break
            with pytest.raises(InvalidArgument) as error:
                await history.page("acme", wanted=ALL, size=3, token=token)
            assert error.value.reason == "PAGE_TOKEN_INVALID"
    assert found == expected
    assert max(sizes) <= 3


async def test_all_of_them_as_text(world: World) -> None:
    events = await logged(world, 450)
    evil = world.event(
        resource='=HYPERLINK("http://evil")', reason='a "quote", and a comma', source_address="+1", region="-1",
        model_version="@SUM(A1)", subject="\uff1d1",
    )
    async with world.log() as (log, store):
        await log.ingest([world.services["detection"].sign(evil)])
        history = History(store, world.keyring)
        lines = [
            json.loads(line)
            async for data in json_lines(history.all("acme", wanted=ALL))
            for line in data.decode().splitlines()
        ]
        everything = history.all(None, wanted=parse_filter("service = detection"))
        table = b"".join([data async for data in csv_lines(everything)])
    assert {line["event"]["id"] for line in lines} == {
        event.id for event in (*events, evil) if event.tenant == "tenants/acme"
    }
    assert lines[0]["event"]["outcome"] == "OUTCOME_OK"
    rows = list(csv.DictReader(io.StringIO(table.decode())))
    assert tuple(rows[0]) == COLUMNS
    assert [row["id"] for row in rows[1:]] == [event.id for event in reversed(events)]
    assert rows[0]["resource"] == '\'=HYPERLINK("http://evil")'
    assert rows[0]["reason"] == 'a "quote", and a comma'
    harmless = [rows[0][name] for name in ("source_address", "region", "model_version", "subject")]
    assert harmless == ["'+1", "'-1", "'@SUM(A1)", "'\uff1d1"]


async def test_those_to_come(world: World) -> None:
    async with world.log() as (log, store):
        history = History(store, world.keyring)
        before = world.event()
        await log.ingest([world.services["detection"].sign(before)])
        seen: list[str] = []
        some = asyncio.Event()

        async def watch() -> None:
            async for past in history.follow(log, "acme", wanted=parse_filter("reason = X OR reason = Y"), start=0):
                seen.append(past.event.reason)
                some.set()

        watching = asyncio.create_task(watch())
        for reason in ("X", "Z", "Y"):
            await log.ingest([world.signed(reason=reason), world.signed(reason=reason, tenant="tenants/globex")])
        while len(seen) < 2:
            some.clear()
            await asyncio.wait_for(some.wait(), DEADLINE_S)
        assert seen == ["X", "Y"]
        log.close()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(watching, DEADLINE_S)
