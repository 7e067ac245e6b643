"""The access rules that stand on the methods, and which tenant a request is about."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from google.api import field_behavior_pb2, resource_pb2
from google.protobuf import descriptor_pool

from facetmesh.access.v1 import access_pb2
from facetmesh.kit.errors import PermissionDenied
from facetmesh.kit.identity import ROLE_NAMES, Principal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from google.protobuf.descriptor import Descriptor, FieldDescriptor
    from google.protobuf.message import Message

EXEMPT_SERVICES = frozenset({"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection",
                             "grpc.reflection.v1.ServerReflection"})  # fmt: skip
"""Outside of tenants: probes and tools call these without a token."""
MODEL = "facetmesh.dev/Model"
"""The resource type that a key can be limited by."""
_OF_MODELS = ("facetmesh.dev/ModelVersion", "facetmesh.dev/Rollout")
"""What belongs to a model: its name begins with the model's."""
_MODEL_PARTS = 4
INFERENCE = "inference.GRPCInferenceService"
"""KServe's V2 protocol: others wrote it, so its rules stand here and not on its methods."""
_READERS = frozenset({"caller", "tenant-admin", "operator", "auditor", "service"})
_CALLERS = frozenset({"caller", "tenant-admin", "service"})
_INFERENCE_RULES: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(
        ("ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig",
         "ModelStatistics", "RepositoryIndex"), _READERS,
    ),
    **dict.fromkeys(("ModelInfer", "ModelStreamInfer"), _CALLERS),
    **dict.fromkeys(("RepositoryModelLoad", "RepositoryModelUnload"), frozenset({"tenant-admin", "operator"})),
}  # fmt: skip
_INFERENCE_USES = frozenset({"ModelInfer", "ModelStreamInfer", "RepositoryModelLoad", "RepositoryModelUnload"})
"""Those of which each answer waits for its audit event."""
_INFERENCE_MODELS: Mapping[str, str] = {
    "inference.ModelInferRequest": "model_name",
    "inference.RepositoryModelLoadRequest": "model_name",
    "inference.RepositoryModelUnloadRequest": "model_name",
    "inference.ModelReadyRequest": "name",
    "inference.ModelMetadataRequest": "name",
    "inference.ModelConfigRequest": "name",
    "inference.ModelStatisticsRequest": "name",
}
"""The field of each of its requests that names a model, by its id within the caller's tenant or by its whole name."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may call a method, and what is recorded of it."""

    method: str
    """The full name without a leading slash."""
    roles: frozenset[str]
    """Any of these lets the caller in; none at all lets nobody in."""
    public: bool
    """No token is asked for."""
    required: bool
    """Whether each answer waits for its audit event; otherwise only refusals are recorded."""


@lru_cache(maxsize=512)
def rule(method: str) -> Rule:
    """The rule of a method, given as /package.Service/Method. Nobody may call a method without one."""
    name = method.lstrip("/")
    service, _, short = name.partition("/")
    if service == INFERENCE:
        return Rule(name, _INFERENCE_RULES.get(short, frozenset()), public=False, required=short in _INFERENCE_USES)
    try:
        descriptor = descriptor_pool.Default().FindMethodByName(f"{service}.{short}")
    except KeyError:
        return Rule(name, frozenset(), public=False, required=True)
    access = descriptor.GetOptions().Extensions[access_pb2.access]
    return Rule(
        name,
        frozenset(ROLE_NAMES[role] for role in access.roles),
        access.public,
        access.audit != access_pb2.AUDIT_REFUSALS,
    )


def authorize_tenant(principal: Principal, names: Iterable[str]) -> None:
    """Returns when all resources that a request names lie in the principal's tenant.

    Whether they exist makes no difference to the answer.

    Raises:
        PermissionDenied: One does not.
    """
    if principal.is_platform_admin:
        return
    for name in names:
        # A path with holes or steps back may be read otherwise by who uses it.
        odd = not {"", ".", ".."}.isdisjoint(name.split("/"))
        if principal.tenant is None or odd or not f"{name}/".startswith(f"{principal.tenant}/"):
            raise PermissionDenied("There is no such resource, or it is not yours.", reason="TENANT_MISMATCH")


