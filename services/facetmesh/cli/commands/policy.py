"""`facetmesh policy …`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from google.protobuf import json_format

from facetmesh.auth.v1 import policy_pb2
from facetmesh.cli import output
from facetmesh.cli.options import options
from facetmesh.kit.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from facetmesh.cli.options import Options
    from facetmesh.client import Client

app = typer.Typer(no_args_is_help=True)
Of = Annotated[
    str | None, typer.Option("--of", help="Whose: a tenant, or platform; by default the key's own tenant's.")
]
File = Annotated[Path, typer.Argument(help="The policies, in Cedar.", dir_okay=False, exists=True)]
_EFFECTS = {policy_pb2.POLICY_EFFECT_ALLOW: "allow", policy_pb2.POLICY_EFFECT_DENY: "deny"}
_COLUMNS = ("policy", "active", "description", "created (UTC)")


@app.command("set")
def set_(
    context: typer.Context,
    file: File,
    *,
    of: Of = None,
    description: Annotated[str, typer.Option(help="What they are for.")] = "",
) -> None:
    """Check policies, keep them as a new version, and put it into force."""
    chosen = options(context)
    with _client(chosen, of) as client:
        policy = client.create_policy(file.read_text(), owner=of, description=description)
        policy = client.activate_policy(policy.name)
    output.answer(chosen, output.as_data(policy), f"{policy.name} is in force.")


@app.command()
def activate(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A version: tenants/TENANT/policies/3, or …/default for none.")],
) -> None:
    """Put a version into force again."""
    chosen = options(context)
    with _client(chosen, name.partition("/policies/")[0]) as client:
        policy = client.activate_policy(name)
    output.answer(chosen, output.as_data(policy), f"{policy.name} is in force.")


@app.command("list")
def list_(context: typer.Context, *, of: Of = None) -> None:
    """List the versions."""
    chosen = options(context)
    with _client(chosen, of) as client:
        policies = client.list_policies(owner=of)
    rows = (
        (one.name, "yes" if one.active else "", one.description, output.moment(one.create_time)) for one in policies
    )
    output.answer(
        chosen, {"policies": [output.as_data(one) for one in policies]}, output.table(_COLUMNS, rows)
    )


@app.command()
def show(context: typer.Context, name: Annotated[str, typer.Argument(help="Its whole name.")]) -> None:
    """Show a version's policies."""
    chosen = options(context)
    with _client(chosen, name.partition("/policies/")[0]) as client:
        policy = client.get_policy(name)
    output.answer(chosen, output.as_data(policy), policy.text)


@app.command()
def schema(context: typer.Context, *, of: Of = None) -> None:
    """Show the schema: the words that policies are written in."""
    chosen = options(context)
    with _client(chosen, of) as client:
        text = client.policy_schema(owner=of)
    output.answer(chosen, {"schema": text}, text)


@app.command("test")
def try_out(
    context: typer.Context,
    file: File,
    *,
    cases: Annotated[
        Path, typer.Option(help="Calls as JSON, a list or one a line: cases, or recorded events.", exists=True)
    ],
    of: Of = None,
) -> None:
    """Try policies out before they are set: exit code 1 where a call is not decided as expected."""
    chosen = options(context)
    wanted = _cases(cases)
    with _client(chosen, of) as client:
        decisions = client.test_policies(wanted, text=file.read_text(), owner=of)
    failed = [one for one in decisions if not one.as_expected]
    rows = (
        (case.description or case.method, _EFFECTS[one.effect], "" if one.as_expected else "not as expected",
         ", ".join([*one.deciding_policies, *one.errors]))
        for case, one in zip(wanted, decisions, strict=True)
    )  # fmt: skip
    view = output.table(("call", "decision", "", "decided by"), rows)
    data = {"decisions": [output.as_data(one) for one in decisions], "failed": len(failed)}
    output.answer(chosen, data, view)
    if failed:
        raise FailedPrecondition(
            f"{len(failed)} of {len(decisions)} calls are not decided as expected.", reason="POLICY_TEST_FAILED"
        )


