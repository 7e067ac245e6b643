"""Workers: take jobs, keep them while they work, and end them."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import TYPE_CHECKING

from facetmesh.fusion.accounting import METHOD
from facetmesh.fusion.charging import charged_to
from facetmesh.fusion.operations import LEASE_S, MAX_FAULTS, MAX_INTERRUPTIONS, Fusion, Operation
from facetmesh.kit.errors import (
    Aborted,
    Cancelled,
    DeadlineExceeded,
    FacetmeshError,
    Internal,
    ResourceExhausted,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from facetmesh.fusion.accounting import Accounts
    from facetmesh.fusion.checkpoints import Checkpoints
    from facetmesh.fusion.images import Images
    from facetmesh.fusion.making import Maker
    from facetmesh.fusion.operations import Ref
    from facetmesh.fusion.registry import Registry

HEARTBEAT_S = LEASE_S / 4
"""How often a worker shows that it lives."""
LOOK_S = 0.75
"""How often it looks whether the job is still its own: what another replica cancelled stops within a second."""
_MAY_PASS = (Unavailable, DeadlineExceeded, ResourceExhausted, Aborted, Cancelled, Internal)
_OF_US = (Unavailable, ResourceExhausted, Cancelled)
"""What a part answers that is away, busy or ending, whoever asks."""
_PASSES = {"MODEL_QUARANTINED"}
"""Refusals that end by themselves within minutes, or with a new version, and that another's image may have caused."""
_DEADLY = {"RUNNER_DIED", "RUNNER_MEMORY"}
"""These may be the job's own doing nevertheless: what it is made of may have ended the process."""
_MEMORY_TRIES = 3
"""What ran out of memory is tried less often: each try may cost the tenant's runner."""
_log = logging.getLogger(__name__)


class Worker:
    """Does one job at a time, as often as it is called.

    Args:
        owner: Its name in leases, unlike any other's.
        registry: The operations.
        images: What goes in and what comes out.
        checkpoints: What attempts have got done.
        maker: Makes what is asked for.
        accounts: Account for what is not made.
        trace: A span of that name, in those traces.
    """

    def __init__(
        self,
        owner: str,
        *,
        registry: Registry,
        images: Images,
        checkpoints: Checkpoints,
        maker: Maker,
        accounts: Accounts,
        trace: Callable[[str, Sequence[str]], AbstractContextManager[None]],
    ) -> None:
        self._owner = owner
        self._registry = registry
        self._clock = registry.clock
        self._images = images
        self._checkpoints = checkpoints
        self._maker = maker
        self._accounts = accounts
        self._trace = trace

    async def work(self, operation: Operation) -> Operation:
        """Takes a job and works on it until it is done, or back in the queue.

        Returns:
            The operation as it is then.

        Raises:
            Aborted: Somebody else has it, or took it away.
            Unavailable: The store does not answer; the job is taken up again when the lease has ended.
        """
        attempt = await self._registry.change(operation.ref, lambda found: found.claim(self._owner, self._clock()))
        with self._trace(METHOD, [attempt.caller.traceparent]), charged_to(attempt.caller.subject):
            job = asyncio.create_task(self._perform(attempt))
            lease = asyncio.create_task(self._keep(attempt))
            try:
                await asyncio.wait([job, lease], return_when=asyncio.FIRST_COMPLETED)
                if not job.done():
                    job.cancel()
                    await asyncio.wait([job])
                    await lease  # raises why it was lost
                return await job
            except Aborted:
                await self._images.delete_result(attempt)
                await self._checkpoints.discard(attempt)
                raise
            finally:
                for task in (job, lease):
                    task.cancel()

    async def clear(self, operation: Operation) -> None:
        """Removes what a job leaves that has ended: its inputs, and what its attempts kept but for the result."""
        await self._checkpoints.clear(operation)
        await self._images.delete_results(operation, but_last=operation.result is not None)
        await self.abandon(operation.ref)

    async def abandon(self, ref: Ref) -> None:
        """Removes what was stored for a job."""
        await self._images.delete_inputs(ref)
        await self._registry.store.forget(ref)

    async def _perform(self, attempt: Operation) -> Operation:
        outcome: Fusion | FacetmeshError
        try:
            outcome = await self._maker.make(attempt)
        except FacetmeshError as error:
            if error.reason == "LEASE_LOST":
                raise
            outcome = error
        except Exception:  # noqa: BLE001 - a job must end, whatever it raises
            _log.exception("a job failed through our fault", extra={"operation": attempt.name})
            outcome = Internal("An internal error. It has been logged.")
        if isinstance(outcome, FacetmeshError):
            _log.info(
                "attempt failed",
                extra={"operation": attempt.name, "attempt": attempt.attempts, "reason": outcome.reason},
            )
            at_fault = _at_fault(outcome)
            if _may_repeat(attempt, outcome, at_fault=at_fault):
                return await self._registry.change(
                    attempt.ref, lambda found: found.release(attempt, self._clock(), at_fault=at_fault)
                )
            await self._accounts.failed(attempt, outcome)
        return await self._registry.change(attempt.ref, lambda found: found.finish(attempt, self._clock(), outcome))

    async def _keep(self, attempt: Operation) -> None:
        """Renews the lease until it is lost: then raises Aborted."""
        while True:
            # News of the operation may be that it was cancelled here.
            await self._registry.news(attempt.ref, LOOK_S)
            try:
                await self._registry.change(attempt.ref, functools.partial(self._renewed, attempt))
            except Unavailable:
                await asyncio.sleep(LOOK_S)

    def _renewed(self, attempt: Operation, found: Operation) -> Operation:
        """With the lease renewed, where a heartbeat is due: each stage renews it too."""
        renewed = found.advance(attempt, self._clock())
        return renewed if renewed.until_s - found.until_s >= HEARTBEAT_S else found


def _at_fault(error: FacetmeshError) -> bool:
    """Whether the job itself may have made an attempt fail."""
    of_us = isinstance(error, _OF_US) or error.reason in _PASSES
    return not of_us or error.reason in _DEADLY


def _may_repeat(attempt: Operation, error: FacetmeshError, *, at_fault: bool) -> bool:
    """Whether the work is begun again that ends with this error."""
    if attempt.cancelling or not (isinstance(error, _MAY_PASS) or error.reason in _PASSES):
        return False
    if not at_fault:
        return attempt.interruptions < MAX_INTERRUPTIONS
    return attempt.faults + 1 < (_MEMORY_TRIES if error.reason == "RUNNER_MEMORY" else MAX_FAULTS)
