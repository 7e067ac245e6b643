"""All methods of the mesh, for the schema of policies."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

_PACKAGES = (
    "facetmesh.auth.v1", "facetmesh.detection.v1", "facetmesh.fusion.v1", "facetmesh.audit.v1", "facetmesh.inference",
)  # fmt: skip


def methods() -> list[MethodDescriptor]:
    """The methods of all services, found in the generated code, so that none has to be added here."""
    found = []
    for package in map(importlib.import_module, _PACKAGES):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            if module.name.endswith("_pb2"):
                services = importlib.import_module(module.name).DESCRIPTOR.services_by_name.values()
                found += [method for service in services for method in service.methods]
    return found
