"""Which etag a write was given, for a state API that does not say.

A write's new etag has to be read, and what is read may be another's: who wrote
between our write and our look must not lose what they wrote to our next write.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from facetmesh.kit.states import State


async def etag_of(state: State, key: str, written: bytes, *, before: str) -> str:
    """The etag of what was just written.

    Args:
        state: The store.
        key: Where it was written.
        written: JSON; a store may keep it in another form.
        before: The etag that it was written over; empty where nothing was there.

    Returns:
        The etag before where another has written since: a write over that is refused, as it has to be.
    """
    entry = await state.get(key)
    ours = entry is not None and json.loads(entry.value) == json.loads(written)
    return entry.etag if entry and ours else before
