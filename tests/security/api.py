"""The whole API as its descriptors have it, and requests made from them, so that a new RPC cannot be forgotten."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from google.api import resource_pb2
from google.protobuf import message_factory
from hypothesis import strategies as st

from facetmesh.auth.methods import methods
from facetmesh.buf.validate import validate_pb2
from facetmesh.kit import status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import grpc
    from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
    from google.protobuf.message import Message

    from facetmesh.kit.errors import FacetmeshError

METHODS: list[MethodDescriptor] = [one for one in methods() if one.full_name.startswith("facetmesh.")]
"""Our own; what we serve of KServe's has tests of its own."""
_TENANT = re.compile("^tenants/[^/]*")


def path(method: MethodDescriptor) -> str:
    """package.Service/Method."""
    return f"{method.containing_service.full_name}/{method.name}"


def kind(descriptor: Descriptor) -> type[Message]:
    """The class of a message."""
    return message_factory.GetMessageClass(descriptor)


def multicallable(channel: Any, method: MethodDescriptor) -> Any:
    """What calls the method on a channel, blocking or not, with one message."""
    shape = tuple("stream" if streams else "unary" for streams in (method.client_streaming, method.server_streaming))
    callable_ = getattr(channel, "_".join(shape))(
        f"/{path(method)}",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=kind(method.output_type).FromString,
    )
    if not method.client_streaming:
        return callable_
    return lambda request, **options: callable_(iter([request]), **options)


def refusal(error: grpc.RpcError) -> FacetmeshError:
    """What a call was refused with."""
    return status.from_rpc_error(error)


def references(descriptor: Descriptor) -> Iterator[tuple[str, ...]]:
    """The paths of all fields that name a resource, nested ones too."""
    for field in descriptor.fields:
        if field.GetOptions().HasExtension(resource_pb2.resource_reference):
            yield (field.name,)
        elif field.message_type is not None and not field.is_repeated:
            yield from ((field.name, *rest) for rest in references(field.message_type))


def valid(descriptor: Descriptor, tenant: str, known: Sequence[str] = ()) -> st.SearchStrategy[Message]:
    """Messages that keep the rules in the protos.

    Args:
        descriptor: Which message.
        tenant: The id of the tenant that they name.
        known: Names of resources to ask for, where one fits.
    """
    fields = {field.name: _valid(field, tenant, known) for field in descriptor.fields if _plain(field)}
    for field in descriptor.fields:  # some lists must not be empty
        least = field.GetOptions().Extensions[validate_pb2.field].repeated.min_items
        if field.is_repeated and least:
            fields[field.name] = st.lists(_valid(field, tenant, known), min_size=least, max_size=least + 1)
    return st.fixed_dictionaries(fields).map(lambda values: kind(descriptor)(**values))


def arbitrary(descriptor: Descriptor, tenant: str, known: Sequence[str] = ()) -> st.SearchStrategy[Message]:
    """Messages of which each field keeps the rules, breaks them, or is absent."""
    fields = {field.name: _hostile(field, tenant) for field in descriptor.fields}
    fields |= {
        field.name: fields[field.name] | _valid(field, tenant, known) for field in descriptor.fields if _plain(field)
    }  # fmt: skip
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: kind(descriptor)(**values))


def _plain(field: FieldDescriptor) -> bool:
    """Whether a message may have it beside all others: no list, and of those of which one is chosen the first."""
    choice = field.containing_oneof
    return not field.is_repeated and (
        choice is None or choice.name == f"_{field.name}" or choice.fields[0].name == field.name
    )


def _valid(field: FieldDescriptor, tenant: str, known: Sequence[str]) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        duration = field.message_type.full_name == "google.protobuf.Duration"
        return st.just({"nanos": 1_000_000}) if duration else valid(field.message_type, tenant, known)
    rules = field.GetOptions().Extensions[validate_pb2.field]
    if field.type == field.TYPE_STRING:
        return _valid_text(rules.string, tenant, known)
    if field.type == field.TYPE_BYTES:
        return st.binary(min_size=max(1, rules.bytes.min_len), max_size=max(64, rules.bytes.min_len))
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        least = max(0.25, (rules.float if field.type == field.TYPE_FLOAT else rules.double).gte)
        return st.floats(least, least + 0.5, width=32)
    if field.enum_type is None:
        return st.integers(1, 2)
    return st.sampled_from(list(getattr(rules.enum, "in")) or [value.number for value in field.enum_type.values])


def _valid_text(rules: validate_pb2.StringRules, tenant: str, known: Sequence[str]) -> st.SearchStrategy[str]:
    if rules.pattern:
        fitting = [name for name in known if re.fullmatch(rules.pattern, name)]
        made = st.from_regex(rules.pattern, fullmatch=True).filter(bool)
        made = made.map(lambda name: _TENANT.sub(f"tenants/{tenant}", name))
        return st.sampled_from(fitting) | made if fitting else made
    return st.uuids().map(str) if rules.uuid else st.text("ab -", min_size=1, max_size=20)


def _hostile(field: FieldDescriptor, tenant: str) -> st.SearchStrategy[Any]:
    one: st.SearchStrategy[Any]
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        return st.dictionaries(_hostile(key, tenant), _hostile(value, tenant), max_size=5)
    if field.message_type is not None:
        if field.message_type.full_name == "google.protobuf.FieldMask":
            fields = st.sampled_from(["display_name", "limits", "limits.models", "*", "name", "", "a.b"])
            one = st.fixed_dictionaries({"paths": st.lists(fields)})
        elif field.message_type.full_name.startswith("google.protobuf."):
            one = st.sampled_from([{"seconds": -1}, {"nanos": -1}, {"seconds": 10**11}, {"seconds": 1, "nanos": -5}])
        else:
            one = arbitrary(field.message_type, tenant)
    elif field.type == field.TYPE_STRING:
        one = st.text(st.characters(codec="utf-8"), max_size=300) | st.sampled_from(
            ["tenants/-", "tenants/acme/../globex", "tenants/acme/models/" + "a" * 5000, "\0", "%s%n", "' OR 1=1 --"]
        )
    elif field.type == field.TYPE_BYTES:
        one = st.binary(max_size=300)
    elif field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        one = st.floats(width=32)
    elif field.type == field.TYPE_BOOL:
        one = st.booleans()
    else:
        one = st.sampled_from([-1, 0, 2**31 - 1]) if field.enum_type is None else st.integers(-1, 9)
    return st.lists(one, max_size=5) if field.is_repeated else one
