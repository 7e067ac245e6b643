"""How urgent a call is among its tenant's own: Triton's levels, of which the lowest number goes first.

A priority gets nobody ahead of other tenants; whose turn it is decides `fairness`.
Source: Triton's schedule policy extension
(https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_schedule_policy.html).
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from facetmesh.kit.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

UNSAID = 0
"""What a call has that does not say: it is `DEFAULT`."""
HIGHEST, DEFAULT, LOWEST = 1, 5, 9

_current: ContextVar[int] = ContextVar("priority", default=DEFAULT)


@contextmanager
def at(priority: int) -> Iterator[None]:
    """What is done within has this priority.

    Args:
        priority: From HIGHEST to LOWEST, or UNSAID.

    Raises:
        InvalidArgument: FIELD_INVALID: there is no such priority.
    """
    if not UNSAID <= priority <= LOWEST:
        raise InvalidArgument(
            f"priority: {priority} is none; {HIGHEST} goes first, {LOWEST} last, and {UNSAID} is {DEFAULT}.",
            reason="FIELD_INVALID",
        )
    token = _current.set(priority or DEFAULT)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> int:
    """The priority of what is done now."""
    return _current.get()
