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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import protos
from google.api import annotations_pb2, field_behavior_pb2, http_pb2, resource_pb2
from google.protobuf import descriptor_pb2, descriptor_pool
from openapi_schemas import WELL_KNOWN, Comments, Schemas, behaviours

from facetmesh.access.v1 import access_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor

PAGE = protos.ROOT / "gateway" / "openapi.json"
_VARIABLE = re.compile(r"\{([^=}]+)=([^}]+)\}")
_ABOUT = (
    "Every method here is a gRPC method too: see protos/. JSON is proto3's: 64-bit integers and durations are strings, "
    "bytes are base64. An error is a google.rpc.Status whose ErrorInfo has a reason for programs."
)
_FILE = "google.api.HttpBody"


@dataclass(frozen=True)
class Paths:
    """The REST paths of methods, as OpenAPI describes them."""

    schemas: Schemas
    variables: dict[str, str]
    """What the wildcard after a collection is called: models → model."""

    def operation(self, method: MethodDescriptor, rule: http_pb2.HttpRule) -> dict[str, Any]:
        """The operation of a method's REST path."""
        access = method.GetOptions().Extensions[access_pb2.access]
        taken = {match[1].split(".")[0] for match in _VARIABLE.finditer(_path(rule))}
        parameters = list(self._path_parameters(rule))
        body: dict[str, Any] = {}
        if rule.body == "*":
            body = self.schemas.message(method.input_type, without=frozenset(taken))
        elif rule.body:
            body = self.schemas.field(method.input_type.fields_by_name[rule.body])
        if rule.body != "*":
            parameters += self._query(method.input_type, frozenset({rule.body, *taken}))
        text = self.schemas.comments.of(method.full_name)
        return {
            "operationId": f"{method.containing_service.name}_{method.name}",
            "tags": [method.containing_service.name],
            "summary": text.split(". ")[0].rstrip(".") + ".",
            "description": text,
            **({"parameters": parameters} if parameters else {}),
            **({"requestBody": {"required": True, "content": {"application/json": {"schema": body}}}} if body else {}),
            "responses": {
                "200": {"description": self.schemas.comments.of(method.output_type.full_name) or "Done.",
                        "content": self._answer(method)},
                "default": {"description": "Why not.",
                            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Status"}}}},
            },
            **({"security": []} if access.public else {}),
        }  # fmt: skip

    def _answer(self, method: MethodDescriptor) -> dict[str, Any]:
        if method.output_type.full_name == _FILE:
            return {"*/*": {"schema": {"type": "string", "format": "binary"}}}
        schema = self.schemas.reference(method.output_type)
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
            schema = self.schemas.field(found)
            text = schema.pop("description", "")
            required = field_behavior_pb2.REQUIRED in behaviours(found)
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
    made = Paths(Schemas(Comments(files)), _variables(files))
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


def _document(made: Paths, services: list[ServiceDescriptor], paths: dict[str, Any]) -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {"title": "facetmesh", "version": "v1", "description": _ABOUT, "license": {
            "name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"key": []}],
        "tags": [{"name": one.name, "description": made.schemas.comments.of(one.full_name)} for one in services],
        "paths": dict(sorted(paths.items())),
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                          "description": "A token of a few minutes, from /v1/tokens:issue."},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key",
                        "description": "An API key, which the gateway exchanges for a token."},
            },
            "schemas": dict(sorted({**made.schemas.found, "Status": _status()}.items())),
        },
    }  # fmt: skip


def _status() -> dict[str, Any]:
    return {
        "type": "object", "description": "google.rpc.Status: why a call was refused or failed.",
        "properties": {
            "code": {"type": "integer", "description": "The number of the gRPC status code."},
            "message": {"type": "string"},
            "details": {"type": "array", "items": WELL_KNOWN["google.protobuf.Any"],
                        "description": "google.rpc.ErrorInfo always; BadRequest, QuotaFailure, RetryInfo where they "
                                       "apply."},
        },
    }  # fmt: skip


def _path(rule: http_pb2.HttpRule) -> str:
    return str(getattr(rule, str(rule.WhichOneof("pattern"))))


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
