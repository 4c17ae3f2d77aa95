"""One channel of a client's connection: its consumers, what they have not acknowledged yet, and the
message that the client is sending."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pika import frame, spec

from cib_flows.local.amqp.broker import Broker, Message, Queue

__all__ = ["Channel", "Consumer", "Refuse"]

log = logging.getLogger(__name__)

MAX_CONTENT = 12 * 1024 * 1024  # the service's 10 MB for a result, and what stands around it


@dataclass(eq=False)
class Consumer:
    queue: Queue
    tag: str
    no_ack: bool


@dataclass
class _Inbound:
    """A message that a client is sending."""

    exchange: str
    routing_key: str
    size: int | None = None
    body: bytearray = field(default_factory=bytearray)


class Refuse(Exception):
    """Close the channel, or with ``whole`` the connection, with a reply code and text."""

    def __init__(self, code: int, text: str, whole: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.whole = whole


class Channel:
    """:param send: puts a method on the wire
    :param wake: called when there may be something to deliver"""

    def __init__(
        self, broker: Broker, send: Callable[[Any], None], wake: Callable[[], None]
    ) -> None:
        self._broker = broker
        self._send = send
        self._wake = wake
        self._tags = itertools.count(1)
        self._prefetch = 0
        self._consumers: dict[str, Consumer] = {}
        self._unacknowledged: dict[int, tuple[Queue, Message]] = {}
        self._last_tag = 0
        self._inbound: _Inbound | None = None
        # How many messages the client published since it asked for confirmations; None if it did
        # not.
        self._published: int | None = None

    # -- deliveries ----------------------------------------------------------------------------

    def next_delivery(self) -> tuple[Consumer, Message] | None:
        """What one of the consumers may have now."""
        if self._prefetch and len(self._unacknowledged) >= self._prefetch:
            return None
        for consumer in self._consumers.values():
            if consumer.queue.ready:
                return consumer, consumer.queue.ready.popleft()
        return None

    def delivering(self, consumer: Consumer, message: Message) -> int:
        """Note that a message goes out, whose body has been fetched; returns its delivery tag."""
        self._last_tag += 1
        if consumer.no_ack:
            message.on_acknowledged()
        else:
            self._unacknowledged[self._last_tag] = (consumer.queue, message)
        return self._last_tag

    # -- methods -------------------------------------------------------------------------------

    def handle(self, method: Any) -> None:
        """Answer a method, but those that open and close the channel itself. Raises
        :class:`Refuse`."""
        handlers: dict[type, Callable[[Any], None]] = {
            spec.Queue.Declare: self._queue_declare,
            spec.Exchange.Declare: self._exchange_declare,
            spec.Confirm.Select: self._confirm,
            spec.Basic.Publish: self._publish,
            spec.Basic.Qos: self._qos,
            spec.Basic.Consume: self._consume,
            spec.Basic.Cancel: self._cancel,
            spec.Basic.Ack: self._acknowledge,
            spec.Basic.Nack: self._acknowledge,
            spec.Basic.Reject: self._acknowledge,
        }
        handler = handlers.get(type(method))
        if handler is None:
            raise Refuse(540, f"NOT_IMPLEMENTED - {method.NAME}")
        handler(method)

    def drop(self) -> None:
        """Let go of the queues; what was not acknowledged goes back to them."""
        for consumer in list(self._consumers.values()):
            self._drop_consumer(consumer)
        for queue, message in reversed(list(self._unacknowledged.values())):
            queue.put_back(message)

    def _drop_consumer(self, consumer: Consumer) -> None:
        del self._consumers[consumer.tag]
        consumer.queue.consumers.remove(self._wake)

    def _queue(self, name: str) -> Queue:
        queue = self._broker.find(name)
        if queue is None:
            raise Refuse(404, f"NOT_FOUND - no queue '{name}'")
        return queue

    def _queue_declare(self, method: Any) -> None:
        if not method.passive:
            raise Refuse(403, "ACCESS_REFUSED - queues are made by the service")
        queue = self._queue(method.queue)
        self._send(spec.Queue.DeclareOk(queue.name, len(queue.ready), len(queue.consumers)))

    def _exchange_declare(self, method: Any) -> None:
        if not method.passive:
            raise Refuse(403, "ACCESS_REFUSED - exchanges are made by the service")
        self._check_exchange(method.exchange)
        self._send(spec.Exchange.DeclareOk())

    def _check_exchange(self, name: str) -> None:
        if name not in self._broker.sinks:
            raise Refuse(404, f"NOT_FOUND - no exchange '{name}'")

    def _confirm(self, _: Any) -> None:
        self._published = self._published or 0
        self._send(spec.Confirm.SelectOk())

    def _publish(self, method: Any) -> None:
        if self._inbound is not None:
            raise Refuse(505, "UNEXPECTED_FRAME - a message within a message", whole=True)
        self._check_exchange(method.exchange)
        self._inbound = _Inbound(method.exchange, method.routing_key)

    def content(self, received: Any) -> None:
        """Take a header or body frame of a message that the client publishes."""
        inbound = self._inbound
        if inbound is None or isinstance(received, frame.Header) != (inbound.size is None):
            raise Refuse(505, "UNEXPECTED_FRAME - content without a publish", whole=True)
        if isinstance(received, frame.Header):
            inbound.size = int(received.body_size)
            if inbound.size > MAX_CONTENT:
                raise Refuse(311, "CONTENT_TOO_LARGE - a message may hold at most 10 MB")
        else:
            inbound.body += received.fragment
        if len(inbound.body) >= (inbound.size or 0):
            self._inbound = None
            self._take(inbound)

    def _take(self, inbound: _Inbound) -> None:
        """Hand a whole message to the service; confirm it once the service keeps it."""
        answer: Any = spec.Basic.Ack
        try:
            self._broker.sinks[inbound.exchange](bytes(inbound.body))
        except Exception:
            log.exception("a message to exchange %r could not be kept", inbound.exchange)
            answer = spec.Basic.Nack
        if self._published is not None:
            self._published += 1
            self._send(answer(self._published))

    def _qos(self, method: Any) -> None:
        self._prefetch = method.prefetch_count or 0
        self._send(spec.Basic.QosOk())

    def _consume(self, method: Any) -> None:
        queue = self._queue(method.queue)
        tag = method.consumer_tag or f"ctag-{next(self._tags)}"
        if tag in self._consumers:
            raise Refuse(530, f"NOT_ALLOWED - consumer tag '{tag}' is in use")
        if queue.consumers and (method.exclusive or queue.exclusive):
            raise Refuse(403, f"ACCESS_REFUSED - queue '{queue.name}' is in exclusive use")
        queue.exclusive = bool(method.exclusive)
        if not method.nowait:
            self._send(spec.Basic.ConsumeOk(tag))
        self._consumers[tag] = Consumer(queue, tag, bool(method.no_ack))
        queue.consumers.append(self._wake)
        self._wake()

    def _cancel(self, method: Any) -> None:
        consumer = self._consumers.get(method.consumer_tag)
        if consumer is not None:
            self._drop_consumer(consumer)
        self._send(spec.Basic.CancelOk(method.consumer_tag))

    def _acknowledge(self, method: Any) -> None:
        """Ack, Nack and Reject: settle one delivery, or all up to it."""
        tag: int = method.delivery_tag
        if getattr(method, "multiple", False):
            settled = [known for known in self._unacknowledged if known <= tag or tag == 0]
        else:
            settled = [tag] if tag in self._unacknowledged else []
            if not settled:
                raise Refuse(406, f"PRECONDITION_FAILED - unknown delivery tag {tag}")
        back = not isinstance(method, spec.Basic.Ack) and method.requeue
        for known in reversed(settled):
            queue, message = self._unacknowledged.pop(known)
            if back:
                queue.put_back(message)
            else:
                message.on_acknowledged()
        self._wake()
