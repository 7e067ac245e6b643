"""Requests against the rules that stand in the protos (protovalidate)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import protovalidate

from facetmesh.kit.errors import FieldViolation, InvalidArgument

if TYPE_CHECKING:
    from google.protobuf.message import Message

_validator = protovalidate.Validator()


def validate(request: Message) -> None:
    """Returns when a request keeps the rules.

    Raises:
        InvalidArgument: FIELD_INVALID; with each field that breaks one.
    """
    try:
        _validator.validate(request)
    except protovalidate.ValidationError as error:
        violations = [FieldViolation(_path(v), v.proto.message) for v in error.violations]
        first = violations[0]
        raise InvalidArgument(
            f"{first.field}: {first.description}", reason="FIELD_INVALID", violations=violations
        ) from None


def _path(violation: protovalidate.Violation) -> str:
    field = violation.proto.field
    return ".".join(element.field_name for element in field.elements) if field else "request"
