"""What the kit's own records need of a state store; `kit.dapr.state` is the real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Entry(Protocol):
    """What is stored under a key."""

    @property
    def value(self) -> bytes:
        """The bytes."""
        ...

    @property
    def etag(self) -> str:
        """Its version, for a write that must not go over another's."""
        ...


class State(Protocol):
    """Keys and values. Each method raises Unavailable where the store does not answer."""

    async def get(self, key: str) -> Entry | None:
        """What is stored under key; None when nothing is."""
        ...

    async def get_many(self, keys: Sequence[str]) -> Mapping[str, Entry]:
        """What is stored under those keys that have something."""
        ...

    async def put(self, key: str, value: bytes, *, etag: str | None = None, create: bool = False) -> None:
        """Writes a value, with an etag only over that version, with create only where nothing is; else Aborted."""
        ...

    async def delete(self, key: str) -> None:
        """Removes a value; nothing happens when there is none."""
        ...
