"""JSON schemas of protobuf messages, as proto3's JSON has them, with their comments and limits."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import protos
from google.api import field_behavior_pb2
from google.protobuf import descriptor_pb2

sys.path.insert(0, str(protos.SOURCES))  # the generated code

from facetmesh.buf.validate import validate_pb2

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

WELL_KNOWN: dict[str, dict[str, Any]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.protobuf.Empty": {"type": "object"},
    "google.protobuf.Any": {
        "type": "object", "properties": {"@type": {"type": "string"}}, "additionalProperties": True,
    },
}  # fmt: skip
_STRING64 = {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"}
_SCALARS: dict[str, dict[str, Any]] = {
    "double": {"type": "number", "format": "double"},
    "float": {"type": "number", "format": "float"},
    "bool": {"type": "boolean"},
    "string": {"type": "string"},
    "bytes": {"type": "string", "contentEncoding": "base64"},
    **{kind: {"type": "integer", "format": "int32"} for kind in ("int32", "sint32", "sfixed32")},
    **{kind: {"type": "integer", "minimum": 0} for kind in ("uint32", "fixed32")},
    **dict.fromkeys(("int64", "sint64", "sfixed64", "uint64", "fixed64"), _STRING64),
}
_BEHAVIOURS = {
    field_behavior_pb2.OUTPUT_ONLY: {"readOnly": True},
    field_behavior_pb2.INPUT_ONLY: {"writeOnly": True},
}


class Comments:
    """What the protos say of each element.

    Args:
        files: With their source information.
    """

    def __init__(self, files: descriptor_pb2.FileDescriptorSet) -> None:
        self._by_name: dict[str, str] = {}
        for file in files.file:
            told = {tuple(one.path): one.leading_comments for one in file.source_code_info.location}
            self._walk(file, file.package, (), told)

    def of(self, name: str) -> str:
        """The comment on the element of this full name, in one line for each of its paragraphs."""
        text = self._by_name.get(name, "")
        return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n")).strip()

    def _walk(self, node: Any, name: str, path: tuple[int, ...], told: dict[tuple[int, ...], str]) -> None:
        for part, value in node.ListFields():
            if part.name not in {"message_type", "enum_type", "service", "method", "field", "nested_type", "value"}:
                continue
            for index, child in enumerate(value):
                place = (*path, part.number, index)
                self._by_name[f"{name}.{child.name}"] = told.get(place, "")
                self._walk(child, f"{name}.{child.name}", place, told)


@dataclass
class Schemas:
    """The schemas of the messages that were referred to."""

    comments: Comments
    found: dict[str, Any] = field(default_factory=dict)
    """By name."""

    def reference(self, message: Descriptor | EnumDescriptor) -> dict[str, Any]:
        """A reference to the schema of a message or enum, which is added where it is missing."""
        name = message.full_name.removeprefix("facetmesh.")
        if name not in self.found:
            self.found[name] = {}  # first, for it may refer to itself
            self.found[name] = self.enum(message) if hasattr(message, "values") else self.message(message)
        return {"$ref": f"#/components/schemas/{name}"}

    def enum(self, found: EnumDescriptor) -> dict[str, Any]:
        """The schema of an enum."""
        lines = [f"- {one.name}: {self.comments.of(f'{found.full_name}.{one.name}')}" for one in found.values]
        return {
            "type": "string", "enum": [one.name for one in found.values],
            "description": "\n".join([self.comments.of(found.full_name), "", *lines]),
        }  # fmt: skip

    def message(self, found: Descriptor, without: frozenset[str] = frozenset()) -> dict[str, Any]:
        """The schema of a message, less some fields that stand elsewhere."""
        fields = [one for one in found.fields if one.name not in without]
        required = [one.json_name for one in fields if field_behavior_pb2.REQUIRED in behaviours(one)]
        return {
            "type": "object", "description": self.comments.of(found.full_name),
            "properties": {one.json_name: self.field(one) for one in fields},
            **({"required": required} if required else {}),
        }  # fmt: skip

    def field(self, found: FieldDescriptor) -> dict[str, Any]:
        """The schema of a field."""
        text = self.comments.of(found.full_name)
        schema = self._type(found)
        for behaviour in behaviours(found):
            schema = schema | _BEHAVIOURS.get(behaviour, {})
        return schema | ({"description": text} if text else {})

    def _type(self, found: FieldDescriptor) -> dict[str, Any]:
        rules = found.GetOptions().Extensions[validate_pb2.field]
        if found.message_type is not None and found.message_type.GetOptions().map_entry:
            return {"type": "object", "additionalProperties": self._one(found.message_type.fields_by_name["value"],
                                                                        validate_pb2.FieldRules())}  # fmt: skip
        if not found.is_repeated:
            return self._one(found, rules)
        many = rules.repeated
        limits = {"minItems": many.min_items, "maxItems": many.max_items, "uniqueItems": many.unique}
        return {"type": "array", "items": self._one(found, many.items), **{k: v for k, v in limits.items() if v}}

    def _one(self, found: FieldDescriptor, rules: validate_pb2.FieldRules) -> dict[str, Any]:
        if found.enum_type is not None:
            return self.reference(found.enum_type)
        if found.message_type is not None:
            return dict(WELL_KNOWN.get(found.message_type.full_name) or self.reference(found.message_type))
        kind = descriptor_pb2.FieldDescriptorProto.Type.Name(found.type).removeprefix("TYPE_").lower()
        return _SCALARS[kind] | _limits(kind, rules)


def behaviours(found: FieldDescriptor) -> list[int]:
    """What google.api.field_behavior says of a field."""
    return list(found.GetOptions().Extensions[field_behavior_pb2.field_behavior])


def _limits(kind: str, rules: validate_pb2.FieldRules) -> dict[str, Any]:
    if kind == "string":
        found = {"pattern": rules.string.pattern, "minLength": rules.string.min_len, "maxLength": rules.string.max_len}
        return {k: v for k, v in found.items() if v} | ({"format": "uuid"} if rules.string.uuid else {})
    if kind == "bytes":
        return {"maxLength": -(-rules.bytes.max_len // 3) * 4} if rules.bytes.max_len else {}
    if kind in {"int32", "uint32", "float", "double"}:
        own = getattr(rules, kind)
        bounds = {"minimum": "gte", "exclusiveMinimum": "gt", "maximum": "lte", "exclusiveMaximum": "lt"}
        return {name: round(getattr(own, rule), 6) for name, rule in bounds.items() if own.HasField(rule)}
    return {}
