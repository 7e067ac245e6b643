"""What a child keeps between calls."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from facetmesh.runners import stopwatch
from facetmesh.runners.settings import EngineSetting
from facetmesh.runners.tasks import Context

DEADLINE_S = 60.0


def unexpected() -> str:
    """What must not be made."""
    raise AssertionError("it was made again")


def test_the_least_recently_used_goes_first() -> None:
    context = Context(EngineSetting(), keep=2)
    for key in ("a", "b", "a", "c"):
        context.once(key, lambda key=key: key.upper())  # type: ignore[misc]
    assert context.once("a", unexpected) == "A"
    assert context.once("b", lambda: "anew") == "anew"


def test_a_task_for_which_something_is_made_says_so() -> None:
    """It is a part of it, once."""
    context, parts = Context(EngineSetting()), []
    for make in (lambda: "made", unexpected):
        with stopwatch.measured() as found:
            context.once("key", make)
        parts.append(set(found.times_ms))
    assert parts == [{"load", "post"}, {"post"}]


def test_whose_things_are_gone_is_said_once() -> None:
    context = Context(EngineSetting(), keep=2)
    for subject, key in (("one", "a"), ("same", "a"), ("two", "b"), ("three", "c")):
        context.asked(subject)
        context.once(key, lambda key=key: key.upper())  # type: ignore[misc]
    assert context.gone() == ["one", "same"]
    assert context.gone() == []


def test_where_memory_is_short_the_newest_is_left() -> None:
    context = Context(EngineSetting(), crowded=lambda: True)
    for key in ("a", "b", "c"):
        context.once(key, lambda key=key: key.upper())  # type: ignore[misc]
    assert context.once("c", unexpected) == "C"
    assert context.once("a", lambda: "anew") == "anew"


def test_where_memory_is_short_room_is_made_before() -> None:
    """Of large models there is no room for two."""
    short = False
    context = Context(EngineSetting(), crowded=lambda: short)
    context.asked("one")
    context.once("a", lambda: "a")
    short = True
    context.asked("two")
    assert context.once("b", context.gone) == ["one"]


def test_room_is_made_for_what_a_call_is_about() -> None:
    """Even if it is the oldest; whether that was enough is said."""
    states: list[bool] = []
    context = Context(EngineSetting(), crowded=lambda: bool(states) and states.pop(0))
    for key in ("a", "b", "c"):
        context.once(key, lambda key=key: key.upper())  # type: ignore[misc]
    states += [True, False]
    assert not context.relieve("a")
    assert [context.once(key, unexpected) for key in ("a", "c")] == ["A", "C"]
    states += [True] * 3
    assert context.relieve("a")
    assert context.once("a", unexpected) == "A"


def test_a_model_that_is_there_answers_while_another_is_loaded() -> None:
    context, begun, go_on = Context(EngineSetting()), threading.Event(), threading.Event()
    context.once("there", lambda: "there")

    def slow() -> str:
        begun.set()
        assert go_on.wait(DEADLINE_S)
        return "slow"

    with ThreadPoolExecutor(2) as threads:
        loading = threads.submit(context.once, "slow", slow)
        assert begun.wait(DEADLINE_S)
        waiting = threads.submit(context.once, "slow", unexpected)
        try:
            other = threading.Thread(target=context.once, args=("there", unexpected), daemon=True)
            other.start()
            other.join(DEADLINE_S)
            assert not other.is_alive(), "it waited for the load of another"
        finally:
            go_on.set()
        assert loading.result(DEADLINE_S) == waiting.result(DEADLINE_S) == "slow"


def test_what_could_not_be_made_is_tried_again() -> None:
    context = Context(EngineSetting())
    with pytest.raises(AssertionError):
        context.once("a", unexpected)
    assert context.once("a", lambda: "A") == "A"


def test_what_is_forgotten_while_it_is_made_is_not_kept() -> None:
    context = Context(EngineSetting())
    assert context.once(("a", "sha"), lambda: context.forget("sha")) is None
    assert context.once(("a", "sha"), lambda: "anew") == "anew"
