"""`facetmesh rollout …`."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Annotated

import typer

from facetmesh.cli import output
from facetmesh.cli.options import options
from facetmesh.detection.v1 import rollout_pb2
from facetmesh.kit.errors import InvalidArgument

if TYPE_CHECKING:
    from rich.console import RenderableType

    from facetmesh.client import Client

app = typer.Typer(no_args_is_help=True)
Model = Annotated[str, typer.Argument(help="The model's id.")]
Id = Annotated[str, typer.Argument(help="The rollout's id; the newest one's when left out.")]
_PERCENT = re.compile(r"[0-9]{1,2}|100")
_UNITS_S = {"s": 1, "m": 60, "h": 3600}
_POLL_S = 1.0
_OVER = {rollout_pb2.Rollout.STATE_DONE, rollout_pb2.Rollout.STATE_ROLLED_BACK}


@app.command()
def start(  # noqa: PLR0913 - one for each option
    context: typer.Context,
    model: Model,
    *,
    to: Annotated[str, typer.Option(help="The new version, by number or alias.")],
    steps: Annotated[
        str, typer.Option(help="Of 100 calls, how many it answers in each step, such as 1,10,50,100; +N after a step, "
                               "as in 0+10, is a copy of N more.")
    ] = "0+10,1,10,50,100",
    blue_green: Annotated[bool, typer.Option("--blue-green", help="All at once, after a copy of all calls.")] = False,
    window: Annotated[str, typer.Option(help="How long a step lasts at the least, such as 90s, 5m or 1h.")] = "5m",
    patience: Annotated[str, typer.Option(help="After how long a step that has not passed is given up.")] = "1h",
    errors: Annotated[float, typer.Option(help="The share of failed calls, beyond the stable version's.")] = 0.01,
    slowdown: Annotated[float, typer.Option(help="Times as long as the stable version.")] = 1.3,
    cost: Annotated[float, typer.Option(help="Times the compute of the stable version.")] = 1.5,
    agreement: Annotated[float, typer.Option(help="F1 of its objects against the stable version's.")] = 0.8,
    drift: Annotated[float, typer.Option(help="PSI of scores and of classes.")] = 0.25,
    samples: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Calls of each version before a gate passes.")
    ] = 100,
) -> None:
    """Give a model's new version its calls, step by step; it goes back by itself where it is worse."""
    chosen = options(context)
    source = context.get_parameter_source("steps")
    if blue_green and source is not None and source.name != "DEFAULT":
        raise InvalidArgument("--blue-green says the steps: leave --steps out.", reason="STEPS_TWICE")
    wanted = _steps("0+100,100" if blue_green else steps)
    window_s, patience_s = _seconds(window), _seconds(patience)
    limits = rollout_pb2.Rollout.Limits(
        errors=errors, slowdown=slowdown, cost=cost, agreement=agreement, drift=drift, samples=samples
    )
    with chosen.tenant_client() as client:
        rollout = client.start_rollout(
            model, to=to, steps=wanted, window_s=window_s, patience_s=patience_s, limits=limits
        )
    output.answer(chosen, output.as_data(rollout), _described(rollout))


@app.command()
def status(
    context: typer.Context,
    model: Model,
    rollout: Id = "",
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it is over; fail when it went back.")] = False,
) -> None:
    """Show how far a rollout is, and what was decided on which figures."""
    chosen = options(context)
    with chosen.tenant_client() as client:
        found = client.get_rollout(model, rollout)
        with output.err.status("waiting"):
            while wait and found.state not in _OVER:
                time.sleep(_POLL_S)
                found = client.get_rollout(model, found.name.rpartition("/")[2])
    output.answer(chosen, output.as_data(found), _described(found))
    if not chosen.json:
        output.out.print(_decisions(found))
    if wait and found.state != rollout_pb2.Rollout.STATE_DONE:
        raise typer.Exit(1)


