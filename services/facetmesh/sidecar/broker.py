"""Publishing, and who gets what: each app that subscribes to a topic has its messages in a queue of its own."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from facetmesh.kit.store import StoreError
from facetmesh.sidecar import events, queue
from facetmesh.sidecar.events import Message, Published
from facetmesh.sidecar.queue import NOBODY, Queue, QueueName
from facetmesh.sidecar.resources import in_scope

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

    from facetmesh.kit.store import Store
    from facetmesh.sidecar.queue import Pending
    from facetmesh.sidecar.resources import Subscription
    from facetmesh.sidecar.schema import PubsubSettings

_log = logging.getLogger(__name__)


class TopicForbidden(Exception):
    """The app may not publish to the topic."""


@dataclass(frozen=True, slots=True)
class Subscribed:
    """One app's subscription and its queue."""

    app: str
    subscription: Subscription
    queue: Queue


class Broker:
    """One pub/sub component.

    Args:
        name: Its name.
        settings: What its component says.
        store: Where messages lie.
        apps: The apps there are.
        subscriptions: All subscriptions; those to other components are left out.
    """

    def __init__(
        self, name: str, settings: PubsubSettings, store: Store, apps: Iterable[str],
        subscriptions: Sequence[Subscription],
    ) -> None:  # fmt: skip
        self.name = name
        self.settings = settings
        self._store = store
        own = [subscription for subscription in subscriptions if subscription.pubsub == name]
        self.subscribed: tuple[Subscribed, ...] = tuple(
            Subscribed(app, subscription, Queue(store, QueueName(name, app, subscription.topic)))
            for app in apps
            for subscription in in_scope(own, app)
            if self._may_subscribe(app, subscription.topic)
        )
        """Who gets what."""
        queues: dict[str, list[Queue]] = {}
        for one in self.subscribed:
            queues.setdefault(one.subscription.topic, []).append(one.queue)
        self._queues: Mapping[str, list[Queue]] = queues

    async def start(self) -> None:
        """Gives the messages that waited for a subscriber to those there are now.

        Raises:
            StoreError: The file cannot be written.
        """

        def adopt(connection: sqlite3.Connection) -> None:
            for topic, queues in self._queues.items():
                for one in queues:
                    connection.execute(
                        "INSERT INTO messages (pubsub, app, topic, data, metadata)"
                        " SELECT pubsub, ?, topic, data, metadata FROM messages"
                        " WHERE pubsub = ? AND app = ? AND topic = ? ORDER BY seq",
                        (one.name.app, self.name, NOBODY, topic),
                    )
                connection.execute(
                    "DELETE FROM messages WHERE pubsub = ? AND app = ? AND topic = ?", (self.name, NOBODY, topic)
                )

        await self._store.run(adopt)

    async def publish(self, app: str, topic: str, published: Sequence[Published]) -> None:
        """Publishes events of an app. Once this returns, they are on the disk: all, or none if it raises.

        Raises:
            TopicForbidden: The app may not publish to the topic.
            EventError: One of them is no event.
            StoreError: They could not be written.
        """
        if not self.settings.may_publish(app, topic):
            raise TopicForbidden(f"topic {topic} is not allowed for app id {app}")
        messages = [events.message(one, app=app, pubsub=self.name, topic=topic) for one in published]
        targets = self._targets(topic)
        written = self._store.run(lambda connection: queue.insert(connection, targets, messages))
        # At once, because a publisher who gives up takes nothing back. Who looks now does so after it is written.
        self._tell(topic, len(messages))
        await written

    async def bury(self, one: Subscribed, pending: Pending, reason: str) -> None:
        """Settles a message that cannot be handled: to its dead-letter topic with the reason, else it is dropped.

        Raises:
            StoreError: It could not be written; the message is not settled.
        """
        topic = one.subscription.dead_letter_topic
        if not topic:
            await one.queue.done([pending])
            return
        died = {"deadletterreason": reason, "deadlettertopic": one.subscription.topic, "deadletterapp": one.app}
        message = Message(pending.message.data, {**pending.message.metadata, **died})
        await one.queue.move(pending, self._targets(topic), message)
        self._tell(topic, 1)

    async def tidy(self) -> None:
        """Makes room: forgets what was handled, and the oldest messages of topics without subscribers."""
        for one in self.subscribed:
            await one.queue.done(())
        try:
            await self._store.run(self._trim)
        except StoreError as error:
            _log.warning("old messages could not be deleted", extra={"detail": str(error)})

    def _trim(self, connection: sqlite3.Connection) -> None:
        topics = connection.execute(
            "SELECT DISTINCT topic FROM messages WHERE pubsub = ? AND app = ?", (self.name, NOBODY)
        ).fetchall()
        for (topic,) in topics:
            connection.execute(
                "DELETE FROM messages WHERE pubsub = :pubsub AND app = :app AND topic = :topic AND seq <= ("
                "SELECT seq FROM messages WHERE pubsub = :pubsub AND app = :app AND topic = :topic"
                " ORDER BY seq DESC LIMIT 1 OFFSET :most)",
                {"pubsub": self.name, "app": NOBODY, "topic": topic, "most": self.settings.max_len_approx},
            )

    def _targets(self, topic: str) -> list[QueueName]:
        return [one.name for one in self._queues.get(topic, ())] or [QueueName(self.name, NOBODY, topic)]

    def _tell(self, topic: str, count: int) -> None:
        for one in self._queues.get(topic, ()):
            one.arrived(count)

    def _may_subscribe(self, app: str, topic: str) -> bool:
        allowed = self.settings.may_subscribe(app, topic)
        if not allowed:
            _log.error("the app may not subscribe to the topic", extra={"app": app, "topic": topic})
        return allowed
