"""Lists of what exists, for a state store that cannot be scanned.

Dapr's state API reads and writes single keys. An index is a hint beside the
records, never the truth: a crash between the two writes leaves either an id
without a record, which readers skip, or (for records written first) a record
without an id, which `facetmesh check` will add. So add to the index first.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from facetmesh.kit.errors import InvalidArgument
from facetmesh.kit.updates import update

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from facetmesh.kit.states import State

DEFAULT_PAGE_SIZE = 50


class _Bucket(NamedTuple):
    ids: frozenset[str] = frozenset()
    etag: str | None = None


class Index:
    """The ids of one collection, spread over buckets so that no value grows without end.

    Args:
        state: Where it is kept.
        name: The collection, such as `tenants/acme/models`.
        buckets: Over how many values the ids are spread.
    """

    def __init__(self, state: State, name: str, *, buckets: int = 1) -> None:
        self._state = state
        self._name = name
        self._buckets = buckets

    async def add(self, item: str) -> None:
        """Adds an id; nothing happens when it is there."""
        await self._change(item, lambda ids: ids | {item})

    async def remove(self, item: str) -> None:
        """Removes an id; nothing happens when it is not there."""
        await self._change(item, lambda ids: ids - {item})

    async def ids(self) -> list[str]:
        """All ids, sorted."""
        if self._buckets == 1:
            return sorted((await self._read(self._key(0))).ids)
        entries = await self._state.get_many([self._key(bucket) for bucket in range(self._buckets)])
        return sorted(set().union(*(json.loads(entry.value) for entry in entries.values())))

    async def clear(self) -> None:
        """Removes all ids, and the index with them."""
        for bucket in range(self._buckets):
            await self._state.delete(self._key(bucket))

    def _key(self, bucket: int) -> str:
        return f"{self._name}/index/{bucket}"

    async def _read(self, key: str) -> _Bucket:
        entry = await self._state.get(key)
        return _Bucket() if entry is None else _Bucket(frozenset(json.loads(entry.value)), entry.etag)

    async def _change(self, item: str, change: Callable[[frozenset[str]], frozenset[str]]) -> None:
        key = self._key(hashlib.sha256(item.encode()).digest()[0] % self._buckets)

        async def write(bucket: _Bucket) -> None:
            value = json.dumps(sorted(bucket.ids)).encode()
            await self._state.put(key, value, etag=bucket.etag, create=bucket.etag is None)

        await update(
            partial(self._read, key), lambda bucket: bucket._replace(ids=change(bucket.ids)), write
        )


def page(ids: Sequence[str], page_size: int, page_token: str) -> tuple[list[str], str]:
    """The ids of one page and the token of the next ("" on the last).

    Args:
        ids: All ids, in the order of the list.
        page_size: At most this many; DEFAULT_PAGE_SIZE when 0.
        page_token: What the page before returned, or "".

    Raises:
        InvalidArgument: The token was not made here.
    """
    size = page_size or DEFAULT_PAGE_SIZE
    start = 0
    if page_token:
        try:
            last = base64.urlsafe_b64decode(page_token.encode()).decode()
        except (binascii.Error, ValueError):
            raise InvalidArgument("The page token is not one of ours.", reason="PAGE_TOKEN_INVALID") from None
        start = next((i + 1 for i, item in enumerate(ids) if item == last), -1)
        if start < 0:
            raise InvalidArgument("The page token is no longer valid: start again.", reason="PAGE_TOKEN_INVALID")
    chosen = list(ids[start : start + size])
    more = start + size < len(ids)
    return chosen, base64.urlsafe_b64encode(chosen[-1].encode()).decode() if more else ""
