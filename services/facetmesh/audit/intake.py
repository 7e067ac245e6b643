"""Which events the log takes in: those that a service of the mesh signed, and that say what they should.

An event comes from pub/sub, where anybody who reaches the broker may write. So
nothing of it is believed before its signature is checked with the key that the
operator listed for the service which the event names.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING

from facetmesh.event.v1.event_pb2 import AuditEvent
from facetmesh.verify.errors import VerificationError
from facetmesh.verify.event import ANNOUNCEMENT, ServiceKey, open_event, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

MAX_EVENT_BYTES = 64 << 10
"""The largest signed event, in bytes."""
MAX_FUTURE_S = 600
"""How far a service's clock may be ahead, in seconds."""
MAX_PAST_S = 366 * 24 * 3600
"""How old an event may be that comes now, in seconds: longer than any outage of the way here."""
EVENT_ID = re.compile(r"[0-9a-f]{32}")
"""How an event's id looks."""
_NANOS = 1_000_000_000
_STRINGS = [field for field in AuditEvent.DESCRIPTOR.fields if field.type == field.TYPE_STRING]
_texts: Callable[[AuditEvent], tuple[str, ...]] = attrgetter(*[one.name for one in _STRINGS if not one.is_repeated])
_lists: Callable[[AuditEvent], tuple[Sequence[str], ...]] = attrgetter(
    *[one.name for one in _STRINGS if one.is_repeated]
)
_TENANT = re.compile(r"(tenants/[a-z][a-z0-9-]{1,38}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the log does not take an event in, now or ever."""

    reason: str
    """UPPER_SNAKE_CASE, stable."""
    detail: str
    """One sentence for the operator."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event that may be logged."""

    id: str
    """32 hex characters."""
    tenant: str
    """The tenant's id; empty for the platform."""
    time_us: int
    """When the use ended, in microseconds since the epoch."""
    data: bytes
    """The serialized SignedEvent, as it came."""

    @property
    def digest(self) -> bytes:
        """SHA-256 of the data: tells a repeat from another event with its id."""
        return hashlib.sha256(self.data).digest()


class Intake:
    """Reads what pub/sub brings.

    Args:
        keys: The services' keys that the operator trusts.
        clock: Seconds since the epoch.
    """

    def __init__(self, keys: Iterable[ServiceKey], clock: Callable[[], float]) -> None:
        self._keys = {key.id: key for key in keys}
        self._clock = clock

    def read(self, data: bytes) -> Event | Refusal:
        """The event in data, or why it is refused."""
        if len(data) > MAX_EVENT_BYTES:
            return Refusal("EVENT_TOO_LARGE", f"{len(data)} bytes where {MAX_EVENT_BYTES} are allowed.")
        try:
            event = open_event(data, self._keys)
        except VerificationError as error:
            return Refusal(error.reason, error.message)
        if event.method == ANNOUNCEMENT or event.service_public_key:
            return Refusal("ANNOUNCEMENT_FORBIDDEN", "Only the log itself announces keys.")
        return self._checked(event, data)

    def read_own(self, data: bytes) -> Event:
        """The announcement in data, which the log itself has just made.

        Raises:
            VerificationError: It is not one, which is our fault.
        """
        return _event(open_event(data, self._keys), data)

    def _checked(self, event: AuditEvent, data: bytes) -> Event | Refusal:
        if not EVENT_ID.fullmatch(event.id):
            return Refusal("EVENT_ID_INVALID", "The id is not 32 lower-case hex characters.")
        if not _TENANT.fullmatch(event.tenant):
            return Refusal("TENANT_INVALID", "The tenant is not a tenant's name.")
        wrong = self._wrong_time(event)
        if wrong is not None:
            return wrong
        if not "".join([*_texts(event), *chain.from_iterable(_lists(event))]).isprintable():
            return Refusal("EVENT_UNPRINTABLE", f"The field {_unprintable(event)} contains control characters.")
        return _event(event, data)

    def _wrong_time(self, event: AuditEvent) -> Refusal | None:
        seconds = event.time.seconds
        if seconds <= 0 or not 0 <= event.time.nanos < _NANOS:
            return Refusal("EVENT_TIME_INVALID", "The event has no time, or one that is none.")
        # Not for its own sake: who reads such an event, as JSON for one, finds that he cannot.
        if not 0 <= event.duration.seconds <= MAX_PAST_S or not 0 <= event.duration.nanos < _NANOS:
            return Refusal("EVENT_DURATION_INVALID", "The event took longer than a year, or no time that there is.")
        if seconds > self._clock() + MAX_FUTURE_S:
            return Refusal("EVENT_IN_FUTURE", f"The event is more than {MAX_FUTURE_S} s ahead of this clock.")
        if seconds < self._clock() - MAX_PAST_S:
            return Refusal("EVENT_TOO_OLD", f"The event is more than {MAX_PAST_S} s old.")
        return None


def logged_event(data: bytes) -> Event:
    """The event in data, which was checked when it was logged.

    Raises:
        VerificationError: EVENT_MALFORMED.
    """
    return _event(parse(data)[1], data)


def _unprintable(event: AuditEvent) -> str:
    """The name of the first field with control characters in it."""
    return next(one.name for one in _STRINGS if not "".join(getattr(event, one.name)).isprintable())


def _event(event: AuditEvent, data: bytes) -> Event:
    time_us = event.time.seconds * 1_000_000 + event.time.nanos // 1000
    return Event(event.id, event.tenant.removeprefix("tenants/"), time_us, data)
