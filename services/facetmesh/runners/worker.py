"""The child: `python -m facetmesh.runners.worker PROGRAM FD OPTIONS`.

It answers frames until its parent is gone. Not for people to start.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

from facetmesh.kit import pauses
from facetmesh.kit.errors import FacetmeshError, Internal, ResourceExhausted
from facetmesh.runners import frames, memory, sandbox, stopwatch
from facetmesh.runners.settings import EngineSetting
from facetmesh.runners.tasks import Context

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from facetmesh.runners.tasks import Task


class Worker:
    """Answers frames with a program's tasks, on as many threads as are started.

    Args:
        sock: The socket to the parent.
        tasks: The program's tasks.
        context: What they keep between calls.
    """

    def __init__(self, sock: socket.socket, tasks: Mapping[str, Task], context: Context) -> None:
        self._sock = sock
        self._stream = sock.makefile("rb")
        self._tasks = tasks
        self._context = context
        self._reading = threading.Lock()
        self._writing = threading.Lock()

    def serve(self) -> None:
        """Answers until the parent is gone, then ends the process.

        It ends at once, without destructors: native libraries like to hang or
        crash in theirs, and other threads may still be at work.
        """
        try:
            while (frame := self._receive()) is not None:
                header, blobs = frame
                self._send(self._answer(header, blobs))
        except OSError:
            pass
        except BaseException:  # noqa: BLE001 - a half-dead worker would keep its calls waiting
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    def ready(self) -> None:
        """Tells the parent that calls may come."""
        self._send(frames.encode({"ready": True}))

    def _receive(self) -> tuple[dict[str, Any], list[bytes]] | None:
        with self._reading:
            return frames.receive(self._stream)

    def _send(self, parts: Sequence[bytes]) -> None:
        with self._writing:
            frames.send(self._sock, parts)

    def _answer(self, header: Mapping[str, Any], blobs: Sequence[bytes]) -> list[bytes]:
        try:
            self._context.asked(header["subject"])
            with stopwatch.measured() as seen:
                reply = self._tasks[header["task"]](self._context, header["arguments"], blobs)
            return frames.encode(
                {
                    "id": header["id"], "values": reply.values, "timings_ms": seen.times_ms, "batch": seen.batch,
                    "gone": self._context.gone(),
                },
                reply.blobs,
            )  # fmt: skip
        except FacetmeshError as error:
            refusal = error
        except MemoryError:
            refusal = ResourceExhausted("It needs more memory than a runner may use.", reason="RUNNER_MEMORY")
        except Exception:  # noqa: BLE001 - whatever a task raises, its call gets an answer
            traceback.print_exc()
            refusal = Internal("The task failed.", reason="RUNNER_TASK_FAILED")
        return frames.encode({
            "id": header["id"],
            "error": {
                "code": refusal.code,
                "reason": refusal.reason,
                "message": refusal.message,
                "metadata": refusal.metadata,
            },
        })


def main() -> None:
    """Hardens this process, imports the program, and serves it."""
    program, fd, text = sys.argv[1:]
    options = json.loads(text)
    sandbox.harden(sandbox.Confinement(**options["confinement"]), parent_pid=options["parent_pid"])
    tasks = importlib.import_module(program).TASKS
    kept_bytes = options["kept_bytes"]
    context = Context(
        EngineSetting(**options["setting"]), crowded=lambda: 0 < kept_bytes < memory.private_bytes()
    )
    worker = Worker(socket.socket(fileno=int(fd)), tasks, context)
    for _ in range(options["concurrency"] - 1):
        threading.Thread(target=worker.serve, daemon=True).start()
    pauses.shorten()
    worker.ready()
    worker.serve()


if __name__ == "__main__":
    main()