def authorize_models(principal: Principal, request: Message) -> None:
    """Returns when the principal may name the models that a request names.

    Raises:
        PermissionDenied: Its key is limited to others.
    """
    if principal.models and not principal.models.issuperset(models(principal, request)):
        raise PermissionDenied("Your key is limited to other models.", reason="SCOPE_MISSING")


def named(principal: Principal | None, request: Message, kind: str | None = None) -> Iterator[str]:
    """The resource names in a request, and the model that one of KServe's names by its id.

    Args:
        principal: Who asks; an id is one of its tenant's.
        request: The request.
        kind: Only those of this resource type; all when None.
    """
    yield from referenced(request, *([kind] if kind else []))
    field = _INFERENCE_MODELS.get(request.DESCRIPTOR.full_name)
    if field is not None and kind in (None, MODEL) and (name := getattr(request, field)):
        tenant = principal.tenant if principal else None
        yield name if name.startswith("tenants/") else f"{tenant or 'tenants/-'}/models/{name}"


def models(principal: Principal | None, request: Message) -> frozenset[str]:
    """The names of the models that a request is about; a version or a rollout counts as its model."""
    owners = ("/".join(name.split("/")[:_MODEL_PARTS]) for name in referenced(request, *_OF_MODELS))
    return frozenset({*named(principal, request, MODEL), *owners})


@lru_cache(maxsize=512)
def names_models(request: Descriptor) -> bool:
    """Whether requests of this type can name a model."""
    if request.full_name in _INFERENCE_MODELS:
        return True
    kinds = {MODEL, *_OF_MODELS}
    return any(
        names_models(reference.nested) if reference.nested is not None else reference.kind in kinds
        for reference in _references(request)
    )


def referenced(message: Message, *kinds: str) -> Iterator[str]:
    """The resource names in all fields, nested ones too, that carry google.api.resource_reference.

    An optional field that is empty names nothing.

    Args:
        message: The request.
        kinds: Only those of these resource types; all when there are none.
    """
    for field in _references(message.DESCRIPTOR):
        if field.nested is None:
            if not kinds or field.kind in kinds:
                value = getattr(message, field.name)
                yield from value if field.repeated else [value] if value or field.required else []
        elif field.repeated:
            for item in getattr(message, field.name):
                yield from referenced(item, *kinds)
        elif message.HasField(field.name):
            yield from referenced(getattr(message, field.name), *kinds)


class _Reference(NamedTuple):
    """A field that names resources or holds messages that do, read once: each call asks for them several times."""

    name: str
    repeated: bool
    required: bool
    kind: str
    """The type of what it names."""
    nested: Descriptor | None
    """The type of the messages that it holds."""


@lru_cache(maxsize=512)
def _references(descriptor: Descriptor) -> tuple[_Reference, ...]:
    found: list[_Reference] = []
    for field in descriptor.fields:
        options = field.GetOptions()
        if options.HasExtension(resource_pb2.resource_reference):
            kind = options.Extensions[resource_pb2.resource_reference].type
            found.append(_Reference(field.name, field.is_repeated, _required(field), kind, None))
        elif field.message_type is not None and _refers(field.message_type, frozenset()):
            found.append(_Reference(field.name, field.is_repeated, _required(field), "", field.message_type))
    return tuple(found)


def _required(field: FieldDescriptor) -> bool:
    return field_behavior_pb2.REQUIRED in field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


def _refers(descriptor: Descriptor, seen: frozenset[str]) -> bool:
    if descriptor.full_name in seen:
        return False
    seen |= {descriptor.full_name}
    return any(
        field.GetOptions().HasExtension(resource_pb2.resource_reference)
        or (field.message_type is not None and _refers(field.message_type, seen))
        for field in descriptor.fields
    )
