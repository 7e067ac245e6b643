"""The commands that the pages show are there, with the options that they are shown with."""

from __future__ import annotations

import functools
import itertools
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer.main

from facetmesh.cli.main import app

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def shown(page: str) -> Iterator[str]:
    """The commands of a page: the lines of its blocks, and what stands in the text."""
    for block in _BLOCK.findall(page):
        yield from re.findall(r"(?:^|[|&(] ?)facetmesh (.*)", block.replace("\\\n", " "), re.MULTILINE)
    yield from (one.replace("\n", " ") for one in re.findall(r"`facetmesh ([^`]+)`", _BLOCK.sub("", page)))


def words(command: str) -> list[str]:
    """A command's arguments, up to where the shell goes on with something else."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(itertools.takewhile(lambda word: word[0] not in "|&;<>()", lexer))


@functools.cache
def everything() -> Any:
    """The tree of all commands."""
    return typer.main.get_command(app)


def wrong(arguments: Sequence[str]) -> list[str]:
    """What of a command there is not."""
    command = everything()
    options = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
    unknown: list[str] = []
    for argument in arguments:
        name = argument.partition("=")[0]
        if name.startswith("--"):
            unknown += [name] if name not in options else []
        elif argument in (commands := getattr(command, "commands", {})):
            command = commands[argument]
            options |= {name for one in command.params for name in (*one.opts, *one.secondary_opts)}
        elif commands and argument.isalpha() and argument.islower():
            unknown.append(argument)
    return unknown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_the_page_are_there(page: Path) -> None:
    found = {one: wrong(words(one)) for one in shown(page.read_text())}
    assert {one: unknown for one, unknown in found.items() if unknown} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_targets_of_the_page_are_there(page: Path) -> None:
    targets = {
        target
        for line in re.findall(r"^([a-z][a-z -]*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
        for target in line.split()
    }
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)) <= targets


def test_what_is_not_there_is_noticed() -> None:
    assert wrong(["audit", "list", "--limit", "3"]) == ["list", "--limit"]
    assert wrong(["--home", "/new", "up", "--detach", "--forever"]) == ["--forever"]
    assert list(shown("`facetmesh a\nb` ```sh\nfacetmesh c --d \\\n e\n```")) == ["c --d   e", "a b"]
    assert words("a 'b > c' --d > e  # f") == ["a", "b > c", "--d"]
