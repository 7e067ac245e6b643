"""Plans: what tenants are offered. They are the operator's data, a file that is read at start."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from importlib import resources
from typing import TYPE_CHECKING, Annotated

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from facetmesh.kit.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_Amount = Annotated[int, Field(ge=0)]
_Measure = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_ID = r"^[a-z][a-z0-9-]{0,38}$"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tenant, or a key, may take. 0 where nothing is said."""

    requests_per_s: _Measure = 0.0
    """Calls a second."""
    concurrency: _Amount = 0
    """Calls in progress at a time."""
    images_per_day: _Amount = 0
    """Images worked on in a day (UTC)."""
    compute_seconds_per_day: _Measure = 0.0
    """Seconds of an engine's time in a day (UTC)."""
    stored_bytes: _Amount = 0
    """Bytes kept."""
    models: _Amount = 0
    """Models at a time."""

    def over(self, others: Limits) -> Limits:
        """These, and the others' where nothing is said."""
        return Limits(*(getattr(self, field.name) or getattr(others, field.name) for field in fields(self)))


NO_LIMITS = Limits()
"""Where nothing is said."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What tenants are offered."""

    display_name: str = ""
    """What people call it."""
    limits: Limits = NO_LIMITS
    """What its tenants may take; not limited where nothing is said."""
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    """Their share of busy machines, against that of others."""


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class _File:
    default: str
    plans: dict[Annotated[str, Field(pattern=_ID)], Plan]


class Plans:
    """All plans.

    Args:
        plans: By id.
        default: The id of the plan of those who name none.
    """

    def __init__(self, plans: Mapping[str, Plan], default: str) -> None:
        self._plans = dict(sorted(plans.items()))
        self.default = default
        """The id of the plan of those who name none."""

    @property
    def ids(self) -> list[str]:
        """All ids, sorted."""
        return list(self._plans)

    def get(self, plan_id: str) -> Plan:
        """The plan; the default where the id is empty, or that of a plan which the operator has taken away.

        A tenant does not stand still because its plan is gone.
        """
        return self._plans.get(plan_id) or self._plans[self.default]

    def known(self, plan_id: str) -> str:
        """The id of the plan that is meant: the default's when empty.

        Raises:
            InvalidArgument: PLAN_UNKNOWN.
        """
        if plan_id and plan_id not in self._plans:
            raise InvalidArgument(
                f'plan: there is no "{plan_id}"; there are {", ".join(self._plans)}.', reason="PLAN_UNKNOWN"
            )
        return plan_id or self.default


def load(path: Path | None = None) -> Plans:
    """The plans in a file; those that come with facetmesh when None.

    Raises:
        FailedPrecondition: PLANS_INVALID; the message says what is wrong.
    """
    file = path or resources.files("facetmesh.auth") / "plans.toml"
    try:
        found = TypeAdapter(_File).validate_python(tomllib.loads(file.read_text()))
    except ValidationError as error:
        problem = error.errors()[0]
        raise _invalid(file, f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None
    except (OSError, ValueError) as error:
        raise _invalid(file, str(error)) from None
    if found.default not in found.plans:
        raise _invalid(file, f'the default "{found.default}" is not among the plans')
    return Plans(found.plans, found.default)


def _invalid(file: object, problem: str) -> FailedPrecondition:
    return FailedPrecondition(f"The plans in {file} cannot be used: {problem}", reason="PLANS_INVALID")
