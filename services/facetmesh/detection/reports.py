"""Reads what a process says that worked on a model's file. It is not trusted: it has run a stranger's model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from facetmesh.detection.hints import LARGEST_SIDE
from facetmesh.detection.versions import Facts, Tensor
from facetmesh.kit.errors import Internal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from facetmesh.runners.tasks import Reply

_TASKS = frozenset({"detect", "segment", "pose", "obb", "classify"})


def facts(values: Mapping[str, Any]) -> Facts:
    """What a file was found to be.

    Raises:
        Internal: RUNNER_REPLY_INVALID: it is nothing that an inspection finds.
    """
    match values:
        case {"labels": [*labels], "task": str(task), "height": int(height), "width": int(width),
              "inputs": [*inputs], "outputs": [*outputs]}:  # fmt: skip
            sides = (0 < height <= LARGEST_SIDE, 0 < width <= LARGEST_SIDE)
            if task in _TASKS and all(sides) and all(isinstance(label, str) for label in labels):
                return Facts(tuple(labels), task, height, width, _tensors(inputs), _tensors(outputs))
    raise _nonsense()


def file(reply: Reply) -> bytes:
    """The one file that was made.

    Raises:
        Internal: RUNNER_REPLY_INVALID: there is none, or there are several.
    """
    if len(reply.blobs) != 1:
        raise _nonsense()
    return reply.blobs[0]


def _tensors(entries: list[Any]) -> tuple[Tensor, ...]:
    try:
        return tuple(
            Tensor(str(one["name"])[:200], str(one["datatype"])[:16], tuple(int(size) for size in one["shape"]))
            for one in entries
        )
    except (KeyError, TypeError, ValueError):
        raise _nonsense() from None


def _nonsense() -> Internal:
    return Internal("The process that worked on the model gave no sensible answer.", reason="RUNNER_REPLY_INVALID")
