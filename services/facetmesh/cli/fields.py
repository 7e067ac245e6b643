"""Fields of a resource as people write them on a command line, `limits.concurrency=20`, and read them there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from google.protobuf.timestamp_pb2 import Timestamp

from facetmesh.cli.output import moment
from facetmesh.kit.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.message import Message


def assign(message: Message, assignments: Iterable[str]) -> list[str]:
    """Sets fields of a message; returns their paths, for an update mask.

    Args:
        message: The resource.
        assignments: Each a path, "=", and a value: a list's items with commas between, an enum's value by its last
            words, nothing to empty the field.

    Raises:
        InvalidArgument: FIELD_INVALID: there is no such field, or it takes no such value.
    """
    paths = []
    for assignment in assignments:
        path, sign, text = assignment.partition("=")
        if not sign:
            raise _invalid(f'"{assignment}" is not written as FIELD=VALUE')
        holder, names = message, path.split(".")
        for name in names[:-1]:
            field = _field(_descriptor(holder), name, path)
            if field.message_type is None or field.is_repeated:
                raise _no_such(_descriptor(holder), path)
            holder = getattr(holder, name)
        _set(holder, _field(_descriptor(holder), names[-1], path), text)
        paths.append(path)
    return paths


def written(message: Message) -> dict[str, Any]:
    """The fields that are set, with their values as `assign` takes them; times as people read them."""
    return {
        field.name: [_text(field, one) for one in value] if field.is_repeated else _text(field, value)
        for field, value in message.ListFields()
    }


def _text(field: FieldDescriptor, value: Any) -> Any:
    if field.enum_type is not None:
        values = field.enum_type.values_by_number
        prefix = values[0].name.removesuffix("UNSPECIFIED")
        return values[value].name.removeprefix(prefix).lower().replace("_", "-") if value in values else value
    if isinstance(value, Timestamp):
        return moment(value)
    return value if field.message_type is None else written(value)


def _descriptor(message: Message) -> Descriptor:
    return cast("Descriptor", message.DESCRIPTOR)  # the stubs name another implementation too


def _field(descriptor: Descriptor, name: str, path: str) -> FieldDescriptor:
    field = descriptor.fields_by_name.get(name)
    if field is None:
        raise _no_such(descriptor, path)
    return field


def _set(holder: Message, field: FieldDescriptor, text: str) -> None:
    if field.message_type is not None:
        raise _invalid(f"{field.name} has fields of its own, such as {field.name}.{field.message_type.fields[0].name}")
    holder.ClearField(field.name)
    if not text:
        return
    try:
        if field.is_repeated:
            getattr(holder, field.name).extend(_value(field, item.strip()) for item in text.split(","))
        else:
            setattr(holder, field.name, _value(field, text))
    except (ValueError, TypeError):
        raise _invalid(f'{field.name} cannot be "{text}"') from None


def _value(field: FieldDescriptor, text: str) -> Any:
    if field.enum_type is not None:
        wanted = text.upper().replace("-", "_")
        found = [one for one in field.enum_type.values if one.number and one.name.endswith(f"_{wanted}")]
        if len(found) != 1:
            names = ", ".join(one.name.lower() for one in field.enum_type.values if one.number)
            raise _invalid(f'{field.name} cannot be "{text}"; there are {names}')
        return found[0].number
    if field.type in (field.TYPE_DOUBLE, field.TYPE_FLOAT):
        return float(text)
    return text if field.type == field.TYPE_STRING else int(text.replace("_", ""))


def _no_such(descriptor: Descriptor, path: str) -> InvalidArgument:
    return _invalid(f'there is no field "{path}"; there are {", ".join(sorted(descriptor.fields_by_name))}')


def _invalid(problem: str) -> InvalidArgument:
    return InvalidArgument(f"{problem[0].upper()}{problem[1:]}.", reason="FIELD_INVALID")
