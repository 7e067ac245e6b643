"""Which licences a tenant may have."""

from __future__ import annotations

import pytest

from facetmesh.kit import licences
from facetmesh.kit.errors import PermissionDenied


@pytest.mark.parametrize(
    ("licence", "kind"),
    [
        ("MIT", "permissive"), ("Apache-2.0", "permissive"), ("BSD-3-Clause", "permissive"), ("AGPL-3.0", "copyleft"),
        ("GPL-3.0-only", "copyleft"), ("MPL-2.0", "copyleft"), ("CC-BY-4.0", "permissive"),
        ("CC-BY-SA-4.0", "copyleft"), ("CC-BY-NC-4.0", "non-commercial"), ("CC-BY-NC-SA-4.0", "non-commercial"),
        ("LicenseRef-insightface-non-commercial", "non-commercial"), ("LicenseRef-whatever", ""), ("", ""),
        ("MITX", ""),
    ],
)  # fmt: skip
def test_classes(licence: str, kind: str) -> None:
    assert licences.classify(licence) == kind


@pytest.mark.parametrize(
    ("expression", "classes", "names", "allowed"),
    [
        ("MIT", {"permissive"}, set(), True), ("AGPL-3.0", {"permissive"}, set(), False),
        ("AGPL-3.0", {"copyleft"}, set(), True), ("AGPL-3.0", {"permissive"}, {"AGPL-3.0"}, True),
        ("AGPL-3.0 OR MIT", {"permissive"}, set(), True), ("AGPL-3.0 AND MIT", {"permissive"}, set(), False),
        ("LicenseRef-ours", {"permissive", "copyleft", "non-commercial"}, set(), False),
        ("LicenseRef-ours", set(), {"LicenseRef-ours"}, True), ("(MIT OR X)", {"permissive"}, set(), False),
        ("", {"permissive"}, set(), False), ("MIT", set(), set(), False),
    ],
)  # fmt: skip
def test_gate(expression: str, classes: set[str], names: set[str], allowed: bool) -> None:  # noqa: FBT001 - a table
    if allowed:
        licences.check(expression, classes, names)
        return
    with pytest.raises(PermissionDenied) as caught:
        licences.check(expression, classes, names)
    assert caught.value.reason == "LICENCE_NOT_ALLOWED"
