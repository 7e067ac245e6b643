"""The fuzzers' targets, without their engine: what each is there for is read, and so is what is nearly that."""

from __future__ import annotations

import random

import pytest
from tests.fuzz.targets import TARGETS

VARIANTS = 40


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_read_and_so_is_what_is_nearly_one(name: str) -> None:
    """Nothing comes out of a target that is no refusal."""
    target, chance = TARGETS[name], random.Random(name)  # noqa: S311 - a test that can be repeated
    for seed in target.seeds():
        target.read(seed)
        for _ in range(VARIANTS):
            data = bytearray(seed)
            for _ in range(chance.randint(1, 4)):
                at = chance.randrange(len(data))
                data[at : at + chance.randint(0, 2)] = chance.randbytes(chance.randint(0, 2))
                data = data or bytearray(1)
            target(bytes(data))
