"""Encryption at rest, keys for each tenant.

A tenant's data keys are random, wrapped by the key-encryption key (KEK) from the
secret store, and kept in Dapr state. The newest encrypts, all of them decrypt.
Destroying the wrapped keys makes all that was encrypted under them unreadable,
wherever copies of it lie (crypto-shredding); what stays is the number of the last
of them, so that its data is known for destroyed and not for corrupt.

Format: one version byte, the key's number in four bytes, a 12-byte nonce,
AES-256-GCM's output. The tenant is always part of the authenticated data, so that
one tenant's ciphertext cannot be passed off as another's.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from facetmesh.kit.errors import FacetmeshError, Internal, NotFound
from facetmesh.kit.index import Index
from facetmesh.kit.keks import KEY_BYTES, Keks, seal, unseal
from facetmesh.kit.updates import update

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from facetmesh.kit.states import State

_VERSION = b"\x02"
_NUMBER_BYTES = 4
_HEADER_BYTES = 1 + _NUMBER_BYTES
_KEPT = 4096
_MUCH_BYTES = 256 << 10
_FRESH_S = 60.0
"""How long keys are used without a look whether they were destroyed or rotated by another replica."""
_BUCKETS = 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Wrapped:
    """A data key as it is kept."""

    number: int
    kek: str
    """The id of the KEK that wrapped it."""
    wrapped: str
    """In base64."""


@dataclass(frozen=True, slots=True)
class _Record:
    """A tenant's keys as they are kept."""

    keys: tuple[_Wrapped, ...] = ()
    """The newest last."""
    destroyed: int = 0
    """The number of the last key that was destroyed; 0 for none."""
    rotated_s: float = 0.0
    """When the last rotation was asked for, by the clock of who asked."""
    etag: str = ""

    @property
    def next_number(self) -> int:
        return max([self.destroyed, *(key.number for key in self.keys)]) + 1


@dataclass(frozen=True, slots=True)
class _Ring:
    """A tenant's keys, ready to use."""

    keys: dict[int, AESGCM]
    destroyed: int
    read_s: float


