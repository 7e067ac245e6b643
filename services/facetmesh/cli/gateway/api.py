"""The public API as the generated code has it: what the gateway lets through, and to whom."""

from __future__ import annotations

import importlib
import pkgutil
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2, status_pb2

from facetmesh.buf.validate import validate_pb2
from facetmesh.kit import access

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from google.protobuf.descriptor import FileDescriptor, MethodDescriptor, ServiceDescriptor

_PACKAGES: Mapping[str, tuple[str, ...]] = {
    "auth": ("facetmesh.auth.v1",),
    # KServe's V2 protocol is detection's too.
    "detection": ("facetmesh.detection.v1", "facetmesh.inference"),
    "fusion": ("facetmesh.fusion.v1",),
    "audit": ("facetmesh.audit.v1",),
}
"""The packages of each service's generated code."""
_WAITS = ("wait", "timeout")
"""The fields by which a caller says how long it would wait."""
_INSIDE_ONLY = frozenset({"service"})


@dataclass(frozen=True, slots=True)
class Method:
    """A method that callers from outside may use."""

    service: str
    """auth, detection, fusion or audit."""
    descriptor: MethodDescriptor
    public: bool
    """No token is asked for."""

    @property
    def path(self) -> str:
        """/package.Service/Method."""
        return f"/{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    @property
    def rest_paths(self) -> list[str]:
        """Regular expressions of the paths that it has by REST."""
        rule = self.descriptor.GetOptions().Extensions[annotations_pb2.http]
        rules = (one for one in (rule, *rule.additional_bindings) if one.WhichOneof("pattern"))
        return [_regex(getattr(one, one.WhichOneof("pattern"))) for one in rules]

    @property
    def streams(self) -> bool:
        """Whether either side streams."""
        return bool(self.descriptor.client_streaming or self.descriptor.server_streaming)

    @property
    def longest_wait_s(self) -> int:
        """How long the caller may ask it to wait, in seconds; 0 when it may not."""
        fields = self.descriptor.input_type.fields_by_name
        return max(
            (fields[name].GetOptions().Extensions[validate_pb2.field].duration.lte.seconds
             for name in _WAITS if name in fields), default=0,
        )  # fmt: skip


def methods() -> list[Method]:
    """All of them, without those that only services call."""
    return [
        Method(name, method, rule.public)
        for name, service in _services()
        for method in service.methods
        if (rule := access.rule(f"/{service.full_name}/{method.name}")).public or rule.roles - _INSIDE_ONLY
    ]


def rest_services() -> list[str]:
    """Full names of the services that have REST paths, sorted."""
    return sorted(
        service.full_name
        for _, service in _services()
        if any(method.GetOptions().HasExtension(annotations_pb2.http) for method in service.methods)
    )


def descriptor_set() -> bytes:
    """A serialized FileDescriptorSet of the API, with all that it imports."""
    files: dict[str, FileDescriptor] = {}
    for _, service in _services():
        _collect(service.file, files)
    # What errors carry in an Any, which nothing imports.
    for module in (status_pb2, error_details_pb2):
        _collect(module.DESCRIPTOR, files)
    found = descriptor_pb2.FileDescriptorSet()
    for file in files.values():
        file.CopyToProto(found.file.add())
    return found.SerializeToString()


def _services() -> Iterator[tuple[str, ServiceDescriptor]]:
    """Each service of the API, and which of ours serves it."""
    for name, packages in _PACKAGES.items():
        for package in packages:
            for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
                if module.name.endswith("_pb2"):
                    file = importlib.import_module(f"{package}.{module.name}").DESCRIPTOR
                    yield from ((name, service) for service in file.services_by_name.values())


def _regex(template: str) -> str:
    """What a path template of google.api.http matches."""
    plain = re.sub(r"\{[^=}]+=([^}]+)\}", r"\1", re.sub(r"\{[^=}]+\}", "*", template))
    return "".join({"*": "[^/]+", "**": ".+"}.get(part) or re.escape(part) for part in re.split(r"(\*+)", plain))


def _collect(file: FileDescriptor, into: dict[str, FileDescriptor]) -> None:
    """Adds a file after those that it imports."""
    for imported in file.dependencies:
        _collect(imported, into)
    into.setdefault(file.name, file)