@app.command("list")
def list_(context: typer.Context, model: Model) -> None:
    """List a model's rollouts."""
    chosen = options(context)
    with chosen.tenant_client() as client:
        found = client.list_rollouts(model)
    rows = (
        (one.name.rpartition("/")[2], one.stable_version, one.version, _state(one.state),
         output.moment(one.create_time))
        for one in sorted(found, key=lambda one: one.create_time.ToMicroseconds())
    )  # fmt: skip
    output.answer(
        chosen, {"rollouts": [output.as_data(one) for one in found]},
        output.table(("rollout", "from", "to", "state", "begun"), rows),
    )


@app.command()
def pause(context: typer.Context, model: Model, rollout: Id = "") -> None:
    """Stay at the step that it is at; a version that fails goes back all the same."""
    _order(context, model, rollout, "pause_rollout")


@app.command()
def resume(context: typer.Context, model: Model, rollout: Id = "") -> None:
    """Go on after a pause."""
    _order(context, model, rollout, "resume_rollout")


@app.command()
def promote(context: typer.Context, model: Model, rollout: Id = "") -> None:
    """Give the new version all calls at once, whatever its gates say."""
    _order(context, model, rollout, "promote_rollout")


@app.command()
def abort(context: typer.Context, model: Model, rollout: Id = "") -> None:
    """Give the stable version all calls back."""
    _order(context, model, rollout, "abort_rollout")


def _order(context: typer.Context, model: str, rollout: str, method: str) -> None:
    chosen = options(context)
    with chosen.tenant_client() as client:
        changed: rollout_pb2.Rollout = getattr(client, method)(model, rollout or _newest(client, model))
    output.answer(chosen, output.as_data(changed), _described(changed))
    if not chosen.json:
        output.note(f"`{chosen.called} rollout status {model}` shows when that is done.")


def _newest(client: Client, model: str) -> str:
    return client.get_rollout(model).name.rpartition("/")[2]


def _steps(text: str) -> list[tuple[int, int]]:
    found = []
    for part in text.split(","):
        percent, _, shadow = part.strip().partition("+")
        if not _PERCENT.fullmatch(percent) or not _PERCENT.fullmatch(shadow or "0"):
            raise InvalidArgument(
                f'"{part}" is no step: 10, or with a copy of 5 more 10+5, each of 100.', reason="STEP_INVALID"
            )
        found.append((int(percent), int(shadow or 0)))
    return found


def _seconds(text: str) -> float:
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS_S else (text, "s")
    if not number.isdecimal():
        raise InvalidArgument(f'"{text}" is no duration such as 90s, 5m or 1h.', reason="DURATION_INVALID")
    return float(int(number) * _UNITS_S[unit])


def _state(state: rollout_pb2.Rollout.State.ValueType) -> str:
    return rollout_pb2.Rollout.State.Name(state).removeprefix("STATE_").lower().replace("_", " ")


def _described(rollout: rollout_pb2.Rollout) -> str:
    step = rollout.steps[rollout.step]
    shadow = f", copies of {step.shadow_percent} %" if step.shadow_percent else ""
    return output.facts({
        "rollout": rollout.name,
        "versions": f"{rollout.stable_version} to {rollout.version}",
        "state": _state(rollout.state),
        "step": f"{rollout.step + 1} of {len(rollout.steps)}: {step.percent} %{shadow}",
        "since": output.moment(rollout.step_time) or "not begun",
    })


def _decisions(rollout: rollout_pb2.Rollout) -> RenderableType:
    rows = (
        (one.number, output.moment(one.time), _state(one.state), one.step + 1, one.cause, _figures(one))
        for one in rollout.decisions
    )
    return output.table(("", "decided", "state", "step", "cause", "figures"), rows)


def _figures(decision: rollout_pb2.Rollout.Decision) -> str:
    """Of what failed or waits; of all where all passed."""
    passed = rollout_pb2.Rollout.Finding.VERDICT_PASS
    told = [one for one in decision.findings if one.verdict != passed] or decision.findings
    return ", ".join(f"{one.gate} {one.candidate:.3g} (limit {one.limit:.3g}, {one.calls} calls)" for one in told)
