"""Reads what a child says became of a call. It is not trusted: it has run a stranger's model on a stranger's image."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

from facetmesh.kit import errors
from facetmesh.runners.frames import FrameError
from facetmesh.runners.tasks import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping

# What a task may say of its refusal: it travels in a response's trailers.
_MAX_MESSAGE = 1000
_MAX_METADATA = 8
_MAX_TIMINGS = 16
_MAX_MS = 1e9
_MAX_BATCH = 1024
_MAX_TEXT = 200
_REASON = re.compile(r"[A-Z][A-Z0-9_]{1,62}")
# What a task may refuse with. Not UNAUTHENTICATED, for one: a child knows nothing of that.
_TASK_ERRORS = {
    kind.code: kind
    for kind in (
        errors.InvalidArgument, errors.NotFound, errors.FailedPrecondition, errors.ResourceExhausted,
        errors.Unavailable, errors.Unimplemented, errors.Internal,
    )
}  # fmt: skip


def outcome(header: Mapping[str, Any], blobs: list[bytes]) -> Reply | errors.FacetmeshError:
    """What a child says became of a call.

    Raises:
        FrameError: It is not what children say.
    """
    match header:
        case {"values": dict(values), "timings_ms": dict(timings), "batch": int(batch), "gone": list(gone)} if (
            len(timings) <= _MAX_TIMINGS and 1 <= batch <= _MAX_BATCH
        ):
            if all(isinstance(value, int | float) and 0 <= value < _MAX_MS for value in timings.values()):
                times = {str(name)[:_MAX_TEXT]: float(value) for name, value in timings.items()}
                return Reply(values, blobs, times, batch, list(map(str, gone)))
        case {"error": {"code": str(code), "reason": str(reason), "message": str(message), "metadata": dict(metadata)}}:
            if code in _TASK_ERRORS and _REASON.fullmatch(reason) and len(message) <= _MAX_MESSAGE:
                few = itertools.islice(metadata.items(), _MAX_METADATA)
                texts = {str(key)[:_MAX_TEXT]: str(value)[:_MAX_TEXT] for key, value in few}
                return _TASK_ERRORS[code](message, reason=reason, metadata=texts)
    raise FrameError("neither values nor an error")
