"""Which models a tenant may have, by their licences."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from facetmesh.kit.errors import PermissionDenied

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

_CLASSES = (
    ("non-commercial", re.compile(r".*-NC(-.*)?|.*non-?commercial.*", re.IGNORECASE)),
    ("copyleft", re.compile(r"(A|L)?GPL-.*|MPL-.*|EUPL-.*|EPL-.*|CDDL-.*|OSL-.*|CC-BY-SA-.*", re.IGNORECASE)),
    (
        "permissive",
        re.compile(
            r"MIT(-0)?|Apache-2\.0|BSD-[1-4]-Clause.*|0BSD|ISC|Zlib|Unlicense|CC0-1\.0|CC-BY-[0-9.]+|BSL-1\.0"
            r"|PostgreSQL|Python-2\.0|HPND|LicenseRef-public-domain",
            re.IGNORECASE,
        ),
    ),
)


def classify(licence: str) -> str:
    """What a licence asks for, roughly: permissive, copyleft or non-commercial; empty where it is not known.

    Args:
        licence: One SPDX identifier.
    """
    return next((name for name, pattern in _CLASSES if pattern.fullmatch(licence)), "")


def check(expression: str, classes: AbstractSet[str], names: AbstractSet[str]) -> None:
    """Returns when a tenant may have what is under a licence.

    Of licences joined by OR one must be allowed, of those joined by AND each.

    Args:
        expression: An SPDX expression without parentheses; with them it is one
            name, which must be allowed as it stands.
        classes: The classes of licences that it may have.
        names: The licences that it may have beside them.

    Raises:
        PermissionDenied: LICENCE_NOT_ALLOWED.
    """
    for alternative in re.split(r"\s+OR\s+", expression.strip()):
        if all(_allowed(one, classes, names) for one in re.split(r"\s+AND\s+", alternative)):
            return
    raise PermissionDenied(
        f"The tenant's policy does not allow models under {expression}: the platform's operator may change that.",
        reason="LICENCE_NOT_ALLOWED", metadata={"licence": expression},
    )  # fmt: skip


def _allowed(licence: str, classes: AbstractSet[str], names: AbstractSet[str]) -> bool:
    return licence in names or classify(licence) in classes
