"""One client's AMQP 0-9-1 connection, over pika's frame codec.

Clients consume and acknowledge here, and publish to the service's own exchanges. What this broker
does not do is refused with the protocol's own ``540 not implemented``, never passed over in silence.
"""

from __future__ import annotations

import asyncio
import functools
import hmac
import logging
from typing import Any

from pika import frame, spec
from pika.exceptions import AMQPError

from cib_flows.local.amqp.broker import Broker, Message
from cib_flows.local.amqp.channel import Channel, Consumer, Refuse

__all__ = ["Connection"]

log = logging.getLogger(__name__)

FRAME_MAX = 131_072
CHANNEL_MAX = 255
HEARTBEAT = 60
HANDSHAKE_LIMIT = 10.0

_FRAME_OVERHEAD = 8
_CAPABILITIES = {
    "basic.nack": True,
    "publisher_confirms": True,
    "consumer_cancel_notify": True,
    "authentication_failure_close": True,
}


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
        self._channels: dict[int, Channel] = {}
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

    def _next_delivery(self) -> tuple[int, Consumer, Message] | None:
        for number, channel in self._channels.items():
            if (found := channel.next_delivery()) is not None:
                return number, *found
        return None

    def _deliver(self, number: int, consumer: Consumer, message: Message) -> None:
        body = message.body()
        tag = self._channels[number].delivering(consumer, message)
        method = spec.Basic.Deliver(consumer.tag, tag, message.redelivered, "", consumer.queue.name)
        properties = spec.BasicProperties(
            **{
                "content_type": "application/octet-stream",
                "delivery_mode": 2,
                "timestamp": message.timestamp,
                **message.properties,
            }
        )
        self._send(number, method)
        self._writer.write(frame.Header(number, len(body), properties).marshal())
        for start in range(0, len(body), FRAME_MAX - _FRAME_OVERHEAD):
            part = body[start : start + FRAME_MAX - _FRAME_OVERHEAD]
            self._writer.write(frame.Body(number, part).marshal())

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
                channel = self._channels.get(received.channel_number)
                if channel is not None:  # else it was sent before our Close was read
                    channel.content(received)
            elif received.channel_number == 0:
                self._handle_connection(received.method)
            else:
                self._handle_channel(received.channel_number, received.method)
        except Refuse as refusal:
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
                raise Refuse(403, "ACCESS_REFUSED - login was refused", whole=True)
            self._authenticated = True
            self._send(0, spec.Connection.Tune(CHANNEL_MAX, FRAME_MAX, HEARTBEAT))
        elif isinstance(method, spec.Connection.Close):
            self._send(0, spec.Connection.CloseOk())
            self._closing = True
        elif isinstance(method, spec.Connection.CloseOk):
            self._closing = True
        elif not self._authenticated:
            raise Refuse(503, "COMMAND_INVALID - not logged in", whole=True)
        elif isinstance(method, spec.Connection.TuneOk):
            self._heartbeat = min(method.heartbeat or 0, HEARTBEAT)
        elif isinstance(method, spec.Connection.Open):
            self._open = True
            self._send(0, spec.Connection.OpenOk())
        else:
            raise Refuse(540, f"NOT_IMPLEMENTED - {method.NAME}", whole=True)

    def _handle_channel(self, number: int, method: Any) -> None:
        if not self._open:
            raise Refuse(503, "COMMAND_INVALID - the connection is not open", whole=True)
        if isinstance(method, spec.Channel.Open):
            if number in self._channels or number > CHANNEL_MAX:
                raise Refuse(504, "CHANNEL_ERROR - no such channel number", whole=True)
            self._channels[number] = Channel(
                self._broker, functools.partial(self._send, number), self._work.set
            )
            self._send(number, spec.Channel.OpenOk())
            return
        if isinstance(method, spec.Channel.CloseOk):
            return
        channel = self._channels.get(number)
        if channel is None:
            # The protocol lets a client send on until it has read our Close; that is no error.
            return
        if isinstance(method, spec.Channel.Close):
            self._drop_channel(number)
            self._send(number, spec.Channel.CloseOk())
            return
        channel.handle(method)

    def _drop_channel(self, number: int) -> None:
        channel = self._channels.pop(number, None)
        if channel is not None:
            channel.drop()
