"""The words of policies: a Cedar schema, made from the methods and their access rules.

    principal   Key, Service or Admin, in its Roles and its Tenant
    action      detection.Detect, …, in roles/ROLE for each role that its rule
                names, in services/SERVICE, in reads where it changes nothing, and in
                infers where it has a model work
    resource    the Model that a request names, else its Tenant, else the Platform
    context     when, from where, in which region, under which plan
"""  # noqa: D208 - a table

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from google.protobuf import descriptor_pool

from facetmesh.kit import access

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.descriptor import MethodDescriptor

_ENTITIES = """\
entity Role;
entity Platform;
entity Tenant;
// Who calls with an API key: tenants/acme/keys/KEY.
entity Key in [Role, Tenant] = { tenant: Tenant };
// A service of the mesh that acts on behalf of a tenant: services/fusion.
entity Service in [Role, Tenant] = { tenant?: Tenant };
entity Admin in [Role];
// tenants/acme/models/faces. The service that runs it knows its version (the last part of the name) and its licence
// (an SPDX expression); others do not.
entity Model in [Tenant] = { id: String, version?: String, licence?: String };
type Context = {
  now: datetime,    // to the minute
  hour: Long,       // 0 to 23, UTC
  weekday: Long,    // 1 is Monday, 7 Sunday, UTC
  region: String,   // of the process that was called
  plan: String,     // of the tenant; "" where it is not known
  source?: ipaddr,  // the caller's address, where it is one
};
"""
_READS = re.compile(r"(Get|List|Watch|Wait|Export|Server|ModelReady|ModelMetadata|ModelConfig|ModelStatistics|"
                    r"RepositoryIndex)")  # fmt: skip
INFERS = "infers"
"""The actions that have a model work."""
_HOLDERS = {"platform-admin": "Admin", "service": "Service"}


@dataclass(frozen=True, slots=True)
class Action:
    """A method as policies see it."""

    id: str
    """Such as detection.Detect."""
    groups: tuple[str, ...]
    """The actions that it is in."""
    principals: tuple[str, ...]
    """The types of those who may call it."""
    names_models: bool
    """Whether its requests can name models."""

    @property
    def infers(self) -> bool:
        """Whether it has a model work."""
        return INFERS in self.groups


@lru_cache(maxsize=512)
def action(method: str) -> Action:
    """The action of a method, given as package.Service/Method."""
    rule = access.rule(method)
    full_service, _, short = rule.method.partition("/")
    package = full_service.split(".")
    service = package[1] if package[0] == "facetmesh" and len(package) > 1 else package[0]
    groups = [*(f"roles/{role}" for role in sorted(rule.roles)), f"services/{service}"]
    names_models = _names_models(f"{full_service}.{short}")
    if _READS.match(short):
        groups.append("reads")
    elif names_models and "caller" in rule.roles:
        groups.append(INFERS)
    return Action(
        f"{service}.{short}", tuple(groups), tuple(sorted({_HOLDERS.get(role, "Key") for role in rule.roles})),
        names_models,
    )  # fmt: skip


def full_name(method: MethodDescriptor) -> str:
    """package.Service/Method."""
    return f"{method.containing_service.full_name}/{method.name}"


def schema(methods: Iterable[MethodDescriptor]) -> str:
    """The Cedar schema in which these methods are actions, but the public ones: nobody is asked about those."""
    actions = sorted(
        {
            action(path)
            for method in methods
            if (rule := access.rule(path := full_name(method))).roles
            and not rule.public
        },
        key=lambda one: one.id,
    )
    groups = sorted({group for one in actions for group in one.groups})
    lines = [_ENTITIES, f"action {', '.join(map(_quoted, groups))};"]
    for one in actions:
        resources = "[Model, Tenant, Platform]" if one.names_models else "[Tenant, Platform]"
        lines.append(
            f"action {_quoted(one.id)} in [{', '.join(map(_quoted, one.groups))}] appliesTo {{\n"
            f"  principal: [{', '.join(one.principals)}], resource: {resources}, context: Context\n}};"
        )
    return "\n".join(lines) + "\n"


def _names_models(method: str) -> bool:
    try:
        request = descriptor_pool.Default().FindMethodByName(method).input_type
    except KeyError:
        return False
    return access.names_models(request)


def _quoted(name: str) -> str:
    return f'"{name}"'
