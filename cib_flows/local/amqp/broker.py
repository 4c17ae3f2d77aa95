"""Queues of messages, without a wire: what the AMQP server serves and the Compute service fills.

Only what the Compute service needs is here: named queues on the default exchange, consumers with a
prefetch limit, acknowledgements, requeueing; and exchanges whose messages go to the service itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Broker", "Message", "Queue"]


@dataclass(eq=False)
class Message:
    """A message whose body is fetched when it is delivered, so that waiting messages cost no
    memory."""

    body: Callable[[], bytes]
    timestamp: int
    on_acknowledged: Callable[[], None] = lambda: None
    redelivered: bool = False
    # AMQP properties beside the time: content type, headers.
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Queue:
    name: str
    ready: deque[Message] = field(default_factory=deque)
    # Called when there may be something to take; one for each consumer.
    consumers: list[Callable[[], None]] = field(default_factory=list)
    exclusive: bool = False

    def put(self, message: Message) -> None:
        self.ready.append(message)
        self.wake()

    def put_back(self, message: Message) -> None:
        message.redelivered = True
        self.ready.appendleft(message)
        self.wake()

    def wake(self) -> None:
        for notify in list(self.consumers):
            notify()


class Broker:
    """``restore`` is asked for a queue that a client names and this broker does not know, for
    instance after a restart: it returns what fills the queue, or None when there is no such
    queue.

    ``sinks`` are the exchanges that clients may publish to: each gets the body of every message, and
    returns once it is kept."""

    def __init__(self) -> None:
        self._queues: dict[str, Queue] = {}
        self.sinks: dict[str, Callable[[bytes], None]] = {}
        self.restore: Callable[[str], Callable[[], None] | None] = lambda name: None

    def declare(self, name: str) -> Queue:
        """The queue of this name; made, and filled with what it held before a restart, if need
        be."""
        found = self.find(name)
        if found is None:
            found = self._queues[name] = Queue(name)
        return found

    def find(self, name: str) -> Queue | None:
        if name not in self._queues:
            fill = self.restore(name)
            if fill is None:
                return None
            self._queues[name] = Queue(name)
            fill()
        return self._queues[name]

    def publish(self, name: str, message: Message) -> None:
        """Put a message on a queue. A queue that nobody asked for since the last restart is not
        made: it is filled from what is stored when its consumer comes."""
        queue = self._queues.get(name)
        if queue is not None:
            queue.put(message)
