"""Etags of what was just written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from facetmesh.kit.errors import Aborted
from facetmesh.kit.etags import etag_of

if TYPE_CHECKING:
    from .conftest import MemoryState


async def test_the_etag_is_that_of_the_write(state: MemoryState) -> None:
    await state.put("key", b'{"a": 1, "b": 2}', create=True)
    etag = await etag_of(state, "key", b'{"b":2,"a":1}', before="")
    await state.put("key", b"{}", etag=etag)


async def test_another_s_write_is_not_gone_over(state: MemoryState) -> None:
    await state.put("key", b'{"ours": 1}', create=True)
    before = state.entries["key"].etag
    await state.put("key", b'{"ours": 2}', etag=before)
    await state.put("key", b'{"theirs": 3}')
    etag = await etag_of(state, "key", b'{"ours": 2}', before=before)
    with pytest.raises(Aborted):
        await state.put("key", b'{"ours": 4}', etag=etag)


async def test_what_was_deleted_since_has_no_etag_of_ours(state: MemoryState) -> None:
    assert await etag_of(state, "key", b"{}", before="7") == "7"
