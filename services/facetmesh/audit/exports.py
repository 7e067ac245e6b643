"""Events as text: JSON lines for programs, CSV for tables."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

from google.protobuf.json_format import MessageToDict

from facetmesh.event.v1.event_pb2 import AuditEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from facetmesh.audit.history import Past

JSON_LINES = "application/jsonl; charset=utf-8"
CSV = "text/csv; charset=utf-8; header=present"
_AT_ONCE = 200
_TEXTS = (
    "service", "method", "tenant", "subject", "source_address", "resource", "model_version", "model_sha256", "region",
    "code", "reason", "trace_id",
)  # fmt: skip
COLUMNS = ("index", "time", "id", "outcome", "duration_s", *_TEXTS)
"""The columns of the CSV."""
# Those that OWASP lists, also in the wide forms that some spreadsheets read alike.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


async def json_lines(events: AsyncIterator[Past]) -> AsyncIterator[bytes]:
    """A JSON object a line, many lines at once: index and event, with the proto's field names."""
    lines: list[str] = []
    async for past in events:
        event = MessageToDict(past.event, preserving_proto_field_name=True)
        lines.append(json.dumps({"index": past.index, "event": event}, separators=(",", ":")))
        if len(lines) == _AT_ONCE:
            yield ("\n".join(lines) + "\n").encode()
            lines = []
    if lines:
        yield ("\n".join(lines) + "\n").encode()


async def csv_lines(events: AsyncIterator[Past]) -> AsyncIterator[bytes]:
    """RFC 4180: the columns' names, then a line for each event, many at once."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    rows = 0
    async for past in events:
        writer.writerow([_cell(value) for value in _row(past)])
        rows += 1
        if rows % _AT_ONCE == 0:
            yield text.getvalue().encode()
            text.seek(0)
            text.truncate()
    yield text.getvalue().encode()


def _row(past: Past) -> list[str]:
    event = past.event
    outcome = AuditEvent.Outcome.Name(event.outcome).removeprefix("OUTCOME_")
    duration_s = f"{event.duration.ToMicroseconds() / 1e6:.6f}"
    texts = [str(getattr(event, name)) for name in _TEXTS]
    return [str(past.index), event.time.ToJsonString(), event.id, outcome, duration_s, *texts]


def _cell(value: str) -> str:
    """The value, so that no spreadsheet takes what a caller chose for a formula."""
    return f"'{value}" if value.startswith(_FORMULA) else value
