"""Brings messages to an app until each is handled, given up, or the process ends."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facetmesh.kit.store import StoreError
from facetmesh.sidecar.channel import Outcome, Result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from facetmesh.sidecar.broker import Broker, Subscribed
    from facetmesh.sidecar.channel import AppChannel
    from facetmesh.sidecar.metrics import Metrics
    from facetmesh.sidecar.queue import Pending
    from facetmesh.sidecar.retry import RetryPolicy

_MOST_DEATHS = 5
"""A message over which the app has gone away so often is taken to be the cause."""
_PAUSE_S = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """How an app's deliveries are done."""

    retry: RetryPolicy
    timeout_s: float
    """How long the app may take for one delivery, in seconds."""
    concurrency: int
    """How many deliveries are under way at once."""


class Delivery:
    """Brings one subscription's messages to one replica of its app.

    Replicas of an app take from the same queue: each message goes to one of them.

    Args:
        broker: Whose messages they are.
        subscribed: The subscription.
        channel: The way to the replica.
        terms: How it is done.
        metrics: Counts what becomes of the messages.
    """

    def __init__(
        self, broker: Broker, subscribed: Subscribed, channel: AppChannel, terms: Terms, metrics: Metrics
    ) -> None:
        self._broker = broker
        self._subscribed = subscribed
        self._channel = channel
        self._terms = terms
        self._metrics = metrics
        self._where = {"app": subscribed.app, "topic": subscribed.subscription.topic}
        self._under_way: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Delivers until stop is called; returns when what was under way has been settled."""
        workers = [asyncio.create_task(self._work()) for _ in range(self._terms.concurrency)]
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({stopping, *workers}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (stopping, *workers):
                task.cancel()
            results = await asyncio.gather(stopping, *workers, return_exceptions=True)
            await asyncio.gather(*self._under_way)
        for result in results:
            if isinstance(result, Exception):
                raise result

    def stop(self) -> None:
        """Takes no more messages."""
        self._stopping.set()

    async def _work(self) -> None:
        while True:
            delivering = asyncio.create_task(self._deliver(await self._take()))
            self._under_way.add(delivering)
            delivering.add_done_callback(self._under_way.discard)
            # Whoever stops us does not stop a delivery half-way: the app may have done its work.
            await asyncio.shield(delivering)

    async def _take(self) -> Sequence[Pending]:
        subscription, queue = self._subscribed.subscription, self._subscribed.queue
        while True:
            await self._channel.ready()
            batch = await queue.take(subscription.largest_batch, subscription.patience_s)
            if self._channel.is_ready:  # it may have gone while we waited for messages
                return batch
            queue.put_back(batch)

    async def _deliver(self, batch: Sequence[Pending]) -> None:
        try:
            outcomes = await self._channel.deliver(self._subscribed.subscription, batch, self._terms.timeout_s)
        except Exception as error:  # noqa: BLE001 - one event that breaks us must not stop the others
            _log.exception("a delivery failed in the sidecar itself", extra=self._where)
            outcomes = [Outcome(Result.FAILED, f"{type(error).__name__}: {error}")] * len(batch)
        self._count(outcomes)
        handled = []
        not_tried = []
        for pending, outcome in zip(batch, outcomes, strict=True):
            match outcome.result:
                case Result.HANDLED:
                    handled.append(pending)
                case Result.NOT_TRIED:
                    not_tried.append(pending)
                case Result.REFUSED:
                    await self._bury(pending, outcome.reason)
                case Result.DIED:
                    await self._died(pending, outcome.reason)
                case Result.FAILED:
                    await self._failed(pending, outcome.reason)
        if handled:
            await self._subscribed.queue.done(handled)
        if not_tried:
            _log.error("the app refuses our token", extra=self._where)
            self._subscribed.queue.put_back(not_tried)
            await asyncio.sleep(_PAUSE_S)

    def _count(self, outcomes: Sequence[Outcome]) -> None:
        for result, number in Counter(outcome.result for outcome in outcomes).items():
            self._metrics.deliveries.labels(**self._where, result=result.name.lower()).inc(number)

    async def _died(self, pending: Pending, reason: str) -> None:
        pending.deaths += 1
        if pending.deaths < _MOST_DEATHS:
            # Not at once: the connection may not yet know that it has ended, and would count a second death.
            self._subscribed.queue.put_off(pending, _PAUSE_S)
        else:
            await self._bury(pending, f"the app went away {pending.deaths} times over it: {reason}")

    async def _failed(self, pending: Pending, reason: str) -> None:
        pending.failures += 1
        if self._terms.retry.allows(pending.failures):
            if pending.failures == 1:
                details = {**self._where, "seq": pending.seq, "reason": reason}
                _log.warning("an event will be tried again", extra=details)
            self._subscribed.queue.put_off(pending, self._terms.retry.delay_s(pending.failures))
        else:
            await self._bury(pending, f"given up after {pending.failures} tries: {reason}")

    async def _bury(self, pending: Pending, reason: str) -> None:
        try:
            await self._broker.bury(self._subscribed, pending, reason)
        except StoreError as error:
            _log.error("a dead letter could not be written", extra={**self._where, "detail": str(error)})
            self._subscribed.queue.put_off(pending, _PAUSE_S)
            return
        target = self._subscribed.subscription.dead_letter_topic
        self._metrics.dead_letters.labels(**self._where, target=target).inc()
        _log.error(
            "an event was given up", extra={**self._where, "seq": pending.seq, "reason": reason, "moved_to": target}
        )
