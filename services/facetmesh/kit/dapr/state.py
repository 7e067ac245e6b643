"""The sidecar's state store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from dapr.clients.grpc._request import TransactionalStateOperation, TransactionOperationType
from dapr.clients.grpc._state import Concurrency, Consistency, StateItem, StateOptions

from facetmesh.kit.dapr.calls import FAILED, check_size, our_errors
from facetmesh.kit.errors import Aborted, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from facetmesh.kit.dapr.calls import Client

_WHAT = "The state store"
_FOR_EVER = -1
_STRONG = StateOptions(consistency=Consistency.strong, concurrency=Concurrency.unspecified)
_FIRST_WRITE = StateOptions(consistency=Consistency.strong, concurrency=Concurrency.first_write)


@dataclass(frozen=True, slots=True)
class Entry:
    """What is stored under a key."""

    value: bytes
    etag: str
    """Its version, for a write that must not go over another's."""


@dataclass(frozen=True, slots=True)
class Put:
    """Part of a transaction: writes a value."""

    key: str
    value: bytes
    etag: str | None = None
    """Only over this version."""
    ttl_s: int | None = None
    """After how many seconds it ends; None never."""


@dataclass(frozen=True, slots=True)
class Delete:
    """Part of a transaction: removes a value."""

    key: str
    etag: str | None = None
    """Only this version."""


class State:
    """Keys and values of this service; no other service sees them.

    Every method raises Unavailable where the store or the sidecar does not answer,
    and FailedPrecondition where there is no such store for us.

    Args:
        client: The sidecar.
        store: The component's name.
    """

    def __init__(self, client: Client, store: str) -> None:
        self._client = client
        self._store = store

    async def get(self, key: str) -> Entry | None:
        """What is stored under key; None when nothing is."""
        with our_errors(_WHAT):
            found = await self._client.get_state(self._store, key)
        # An entry has an etag, also where its value is empty.
        return Entry(found.data, found.etag) if found.etag else None

    async def get_many(self, keys: Sequence[str]) -> dict[str, Entry]:
        """What is stored under those keys that have something."""
        if not keys:
            return {}
        with our_errors(_WHAT):
            found = await self._client.get_bulk_state(self._store, list(keys), parallelism=len(keys))
        return {item.key: Entry(cast("bytes", item.data), item.etag) for item in found.items if item.etag}

    async def put(
        self, key: str, value: bytes, *, etag: str | None = None, create: bool = False, ttl_s: int | None = None
    ) -> None:
        """Writes a value. Once this returns, it survives a crash of the sidecar.

        What was made with create is changed with its etag from then on: Redis refuses a write without.

        Args:
            key: Its name.
            value: What to store.
            etag: Only over this version.
            create: Only if there is nothing.
            ttl_s: After how many seconds it ends; None never.

        Raises:
            Aborted: There is another version, or with create: there is something.
            InvalidArgument: The value is too large.
        """
        check_size(value)
        options = (_FIRST_WRITE if create else _STRONG).get_proto()
        item = StateItem(key=key, value=value, etag=etag, options=options, metadata=_ttl(ttl_s))
        try:
            with our_errors(_WHAT):
                # Not save_state: that loses the status code.
                await self._client.save_bulk_state(self._store, [item])
        except Unavailable as error:
            # daprd on Redis reports a lost first write as INTERNAL, as it does a failure.
            if not create or error.reason != FAILED or await self.get(key) is None:
                raise
            raise Aborted("There is something already.") from error

    async def delete(self, key: str, etag: str | None = None) -> None:
        """Removes a value; without an etag, nothing happens when there is none.

        Raises:
            Aborted: An etag was given, and there is another version or none.
        """
        with our_errors(_WHAT):
            await self._client.delete_state(self._store, key, etag=etag)

    async def transact(self, changes: Iterable[Put | Delete]) -> None:
        """Makes several changes.

        All or none on SQLite and PostgreSQL. Redis does not roll back: no invariant may span two keys.

        Raises:
            Aborted: One of the etags was stale.
            InvalidArgument: A value is too large.
        """
        operations = []
        for change in changes:
            if isinstance(change, Put):
                check_size(change.value)
                operations.append(
                    TransactionalStateOperation(
                        key=change.key, data=change.value, etag=change.etag, metadata=_ttl(change.ttl_s)
                    )
                )
            else:
                operations.append(
                    TransactionalStateOperation(
                        key=change.key, etag=change.etag, operation_type=TransactionOperationType.delete
                    )
                )
        with our_errors(_WHAT):
            await self._client.execute_state_transaction(self._store, operations)


def _ttl(ttl_s: int | None) -> dict[str, str]:
    # Left out, it would let Redis keep the time to live of the value before.
    return {"ttlInSeconds": str(_FOR_EVER if ttl_s is None else ttl_s)}
