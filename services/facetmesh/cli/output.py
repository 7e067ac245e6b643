"""Answers: tables for people on a terminal, JSON for programs."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import TextIO

    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp
    from rich.console import RenderableType

    from facetmesh.cli.options import Options
    from facetmesh.kit.errors import FacetmeshError

_UNFOLDED = 10_000


def _console(stream: TextIO) -> Console:
    """As wide as the terminal; into a pipe or a file every row goes on one line, for grep and its kin."""
    return Console(stderr=stream is sys.stderr, width=None if stream.isatty() else _UNFOLDED)


out = _console(sys.stdout)
"""For answers."""
err = _console(sys.stderr)
"""For progress and errors, so that an answer can be piped."""


def answer(options: Options, data: Any, view: RenderableType) -> None:
    """Prints data as JSON where that was asked for, else view, text as it is."""
    if options.json:
        out.print_json(json.dumps(data))
    elif isinstance(view, str):
        out.print(view, markup=False, highlight=False, soft_wrap=True)
    else:
        out.print(view)


def note(text: str) -> None:
    """Prints text as it is on stderr."""
    err.print(text, markup=False, highlight=False, soft_wrap=True)


def facts(named: Mapping[str, object]) -> str:
    """A line for each; none is folded, so that names and paths can be copied."""
    width = max(map(len, named))
    return "\n".join(f"{name:<{width}}  {_said(value)}" for name, value in named.items())


def called() -> str:
    """How the shell finds this command here: `facetmesh`, or by its path where the environment is not activated."""
    called = Path(sys.argv[0])
    if called.name != "facetmesh":
        return f"{sys.executable} -m facetmesh.cli"
    found = shutil.which("facetmesh")
    return "facetmesh" if found is not None and called.exists() and called.samefile(found) else str(called)


def number(value: float) -> str:
    """A number as people read it: thousands apart, one decimal at the most."""
    return f"{value:,.1f}".removesuffix(".0")


def _said(value: object) -> str:
    """A value as people read it: of several, one after the other."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(_said, value))
    return number(value) if isinstance(value, float) else str(value)


def as_data(message: Message) -> dict[str, Any]:
    """A message as JSON's types, its fields named as in the proto."""
    return MessageToDict(message, preserving_proto_field_name=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> Table:
    """A plain table; a cell may carry rich's markup only if it is a renderable of its own."""
    made = Table(
        title=title, title_justify="left", title_style="bold", box=None, header_style="bold", pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(cell if hasattr(cell, "__rich_console__") else escape(str(cell)) for cell in row))
    return made


def moment(time: Timestamp) -> str:
    """A time to the second, in UTC; "" when it is not set."""
    return time.ToJsonString().split(".")[0].rstrip("Z").replace("T", " ") if time.ByteSize() else ""


def complain(error: FacetmeshError, *, as_json: bool) -> None:
    """Tells of an error in one line on stderr."""
    if as_json:
        data: dict[str, Any] = {"code": error.code, "reason": error.reason, "message": error.message}
        if error.metadata:
            data["metadata"] = error.metadata
        if error.violations:
            data["violations"] = [{"field": v.field, "description": v.description} for v in error.violations]
        if error.retry_after_s is not None:
            data["retry_after_s"] = error.retry_after_s
        err.print_json(json.dumps({"error": data}), indent=None)
        return
    faults = (f"{v.field}: {v.description}" for v in error.violations)
    text = "; ".join([error.message, *(fault for fault in faults if fault not in error.message)])
    err.print(f"[bold red]{error.reason}[/] {escape(text)}", soft_wrap=True, highlight=False)
