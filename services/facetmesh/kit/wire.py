"""How many fields a message has, counted before it is read.

Two bytes of an empty message become a hundred when it is read, and each is looked at by the rules: 4 MB of them took
4.5 GB and kept a service, and all who wait for it, busy for minutes.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

MAX_FIELDS = 40_000
"""A batch of 32 images with a thousand labels each has 32,000; no other request may have as many."""
_SMALLEST = 2
_VARINT, _BYTES = 0, 2
_FIXED = {1: 8, 5: 4}
"""Bytes of the kinds of fields that always have as many."""
_MORE, _LONGEST = 0x80, 10


def check(data: bytes, kind: Descriptor, most: int = MAX_FIELDS) -> None:
    """Returns when a message may be read; of one that is none, reading says so.

    Numbers that are packed into one field count as one: they take no more than eight times their bytes.

    Args:
        data: The message.
        kind: Of which type.
        most: How many fields it and the messages in it may have together.

    Raises:
        DecodeError: It has more, or is none.
    """
    if len(data) <= most * _SMALLEST:
        return
    parts = [(0, len(data), kind)]
    while parts:
        at, end, kind = parts.pop()
        while at < end:
            most -= 1
            if most < 0:
                raise DecodeError("Too many fields.")
            tag, at = _varint(data, at)
            number, wire = tag >> 3, tag & 7
            if wire == _VARINT:
                _, at = _varint(data, at)
            elif wire == _BYTES:
                size, at = _varint(data, at)
                field = kind.fields_by_number.get(number)
                if field is not None and field.message_type is not None:
                    parts.append((at, at + size, field.message_type))
                at += size
            elif wire in _FIXED:
                at += _FIXED[wire]
            else:  # a group, which none of our messages has
                raise DecodeError("A field of no kind that is known.")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    number = 0
    for place in range(_LONGEST):
        if at >= len(data):
            break
        byte = data[at]
        number |= (byte & ~_MORE) << 7 * place
        at += 1
        if byte < _MORE:
            return number, at
    raise DecodeError("A number without an end.")
