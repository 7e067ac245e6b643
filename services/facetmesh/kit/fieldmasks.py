"""What an Update method takes of the resource that it is given (AIP-134, AIP-161)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from google.protobuf.field_mask_pb2 import FieldMask

from facetmesh.kit.errors import FieldViolation, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

_Resource = TypeVar("_Resource", bound="Message")
ALL = "*"
"""The mask of all fields."""


def merged(current: _Resource, wanted: _Resource, mask: FieldMask, mutable: Sequence[str]) -> _Resource:
    """A resource with what a request wants changed.

    Args:
        current: The resource as it is; it is not changed.
        wanted: The resource of the request.
        mask: Which fields to take, such as `display_name` or `limits.models`; `*` for all that are mutable;
            those that are set when it is empty.
        mutable: The names of the fields that may be changed.

    Raises:
        InvalidArgument: FIELD_INVALID: the mask names what is no field, or may not be changed.
    """
    if ALL in mask.paths:
        paths = list(mutable)
    elif mask.paths:
        paths = list(mask.paths)
    else:
        paths = [field.name for field, _ in wanted.ListFields() if field.name in mutable]
    for path in paths:
        known = FieldMask(paths=[path]).IsValidForDescriptor(cast("Descriptor", current.DESCRIPTOR))
        if not known or path.partition(".")[0] not in mutable:
            problem = FieldViolation("update_mask", f'"{path[:100]}" is no field that can be changed.')
            raise InvalidArgument(
                f"{problem.field}: {problem.description}", reason="FIELD_INVALID", violations=[problem]
            )
    result = type(current)()
    result.CopyFrom(current)
    FieldMask(paths=paths).MergeMessage(wanted, result, replace_message_field=True, replace_repeated_field=True)
    return result
