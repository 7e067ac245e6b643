"""Writes the OpenAPI page of the REST paths: gateway/openapi.json, which the gateway serves.

Run by `make protos` and, to see whether the page is that of protos/, by `make check`.
Generators of others (grpc-gateway's, gnostic's) would want Go for each check, and
know neither our limits nor who may call a method.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import protos
from google.protobuf import descriptor_pb2, descriptor_pool

sys.path.insert(0, str(protos.SOURCES))

from google.api import annotations_pb2, field_behavior_pb2, http_pb2, resource_pb2

from facetmesh.access.v1 import access_pb2
from facetmesh.buf.validate import validate_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import (
        Descriptor,
        EnumDescriptor,
        FieldDescriptor,
        MethodDescriptor,
        ServiceDescriptor,
    )

PAGE = protos.ROOT / "gateway" / "openapi.json"
_VARIABLE = re.compile(r"\{([^=}]+)=([^}]+)\}")
_ABOUT = (
    "Every method here is a gRPC method too: see protos/. JSON is proto3's: 64-bit integers and durations are strings, "
    "bytes are base64. An error is a google.rpc.Status whose ErrorInfo has a reason for programs."
)
_WELL_KNOWN: dict[str, dict[str, Any]] = {
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
_FILE = "google.api.HttpBody"
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
class Page:
    """The page, while it is written."""

    comments: Comments
    variables: dict[str, str]
    """What the wildcard after a collection is called: models → model."""
    schemas: dict[str, Any] = field(default_factory=dict)

    def reference(self, message: Descriptor | EnumDescriptor) -> dict[str, Any]:
        """A reference to the schema of a message or enum, which is added where it is missing."""
        name = message.full_name.removeprefix("facetmesh.")
        if name not in self.schemas:
            self.schemas[name] = {}  # first, for it may refer to itself
            self.schemas[name] = self.enum(message) if hasattr(message, "values") else self.message(message)
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
        required = [one.json_name for one in fields if field_behavior_pb2.REQUIRED in _behaviours(one)]
        return {
            "type": "object", "description": self.comments.of(found.full_name),
            "properties": {one.json_name: self.field(one) for one in fields},
            **({"required": required} if required else {}),
        }  # fmt: skip

    def field(self, found: FieldDescriptor) -> dict[str, Any]:
        """The schema of a field."""
        text = self.comments.of(found.full_name)
        schema = self._type(found)
        for behaviour in _behaviours(found):
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
            return dict(_WELL_KNOWN.get(found.message_type.full_name) or self.reference(found.message_type))
        kind = descriptor_pb2.FieldDescriptorProto.Type.Name(found.type).removeprefix("TYPE_").lower()
        return _SCALARS[kind] | _limits(kind, rules)

    def operation(self, method: MethodDescriptor, rule: http_pb2.HttpRule) -> dict[str, Any]:
        """The operation of a method's REST path."""
        access = method.GetOptions().Extensions[access_pb2.access]
        taken = {match[1].split(".")[0] for match in _VARIABLE.finditer(_path(rule))}
        parameters = list(self._path_parameters(rule))
        body: dict[str, Any] = {}
        if rule.body == "*":
            body = self.message(method.input_type, without=frozenset(taken))
        elif rule.body:
            body = self.field(method.input_type.fields_by_name[rule.body])
        if rule.body != "*":
            parameters += self._query(method.input_type, frozenset({rule.body, *taken}))
        text = self.comments.of(method.full_name)
        return {
            "operationId": f"{method.containing_service.name}_{method.name}",
            "tags": [method.containing_service.name],
            "summary": text.split(". ")[0].rstrip(".") + ".",
            "description": text,
            **({"parameters": parameters} if parameters else {}),
            **({"requestBody": {"required": True, "content": {"application/json": {"schema": body}}}} if body else {}),
            "responses": {
                "200": {"description": self.comments.of(method.output_type.full_name) or "Done.",
                        "content": self._answer(method)},
                "default": {"description": "Why not.",
                            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Status"}}}},
            },
            **({"security": []} if access.public else {}),
        }  # fmt: skip

    def _answer(self, method: MethodDescriptor) -> dict[str, Any]:
        if method.output_type.full_name == _FILE:
            return {"*/*": {"schema": {"type": "string", "format": "binary"}}}
        schema = self.reference(method.output_type)
        if method.server_streaming:
            schema = {"type": "array", "items": schema}
        return {"application/json": {"schema": schema}}

    def _path_parameters(self, rule: http_pb2.HttpRule) -> Iterator[dict[str, Any]]:
        for name in re.findall(r"\{(\w+)\}", self.path(rule)):
            yield {"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[^/]+$"}}

    def _query(self, message: Descriptor, without: frozenset[str]) -> Iterator[dict[str, Any]]:
        for found in message.fields:
            if found.name in without:
                continue
            schema = self.field(found)
            text = schema.pop("description", "")
            required = field_behavior_pb2.REQUIRED in _behaviours(found)
            yield {"name": found.json_name, "in": "query", "required": required, "description": text, "schema": schema}

    def path(self, rule: http_pb2.HttpRule) -> str:
        """The path with a variable for each wildcard."""

        def expanded(match: re.Match[str]) -> str:
            parts = match[2].split("/")
            return "/".join(
                "{" + self.variables.get(parts[i - 1], parts[i - 1]) + "}" if part == "*" else part
                for i, part in enumerate(parts)
            )

        return _VARIABLE.sub(expanded, _path(rule))


