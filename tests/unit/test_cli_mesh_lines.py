"""Every process's lines, readable by people, with secrets masked."""

from __future__ import annotations

import json

import pytest

from facetmesh.cli.mesh.lines import Line, parse


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"time": "t", "level": "warning", "service": "auth", "logger": "l", "message": "slow", "ms": 3}',
         Line("warning", "slow", "ms=3")),
        ('{"app_id":"auth","instance":"vm","level":"fatal","msg":"no way","scope":"dapr","time":"t","type":"log"}',
         Line("fatal", "no way")),
        ("31337:M 21 Nov 2026 12:57:10.123 * Ready to accept connections", Line("info", "Ready to accept connections")),
        ("31337:M 21 Nov 2026 12:57:10.123 # Out of memory", Line("warning", "Out of memory")),
        ("Traceback (most recent call last):", Line("info", "Traceback (most recent call last):")),
        ("[1, 2]", Line("info", "[1, 2]")),
        ('{"level": "info"}', Line("info", "")),
    ],
)  # fmt: skip
def test_a_line_of_each_kind(line: str, says: Line) -> None:
    assert parse(line) == says


@pytest.mark.parametrize("template", ["{}", '{{"msg": "{}"}}', '{{"message": "x", "detail": "{}"}}'])
def test_secrets_are_masked(template: str) -> None:
    secret = "fm_platform_admin_abcdefghijklmnopqrstuvwxyz"
    said = parse(template.format(secret))
    assert secret not in said.text + said.extras
    assert "***" in said.text + said.extras


def test_what_is_named_like_a_secret_is_masked() -> None:
    assert parse(json.dumps({"msg": "x", "redisPassword": "open sesame"})).extras == "redisPassword=***"