class Keyring:
    """The tenants' data keys.

    Args:
        state: Where the wrapped keys are kept.
        kek: What wraps them: 32 bytes, or several such keys of which the first wraps.
        fetch: Gets what wraps them now, for when another replica has wrapped by a KEK that is not known here yet.
        reopens: Whether a tenant whose keys were destroyed gets a new one. Else nothing more can be encrypted for it.
        clock: Seconds; only differences count.
    """

    def __init__(
        self,
        state: State,
        kek: Keks | bytes,
        *,
        fetch: Callable[[], Awaitable[Keks]] | None = None,
        reopens: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._state = state
        self._keks = Keks([kek]) if isinstance(kek, bytes) else kek
        self._fetch = fetch
        self._reopens = reopens
        self._clock = clock
        self._index = Index(state, "data-keys", buckets=_BUCKETS)
        self._rings: OrderedDict[str, _Ring] = OrderedDict()

    async def encrypt(self, tenant: str, plaintext: bytes, aad: bytes = b"") -> bytes:
        """The ciphertext of plaintext, bound to tenant and aad. Makes the tenant's key on first use.

        Raises:
            NotFound: DATA_DESTROYED: the tenant's keys were destroyed, and it gets no new one.
        """
        ring = await self._ring(tenant)
        if not ring.keys:
            if ring.destroyed and not self._reopens:
                raise _destroyed()
            ring = await self._change(tenant, lambda record: record if record.keys else self._with_key(tenant, record))
        number = max(ring.keys)
        header = _VERSION + number.to_bytes(_NUMBER_BYTES, "big")
        key, bound = ring.keys[number], _bound(tenant, aad)
        return await _aside(len(plaintext), lambda: header + seal(key, plaintext, bound))

    async def decrypt(self, tenant: str, sealed: bytes, aad: bytes = b"") -> bytes:
        """The plaintext of sealed.

        Raises:
            NotFound: DATA_DESTROYED: the tenant's key was destroyed, and with it what it encrypted.
            Internal: DATA_CORRUPT: the ciphertext was changed, or is another tenant's or another aad's.
        """
        if sealed[:1] != _VERSION:
            raise Internal("Stored data has an unknown format.", reason="DATA_CORRUPT")
        number = int.from_bytes(sealed[1:_HEADER_BYTES], "big")
        ring = await self._ring(tenant)
        if number not in ring.keys and number > ring.destroyed:
            ring = await self._read(tenant)  # another replica may have just made it
        if number in ring.keys:
            key, bound = ring.keys[number], _bound(tenant, aad)
            return await _aside(len(sealed), lambda: unseal(key, sealed[_HEADER_BYTES:], bound))
        if number <= ring.destroyed or not ring.keys:
            raise _destroyed()
        raise Internal("Stored data was changed or belongs elsewhere.", reason="DATA_CORRUPT")

    async def destroy(self, tenant: str) -> None:
        """Destroys a tenant's keys. What they encrypted can never be read again. Repeating it does no harm."""
        self._rings.pop(tenant, None)
        await self._change(
            tenant, lambda record: replace(record, keys=(), destroyed=record.next_number - 1) if record.keys else record
        )

    async def rotate(self, tenant: str, asked_s: float) -> None:
        """Gives a tenant a new key for what is encrypted from now on. Repeating it does no harm.

        Args:
            tenant: Whose.
            asked_s: When it was asked for, in seconds since the epoch.
        """
        def rotated(record: _Record) -> _Record:
            if not record.keys or record.rotated_s >= asked_s:
                return record
            return replace(self._with_key(tenant, record), rotated_s=asked_s)

        await self._change(tenant, rotated)

    def use(self, keks: Keks) -> bool:
        """Goes over to other key-encryption keys; whether they differ from those before."""
        changed = keks.ids != self._keks.ids
        self._keks = keks
        return changed

    async def rewrap(self) -> int:
        """Has all data keys wrapped by the first KEK; how many tenants' were not.

        Raises:
            Internal: KEK_MISSING: one is wrapped by a KEK that is not here.
        """
        count = 0
        for tenant in await self._index.ids():
            record = await self._record(tenant)
            if any(key.kek != self._keks.current for key in record.keys):
                await self._change(tenant, partial(self._rewrapped, tenant))
                count += 1
        return count

    async def _ring(self, tenant: str) -> _Ring:
        ring = self._rings.get(tenant)
        if ring is None or self._clock() >= ring.read_s + _FRESH_S:
            return await self._read(tenant)
        self._rings.move_to_end(tenant)
        return ring

    async def _read(self, tenant: str) -> _Ring:
        return await self._hold(tenant, await self._record(tenant))

    async def _hold(self, tenant: str, record: _Record) -> _Ring:
        if self._fetch is not None and not {key.kek for key in record.keys}.issubset(self._keks.ids):
            self.use(await self._fetch())
        keys = {key.number: AESGCM(self._unwrapped(tenant, key)) for key in record.keys}
        ring = self._rings[tenant] = _Ring(keys, record.destroyed, self._clock())
        self._rings.move_to_end(tenant)
        if len(self._rings) > _KEPT:
            self._rings.popitem(last=False)
        return ring

    async def _record(self, tenant: str) -> _Record:
        entry = await self._state.get(_name(tenant))
        if entry is None:
            return _Record()
        fields = json.loads(entry.value)
        return _Record(**{**fields, "keys": tuple(_Wrapped(**key) for key in fields["keys"]), "etag": entry.etag})

    async def _change(self, tenant: str, change: Callable[[_Record], _Record]) -> _Ring:
        async def write(record: _Record) -> None:
            if not record.etag:
                await self._index.add(tenant)
            fields = asdict(record)
            del fields["etag"]
            await self._state.put(
                _name(tenant), json.dumps(fields).encode(), etag=record.etag or None, create=not record.etag
            )

        await update(partial(self._record, tenant), change, write)
        return await self._read(tenant)

    def _with_key(self, tenant: str, record: _Record) -> _Record:
        key = self._wrapped(tenant, record.next_number, AESGCM.generate_key(bit_length=8 * KEY_BYTES))
        return replace(record, keys=(*record.keys, key))

    def _rewrapped(self, tenant: str, record: _Record) -> _Record:
        keys = tuple(
            self._wrapped(tenant, key.number, self._unwrapped(tenant, key))
            if key.kek != self._keks.current else key
            for key in record.keys
        )  # fmt: skip
        return replace(record, keys=keys)

    def _wrapped(self, tenant: str, number: int, key: bytes) -> _Wrapped:
        wrapped = self._keks.wrap(key, _bound(tenant, b"data-key %d" % number))
        return _Wrapped(number, self._keks.current, base64.b64encode(wrapped).decode())

    def _unwrapped(self, tenant: str, key: _Wrapped) -> bytes:
        bound = _bound(tenant, b"data-key %d" % key.number)
        return self._keks.unwrap(key.kek, base64.b64decode(key.wrapped), bound)


async def keep_wrapped(keyring: Keyring, fetch: Callable[[], Awaitable[Keks]], every_s: float) -> None:
    """Looks for other key-encryption keys, and has the data keys wrapped by the first of them, for ever.

    Args:
        keyring: The data keys.
        fetch: Gets the key-encryption keys as they are now.
        every_s: How often, in seconds.
    """
    pending = True  # a process may have ended before it was through
    while True:
        try:
            pending |= keyring.use(await fetch())
            if pending:
                count = await keyring.rewrap()
                _log.info("all data keys are wrapped by the first key-encryption key", extra={"changed": count})
                pending = False
        except FacetmeshError as error:
            _log.warning("the data keys could not be wrapped anew", extra={"reason": error.reason})
        await asyncio.sleep(every_s)


def _name(tenant: str) -> str:
    return f"data-keys/{tenant}"


async def _aside(size: int, work: Callable[[], bytes]) -> bytes:
    """What work returns; of much data on a thread, since it takes milliseconds in which nobody else would be served."""
    return await asyncio.to_thread(work) if size > _MUCH_BYTES else work()


def _bound(tenant: str, aad: bytes) -> bytes:
    return tenant.encode() + b"\x00" + aad


def _destroyed() -> NotFound:
    return NotFound("The data is gone: its key was destroyed.", reason="DATA_DESTROYED")
