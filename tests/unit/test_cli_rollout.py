"""`facetmesh rollout start` says what is wrong with what it is given before it asks anybody."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from facetmesh.cli.main import app
from facetmesh.kit.errors import FacetmeshError

if TYPE_CHECKING:
    from pathlib import Path


def refused(home: Path, *arguments: str) -> tuple[int, str]:
    """The exit code, and the reason where it is an error of ours."""
    command = ["--home", str(home), "rollout", "start", "pets", "--to", "2", *arguments]
    done = CliRunner().invoke(app, command)
    reason = done.exception.reason if isinstance(done.exception, FacetmeshError) else ""
    return done.exit_code, reason


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--steps", ""), "STEP_INVALID"),
        (("--steps", "ten,100"), "STEP_INVALID"),
        (("--steps", "-1,100"), "STEP_INVALID"),
        (("--steps", "10+5+5,100"), "STEP_INVALID"),
        (("--steps", "101"), "STEP_INVALID"),
        (("--steps", "99999999999,100"), "STEP_INVALID"),
        (("--blue-green", "--steps", "10,100"), "STEPS_TWICE"),
        (("--window", "soon"), "DURATION_INVALID"),
        (("--window", "-5m"), "DURATION_INVALID"),
        (("--patience", "1d"), "DURATION_INVALID"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_reason(tmp_path: Path, arguments: tuple[str, ...], reason: str) -> None:
    assert refused(tmp_path, *arguments) == (1, reason)


@pytest.mark.parametrize("samples", ["0", "-3", "99999999999", "many"])
def test_samples_are_a_number_that_can_be(tmp_path: Path, samples: str) -> None:
    assert refused(tmp_path, "--samples", samples) == (2, "")


def test_what_makes_sense_is_asked_of_a_mesh(tmp_path: Path) -> None:
    code, reason = refused(tmp_path, "--steps", "0+10, 1,100", "--window", "90s", "--patience", "1h")
    assert code == 1
    assert reason in {"KEY_MISSING", "NO_ENDPOINTS"}
