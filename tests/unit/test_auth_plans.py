"""Plans: the operator's file, checked when it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from facetmesh.auth import plans
from facetmesh.auth.plans import Limits
from facetmesh.kit.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from pathlib import Path


def test_those_that_come_with_facetmesh_can_be_used() -> None:
    shipped = plans.load()
    assert shipped.default in shipped.ids
    assert shipped.get("") == shipped.get(shipped.default)
    assert shipped.get("dedicated").limits == Limits()


def test_an_operators_file_takes_their_place(tmp_path: Path) -> None:
    file = tmp_path / "plans.toml"
    file.write_text('default = "one"\n[plans.one]\nweight = 3\nlimits = { requests_per_s = 1 }\n')
    own = plans.load(file)
    assert (own.ids, own.get("one").weight, own.get("one").limits) == (["one"], 3, Limits(requests_per_s=1))
    assert own.get("trial") == own.get("one")  # a tenant whose plan was taken away goes on
    assert own.known("") == "one"
    with pytest.raises(InvalidArgument) as refusal:
        own.known("trial")
    assert refusal.value.reason == "PLAN_UNKNOWN"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('default = "x"\n[plans.a]', '"x"'), ('default = "a"\n[plans.a]\nweight = 0', "weight"),
        ('default = "a"\n[plans.a]\nlimits = { requests_per_s = nan }', "requests_per_s"),
        ('default = "a"\n[plans.a]\nlimits = { models = -1 }', "models"),
        ('default = "a"\n[plans.a]\nlimits = { foo = 1 }', "foo"), ('default = "A"\n[plans.A]', "A"),
        ("[plans.a]", "default"), ("no toml", "line 1"), ('default = "a"\nmore = 1\n[plans.a]', "more"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "plans.toml"
    file.write_text(text)
    with pytest.raises(FailedPrecondition) as refusal:
        plans.load(file)
    assert refusal.value.reason == "PLANS_INVALID"
    assert said in refusal.value.message
    assert str(file) in refusal.value.message


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition):
        plans.load(tmp_path / "none")


def test_own_limits_stand_above_the_plans() -> None:
    own = Limits(requests_per_s=2, models=1)
    assert own.over(Limits(requests_per_s=9, concurrency=4)) == Limits(requests_per_s=2, concurrency=4, models=1)