def page(scratch: Path) -> str:
    """The text of the page."""
    files = descriptor_pb2.FileDescriptorSet.FromString(protos.image(scratch).read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    services = [
        pool.FindServiceByName(f"{file.package}.{service.name}")
        for file in files.file if file.package.startswith("facetmesh.") for service in file.service
    ]  # fmt: skip
    made = Page(Comments(files), _variables(files))
    paths: dict[str, Any] = {}
    for service in services:
        for method in service.methods:
            rule = method.GetOptions().Extensions[annotations_pb2.http]
            for number, one in enumerate((rule, *rule.additional_bindings)):
                if verb := one.WhichOneof("pattern"):
                    operation = made.operation(method, one)
                    operation["operationId"] += f"_{number + 1}" if number else ""
                    paths.setdefault(made.path(one), {})[verb] = operation
    return json.dumps(_document(made, services, paths), indent=2, ensure_ascii=False) + "\n"


def _document(made: Page, services: list[ServiceDescriptor], paths: dict[str, Any]) -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {"title": "facetmesh", "version": "v1", "description": _ABOUT, "license": {
            "name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"key": []}],
        "tags": [{"name": one.name, "description": made.comments.of(one.full_name)} for one in services],
        "paths": dict(sorted(paths.items())),
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                          "description": "A token of a few minutes, from /v1/tokens:issue."},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key",
                        "description": "An API key, which the gateway exchanges for a token."},
            },
            "schemas": dict(sorted({**made.schemas, "Status": _status()}.items())),
        },
    }  # fmt: skip


def _status() -> dict[str, Any]:
    return {
        "type": "object", "description": "google.rpc.Status: why a call was refused or failed.",
        "properties": {
            "code": {"type": "integer", "description": "The number of the gRPC status code."},
            "message": {"type": "string"},
            "details": {"type": "array", "items": _WELL_KNOWN["google.protobuf.Any"],
                        "description": "google.rpc.ErrorInfo always; BadRequest, QuotaFailure, RetryInfo where they "
                                       "apply."},
        },
    }  # fmt: skip


def _behaviours(found: FieldDescriptor) -> list[int]:
    return list(found.GetOptions().Extensions[field_behavior_pb2.field_behavior])


def _path(rule: http_pb2.HttpRule) -> str:
    return str(getattr(rule, str(rule.WhichOneof("pattern"))))


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


def _variables(files: descriptor_pb2.FileDescriptorSet) -> dict[str, str]:
    """The collections of all resources and what one of each is called, from their patterns."""
    found = {"operations": "operation"}
    for file in files.file:
        for message in file.message_type:
            for pattern in message.options.Extensions[resource_pb2.resource].pattern:
                found |= dict(re.findall(r"(\w+)/\{(\w+)\}", pattern))
    return found


def main() -> None:
    """Does what the command line asks."""
    parser = argparse.ArgumentParser(description="Writes the OpenAPI page of the REST paths.")
    parser.add_argument("what", choices=["generate", "check"])
    what = parser.parse_args().what
    with tempfile.TemporaryDirectory() as folder:
        text = page(Path(folder))
    if what == "generate":
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        sys.exit(f"{PAGE.relative_to(protos.ROOT)} is not that of protos/; run `make protos`")


if __name__ == "__main__":
    main()
