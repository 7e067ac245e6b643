"""Work is charged to the tenant it was done for, and to the key behind it.

A shadow's copy of a call costs compute, but it is not one more image that somebody asked about.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from facetmesh.detection.stages import ANSWERING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from facetmesh.detection.scheduler import Served
    from facetmesh.kit.profiles import Charges

_VERSIONS = "/versions/"
_copies: ContextVar[bool] = ContextVar("copies", default=False)


@contextmanager
def copying() -> Iterator[None]:
    """What is done within is done once more, for a shadow."""
    token = _copies.set(True)
    try:
        yield
    finally:
        _copies.reset(token)


def charged(charges: Charges, caller: Callable[[], str]) -> Callable[[Served], None]:
    """What charges each request that ran, whether it succeeded or not: it had its slots.

    Args:
        charges: Who counts.
        caller: The subject on whose behalf the current context works.
    """

    def charge(served: Served) -> None:
        tenant = f"tenants/{served.tenant_id}"
        model = served.subject.partition(_VERSIONS)[0]
        charges.charge(
            tenant, caller(), model=f"{tenant}/{model}" if model.startswith("models/") else "",
            images=int(served.task in ANSWERING and served.error is None and not _copies.get()),
            compute_s=served.compute_s,
        )  # fmt: skip

    return charge
