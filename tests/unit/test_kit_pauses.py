"""Pauses of the garbage collector."""

from __future__ import annotations

import gc
import weakref

from facetmesh.kit import pauses


class _Thing:
    pass


def test_what_was_there_before_is_not_searched_again() -> None:
    thing = _Thing()
    thing.itself = thing  # type: ignore[attr-defined] # only the collector can end it
    before = weakref.ref(thing)
    try:
        pauses.shorten()
        del thing
        gc.collect()
        assert before() is not None
    finally:
        gc.unfreeze()
    gc.collect()
    assert before() is None


def test_what_is_made_later_is_collected_as_ever() -> None:
    pauses.shorten()
    try:
        thing = _Thing()
        thing.itself = thing  # type: ignore[attr-defined]
        later = weakref.ref(thing)
        del thing
        gc.collect()
        assert later() is None
    finally:
        gc.unfreeze()