@app.command()
def explain(
    context: typer.Context,
    method: Annotated[str, typer.Argument(help="package.Service/Method.")],
    *,
    of: Of = None,
    role: Annotated[list[str] | None, typer.Option(help="A role of who calls; by default caller; repeatable.")] = None,
    resource: Annotated[str, typer.Option(help="The model, by its whole name.")] = "",
    licence: Annotated[str, typer.Option(help="The model's licence.")] = "",
    source: Annotated[str, typer.Option(help="The caller's address.")] = "",
    region: Annotated[str, typer.Option(help="The region of the process that is called.")] = "",
) -> None:
    """Say how a call is decided now, and show the policies that decide."""
    chosen = options(context)
    case = _case({
        "method": method, "roles": role or [], "resource": resource, "licence": licence, "source": source,
        "region": region,
    })  # fmt: skip
    with _client(chosen, of) as client:
        told = client.explain_decision(case, owner=of)
    lines = [f"{_EFFECTS[told.decision.effect]}, by {', '.join(told.decision.deciding_policies)}"]
    lines += [f"\n{one.text}" for one in told.policies if one.text]
    output.answer(chosen, output.as_data(told), "\n".join([*lines, *told.decision.errors]))


def _client(chosen: Options, owner: str | None) -> Client:
    return chosen.tenant_client() if owner is None else chosen.admin_client()


def _cases(path: Path) -> list[policy_pb2.PolicyCase]:
    text = path.read_text()
    try:
        found = _read(text)
    except ValueError as error:
        raise InvalidArgument(f"{path} is not JSON: {error}", reason="CASES_INVALID") from None
    objects = [one for one in found if isinstance(one, dict)]
    events = [one.get("event", one) for one in objects if "event" in one or "id" in one]
    # What has no roles was nobody's call: public, refused before anybody was recognised, or work that no call caused.
    cases = [_recorded(one) for one in events if one.get("roles")] if events else [_case(one) for one in objects]
    if not cases or len(objects) != len(found):
        raise InvalidArgument(f"{path} has no list of calls.", reason="CASES_INVALID")
    return cases


def _read(text: str) -> list[Any]:
    """A list, what `audit events --json` answers, or an object on each line."""
    try:
        whole = json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(whole, dict):
        whole = whole.get("events", [whole])
    return whole if isinstance(whole, list) else []


def _case(given: dict[str, Any]) -> policy_pb2.PolicyCase:
    """A case as people write it: roles and expectations by their short names."""
    fields = dict(given)
    fields["roles"] = [_enum("ROLE", one) for one in fields.get("roles", [])]
    if "expected" in fields:
        fields["expected"] = _enum("POLICY_EFFECT", fields["expected"])
    try:
        return json_format.ParseDict(fields, policy_pb2.PolicyCase())
    except json_format.ParseError as error:
        raise InvalidArgument(f"A case is wrong: {error}", reason="CASES_INVALID") from None


def _recorded(event: dict[str, Any]) -> policy_pb2.PolicyCase:
    """A recorded event as a case: what was done is expected to be allowed, what a policy stopped to be denied."""
    case = {
        "description": f"{event.get('time', '')} {event['method']}", "method": event["method"],
        "subject": event.get("subject", ""), "resource": _subject_of(event.get("resource", "")),
        "region": event.get("region", ""), "source": event.get("source_address", ""),
        "roles": event.get("roles", []),
    }  # fmt: skip
    if event.get("time"):
        case["time"] = event["time"]
    if event.get("reason") == "POLICY_DENIED":
        case["expected"] = "deny"
    elif event.get("code") == "OK":
        case["expected"] = "allow"
    return _case(case)


def _subject_of(resource: str) -> str:
    """The model or tenant that an event's resource lies in, which is what policies decide on."""
    parts = resource.split("/")
    return "/".join(parts[: 4 if parts[2:3] == ["models"] else 2])


def _enum(prefix: str, name: str) -> str:
    word = str(name).upper().replace("-", "_")
    return word if word.startswith(prefix) else f"{prefix}_{word}"
