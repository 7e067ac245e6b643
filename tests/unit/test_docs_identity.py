"""What docs/identity.md promises: its recipe for scanners works, and the tests that it names are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from facetmesh.kit import apikeys

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/identity.md").read_text()


def test_the_recipe_for_scanners_finds_keys_and_nothing_else() -> None:
    pattern = next(line.strip() for line in PAGE.splitlines() if line.startswith("    fm_[a-z]"))
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    recipe: dict[str, Any] = {}
    exec(code, recipe)  # noqa: S102 - it is ours
    keys = [apikeys.new_key(owner, "0a-b") for owner in ("acme", "a-b-c", "services") for _ in range(20)]
    found = re.findall(pattern, " ".join(f"KEY={key};" for key in keys))
    assert found == keys
    assert all(recipe["is_facetmesh_key"](key) for key in keys)
    changed = [key[:-1] + ("0" if key[-1] != "0" else "1") for key in keys]
    assert not any(recipe["is_facetmesh_key"](key) for key in changed)
    assert [apikeys.parse(key) for key in changed] == [None] * len(keys)


def test_the_tests_of_rfc_8725_that_are_named_are_there() -> None:
    table = PAGE[PAGE.index("### RFC 8725") : PAGE.index("## TLS")]
    tests = (ROOT / "tests/unit/test_kit_verifier.py").read_text()
    named = {
        name for row in table.splitlines() if row.startswith("|")
        for name in re.findall(r"`([a-z0-9_-]+)`", row.rstrip("|").rpartition("|")[2])
    }  # fmt: skip
    assert len(named) > 15
    assert [name for name in sorted(named) if f'id="{name}"' not in tests and f"def {name}(" not in tests] == []
