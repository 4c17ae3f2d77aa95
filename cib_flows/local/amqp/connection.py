"""One client's AMQP 0-9-1 connection, over pika's frame codec.

Clients consume and acknowledge here, and publish to the service's own exchanges. What this broker
does not do is refused with the protocol's own ``540 not implemented``, never passed over in silence.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pika import frame, spec
from pika.exceptions import AMQPError

from cib_flows.local.amqp.broker import Broker, Message, Queue

__all__ = ["Connection"]

log = logging.getLogger(__name__)

FRAME_MAX = 131_072
CHANNEL_MAX = 255
HEARTBEAT = 60
HANDSHAKE_LIMIT = 10.0
MAX_CONTENT = 12 * 1024 * 1024  # the service's 10 MB for a result, and what stands around it

_FRAME_OVERHEAD = 8
_CAPABILITIES = {
    "basic.nack": True,
    "publisher_confirms": True,
    "consumer_cancel_notify": True,
    "authentication_failure_close": True,
}


@dataclass(eq=False)
class _Consumer:
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


@dataclass(eq=False)
class _Channel:
    number: int
    prefetch: int = 0
    consumers: dict[str, _Consumer] = field(default_factory=dict)
    unacknowledged: dict[int, tuple[Queue, Message]] = field(default_factory=dict)
    last_tag: int = 0
    inbound: _Inbound | None = None
    # How many messages the client published since it asked for confirmations; None if it did not.
    published: int | None = None


class _Refuse(Exception):
    """Close the channel, or with ``whole`` the connection, with a reply code and text."""

    def __init__(self, code: int, text: str, whole: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.whole = whole


class Connection:
    def __init__(
        self,
        broker: Broker,
        user: str,
        password: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._broker = broker
        self._credentials = f"\0{user}\0{password}".encode()
        self._reader = reader
        self._writer = writer
        self._channels: dict[int, _Channel] = {}
        self._tags = itertools.count(1)
        self._work = asyncio.Event()
        self._open = False
        self._authenticated = False
        self._closing = False
        self._heartbeat = 0
        self._heard = 0.0

    async def run(self) -> None:
        """Serve the connection until either side ends it."""
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        helpers = [asyncio.ensure_future(self._pump()), asyncio.ensure_future(self._watch())]
        try:
            await self._read_frames()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            for helper in helpers:
                helper.cancel()
            for number in list(self._channels):
                self._drop_channel(number)
            self._writer.close()

    async def _read_frames(self) -> None:
        buffer = b""
        loop = asyncio.get_running_loop()
        while not self._closing:
            data = await self._reader.read(65536)
            if not data:
                return
            self._heard = loop.time()
            buffer += data
            while not self._closing:
                try:
                    used, received = frame.decode_frame(buffer)
                except (AMQPError, ValueError, IndexError) as problem:
                    self._close_connection(501, f"FRAME_ERROR - {type(problem).__name__}")
                    break
                if not used:
                    break
                buffer = buffer[used:]
                self._handle(received)
            if len(buffer) > FRAME_MAX:
                self._close_connection(501, "FRAME_ERROR - frame too large")
            await self._writer.drain()

    # -- deliveries ----------------------------------------------------------------------------

    async def _pump(self) -> None:
        """Deliver what the consumers may have, no faster than the client reads."""
        while True:
            await self._work.wait()
            self._work.clear()
            while (delivery := self._next_delivery()) is not None:
                self._deliver(*delivery)
                await self._writer.drain()

    def _next_delivery(self) -> tuple[_Channel, _Consumer, Message] | None:
        for channel in self._channels.values():
            if channel.prefetch and len(channel.unacknowledged) >= channel.prefetch:
                continue
            for consumer in channel.consumers.values():
                if consumer.queue.ready:
                    return channel, consumer, consumer.queue.ready.popleft()
        return None

    def _deliver(self, channel: _Channel, consumer: _Consumer, message: Message) -> None:
        channel.last_tag += 1
        tag = channel.last_tag
        body = message.body()
        if consumer.no_ack:
            message.on_acknowledged()
        else:
            channel.unacknowledged[tag] = (consumer.queue, message)
        method = spec.Basic.Deliver(consumer.tag, tag, message.redelivered, "", consumer.queue.name)
        properties = spec.BasicProperties(
            **{
                "content_type": "application/octet-stream",
                "delivery_mode": 2,
                "timestamp": message.timestamp,
                **message.properties,
            }
        )
        self._send(channel.number, method)
        self._writer.write(frame.Header(channel.number, len(body), properties).marshal())
        for start in range(0, len(body), FRAME_MAX - _FRAME_OVERHEAD):
            part = body[start : start + FRAME_MAX - _FRAME_OVERHEAD]
            self._writer.write(frame.Body(channel.number, part).marshal())

    async def _watch(self) -> None:
        """Send heartbeats, and give up on a client that sends none; at first, on one that does not
        log in."""
        await asyncio.sleep(HANDSHAKE_LIMIT)
        if not self._open:
            self._abort()
            return
        loop = asyncio.get_running_loop()
        while self._heartbeat:
            if loop.time() - self._heard > 2 * self._heartbeat + 5:
                log.info("an AMQP client went silent; closing its connection")
                self._abort()
                return
            self._writer.write(frame.Heartbeat().marshal())
            await asyncio.sleep(self._heartbeat / 2)

    # -- frames --------------------------------------------------------------------------------

    def _send(self, channel: int, method: Any) -> None:
        self._writer.write(frame.Method(channel, method).marshal())

    def _handle(self, received: Any) -> None:
        if isinstance(received, frame.ProtocolHeader):
            version = (received.major, received.minor, received.revision)
            if version != (0, 9, 1):
                self._writer.write(frame.ProtocolHeader().marshal())
                self._closing = True
                return
            properties = {"product": "cib-flows local", "capabilities": _CAPABILITIES}
            self._send(0, spec.Connection.Start(0, 9, properties, b"PLAIN", b"en_US"))
            return
        if isinstance(received, frame.Heartbeat):
            return
        try:
            if not isinstance(received, frame.Method):
                self._handle_content(received)
            elif received.channel_number == 0:
                self._handle_connection(received.method)
            else:
                self._handle_channel(received.channel_number, received.method)
        except _Refuse as refusal:
            method = getattr(received, "method", None)
            index: int = method.INDEX if method is not None else 0
            if refusal.whole:
                self._close_connection(refusal.code, refusal.text, index)
            else:
                self._drop_channel(received.channel_number)
                self._send(
                    received.channel_number,
                    spec.Channel.Close(refusal.code, refusal.text, index >> 16, index & 0xFFFF),
                )

    def _close_connection(self, code: int, text: str, index: int = 0) -> None:
        if not self._closing:
            self._send(0, spec.Connection.Close(code, text, index >> 16, index & 0xFFFF))
        self._closing = True

    def _abort(self) -> None:
        self._closing = True
        self._writer.transport.abort()

    def _handle_connection(self, method: Any) -> None:
        if isinstance(method, spec.Connection.StartOk):
            response = method.response
            given = response.encode() if isinstance(response, str) else bytes(response or b"")
            if method.mechanism != "PLAIN" or not hmac.compare_digest(given, self._credentials):
                raise _Refuse(403, "ACCESS_REFUSED - login was refused", whole=True)
            self._authenticated = True
            self._send(0, spec.Connection.Tune(CHANNEL_MAX, FRAME_MAX, HEARTBEAT))
        elif isinstance(method, spec.Connection.Close):
            self._send(0, spec.Connection.CloseOk())
            self._closing = True
        elif isinstance(method, spec.Connection.CloseOk):
            self._closing = True
        elif not self._authenticated:
            raise _Refuse(503, "COMMAND_INVALID - not logged in", whole=True)
        elif isinstance(method, spec.Connection.TuneOk):
            self._heartbeat = min(method.heartbeat or 0, HEARTBEAT)
        elif isinstance(method, spec.Connection.Open):
            self._open = True
            self._send(0, spec.Connection.OpenOk())
        else:
            raise _Refuse(540, f"NOT_IMPLEMENTED - {method.NAME}", whole=True)

    def _handle_channel(self, number: int, method: Any) -> None:
        if not self._open:
            raise _Refuse(503, "COMMAND_INVALID - the connection is not open", whole=True)
        if isinstance(method, spec.Channel.Open):
            if number in self._channels or number > CHANNEL_MAX:
                raise _Refuse(504, "CHANNEL_ERROR - no such channel number", whole=True)
            self._channels[number] = _Channel(number)
            self._send(number, spec.Channel.OpenOk())
            return
        if isinstance(method, spec.Channel.CloseOk):
            return
        channel = self._channels.get(number)
        if channel is None:
            # The protocol lets a client send on until it has read our Close; that is no error.
            return
        handlers: dict[type, Callable[[_Channel, Any], None]] = {
            spec.Channel.Close: self._channel_close,
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
            raise _Refuse(540, f"NOT_IMPLEMENTED - {method.NAME}")
        handler(channel, method)

    # -- methods -------------------------------------------------------------------------------

    def _channel_close(self, channel: _Channel, _: Any) -> None:
        self._drop_channel(channel.number)
        self._send(channel.number, spec.Channel.CloseOk())

    def _drop_channel(self, number: int) -> None:
        channel = self._channels.pop(number, None)
        if channel is None:
            return
        for consumer in list(channel.consumers.values()):
            self._drop_consumer(channel, consumer)
        for queue, message in reversed(list(channel.unacknowledged.values())):
            queue.put_back(message)

    def _drop_consumer(self, channel: _Channel, consumer: _Consumer) -> None:
        del channel.consumers[consumer.tag]
        consumer.queue.consumers.remove(self._work.set)

    def _queue(self, name: str) -> Queue:
        queue = self._broker.find(name)
        if queue is None:
            raise _Refuse(404, f"NOT_FOUND - no queue '{name}'")
        return queue

    def _queue_declare(self, channel: _Channel, method: Any) -> None:
        if not method.passive:
            raise _Refuse(403, "ACCESS_REFUSED - queues are made by the service")
        queue = self._queue(method.queue)
        self._send(
            channel.number,
            spec.Queue.DeclareOk(queue.name, len(queue.ready), len(queue.consumers)),
        )

    def _exchange_declare(self, channel: _Channel, method: Any) -> None:
        if not method.passive:
            raise _Refuse(403, "ACCESS_REFUSED - exchanges are made by the service")
        self._check_exchange(method.exchange)
        self._send(channel.number, spec.Exchange.DeclareOk())

    def _check_exchange(self, name: str) -> None:
        if name not in self._broker.sinks:
            raise _Refuse(404, f"NOT_FOUND - no exchange '{name}'")

    def _confirm(self, channel: _Channel, _: Any) -> None:
        channel.published = channel.published or 0
        self._send(channel.number, spec.Confirm.SelectOk())

    def _publish(self, channel: _Channel, method: Any) -> None:
        if channel.inbound is not None:
            raise _Refuse(505, "UNEXPECTED_FRAME - a message within a message", whole=True)
        self._check_exchange(method.exchange)
        channel.inbound = _Inbound(method.exchange, method.routing_key)

    def _handle_content(self, received: Any) -> None:
        channel = self._channels.get(received.channel_number)
        if channel is None:
            return  # sent before our Close was read
        inbound = channel.inbound
        if inbound is None or isinstance(received, frame.Header) != (inbound.size is None):
            raise _Refuse(505, "UNEXPECTED_FRAME - content without a publish", whole=True)
        if isinstance(received, frame.Header):
            inbound.size = int(received.body_size)
            if inbound.size > MAX_CONTENT:
                raise _Refuse(311, "CONTENT_TOO_LARGE - a message may hold at most 10 MB")
        else:
            inbound.body += received.fragment
        if len(inbound.body) >= (inbound.size or 0):
            channel.inbound = None
            self._take(channel, inbound)

    def _take(self, channel: _Channel, inbound: _Inbound) -> None:
        """Hand a whole message to the service; confirm it once the service keeps it."""
        answer: Any = spec.Basic.Ack
        try:
            self._broker.sinks[inbound.exchange](bytes(inbound.body))
        except Exception:
            log.exception("a message to exchange %r could not be kept", inbound.exchange)
            answer = spec.Basic.Nack
        if channel.published is not None:
            channel.published += 1
            self._send(channel.number, answer(channel.published))

    def _qos(self, channel: _Channel, method: Any) -> None:
        channel.prefetch = method.prefetch_count or 0
        self._send(channel.number, spec.Basic.QosOk())

    def _consume(self, channel: _Channel, method: Any) -> None:
        queue = self._queue(method.queue)
        tag = method.consumer_tag or f"ctag-{next(self._tags)}"
        if tag in channel.consumers:
            raise _Refuse(530, f"NOT_ALLOWED - consumer tag '{tag}' is in use")
        if queue.consumers and (method.exclusive or queue.exclusive):
            raise _Refuse(403, f"ACCESS_REFUSED - queue '{queue.name}' is in exclusive use")
        queue.exclusive = bool(method.exclusive)
        if not method.nowait:
            self._send(channel.number, spec.Basic.ConsumeOk(tag))
        channel.consumers[tag] = _Consumer(queue, tag, bool(method.no_ack))
        queue.consumers.append(self._work.set)
        self._work.set()

    def _cancel(self, channel: _Channel, method: Any) -> None:
        consumer = channel.consumers.get(method.consumer_tag)
        if consumer is not None:
            self._drop_consumer(channel, consumer)
        self._send(channel.number, spec.Basic.CancelOk(method.consumer_tag))

    def _acknowledge(self, channel: _Channel, method: Any) -> None:
        """Ack, Nack and Reject: settle one delivery, or all up to it."""
        tag: int = method.delivery_tag
        if getattr(method, "multiple", False):
            settled = [known for known in channel.unacknowledged if known <= tag or tag == 0]
        else:
            settled = [tag] if tag in channel.unacknowledged else []
            if not settled:
                raise _Refuse(406, f"PRECONDITION_FAILED - unknown delivery tag {tag}")
        back = not isinstance(method, spec.Basic.Ack) and method.requeue
        for known in reversed(settled):
            queue, message = channel.unacknowledged.pop(known)
            if back:
                queue.put_back(message)
            else:
                message.on_acknowledged()
        self._work.set()
