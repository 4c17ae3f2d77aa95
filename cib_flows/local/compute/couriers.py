"""How messages reach endpoint daemons, and come back: by the embedded queue, or by a RabbitMQ."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from cib_flows.local.amqp.broker import Broker, Message

__all__ = ["Courier", "EmbeddedCourier", "Letter", "RabbitCourier"]

log = logging.getLogger(__name__)

RESULTS = "cib-flows.results"
HEARTBEATS = "cib-flows.heartbeats"
RECONNECT_PAUSE = 2.0


@dataclass(frozen=True)
class Letter:
    """A message for a daemon or one of its user endpoints. ``on_taken`` is called once it need not
    be sent again after a restart."""

    body: Callable[[], bytes]
    content_type: str = "application/octet-stream"
    headers: dict[str, Any] = field(default_factory=dict)
    on_taken: Callable[[], None] = lambda: None


class Courier(Protocol):
    """Queues that the service makes and fills, and two exchanges (``RESULTS``, ``HEARTBEATS``) on
    which endpoints answer."""

    keeps_letters: bool  # whether queues outlive the server, letters included

    def url(self) -> str:
        """Where daemons connect to, secret included."""
        ...

    async def start(
        self, on_result: Callable[[bytes], None], on_heartbeat: Callable[[bytes], None]
    ) -> None: ...

    async def stop(self) -> None: ...

    async def open(self, queue: str) -> None:
        """Have a queue of this name."""
        ...

    def send(self, queue: str, letter: Letter) -> None: ...


class EmbeddedCourier:
    """Letters by the queues in this process."""

    keeps_letters = False

    def __init__(self, broker: Broker, url: Callable[[], str]) -> None:
        self._broker = broker
        self.url = url

    async def start(
        self, on_result: Callable[[bytes], None], on_heartbeat: Callable[[bytes], None]
    ) -> None:
        self._broker.sinks = {RESULTS: on_result, HEARTBEATS: on_heartbeat}
        # Endpoints look these up before they publish; nothing is ever on them.
        for name in (RESULTS, HEARTBEATS):
            self._broker.declare(name)

    async def stop(self) -> None:
        self._broker.sinks = {}

    async def open(self, queue: str) -> None:
        self._broker.declare(queue)

    def send(self, queue: str, letter: Letter) -> None:
        properties: dict[str, Any] = {"content_type": letter.content_type}
        if letter.headers:
            properties["headers"] = letter.headers
        message = Message(
            letter.body, int(time.time()), on_acknowledged=letter.on_taken, properties=properties
        )
        self._broker.publish(queue, message)


class RabbitCourier:
    """Letters by a broker of its own, as the web service has one; reconnects for as long as it
    runs."""

    keeps_letters = True

    def __init__(self, address: str) -> None:
        self._address = address
        self._connection: Any = None
        self._channel: Any = None
        self._ready = asyncio.Event()
        self._stopped = False
        self._sinks: dict[str, Callable[[bytes], None]] = {}

    def url(self) -> str:
        return self._address

    async def start(
        self, on_result: Callable[[bytes], None], on_heartbeat: Callable[[bytes], None]
    ) -> None:
        self._sinks = {RESULTS: on_result, HEARTBEATS: on_heartbeat}
        self._connect()

    async def stop(self) -> None:
        self._stopped = True
        if self._connection is not None and self._connection.is_open:
            self._connection.close()
            for _ in range(100):
                if self._connection.is_closed:
                    return
                await asyncio.sleep(0.01)

    async def open(self, queue: str) -> None:
        await self._ready.wait()
        declared: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(_: Any) -> None:
            if not declared.done():
                declared.set_result(None)

        self._channel.queue_declare(queue, durable=True, callback=done)
        await declared

    def send(self, queue: str, letter: Letter) -> None:
        from pika import BasicProperties

        properties = BasicProperties(
            content_type=letter.content_type,
            delivery_mode=2,
            timestamp=int(time.time()),
            headers=letter.headers or None,
        )
        if not self._ready.is_set():
            log.warning("no connection to the broker: a message for %s stays here", queue)
            return
        self._channel.basic_publish("", queue, letter.body(), properties)
        letter.on_taken()

    # -- the connection ------------------------------------------------------------------------

    def _connect(self) -> None:
        from pika import URLParameters
        from pika.adapters.asyncio_connection import AsyncioConnection

        self._connection = AsyncioConnection(
            URLParameters(self._address),
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._opened),
            on_open_error_callback=self._lost,
            on_close_callback=self._lost,
        )

    def _lost(self, _: Any, problem: object) -> None:
        self._ready.clear()
        if not self._stopped:
            log.warning("the connection to the broker is lost (%s); trying again", problem)
            asyncio.get_running_loop().call_later(RECONNECT_PAUSE, self._connect)

    def _opened(self, channel: Any) -> None:
        self._channel = channel
        for name, sink in self._sinks.items():
            channel.exchange_declare(name, exchange_type="topic", durable=True)
            channel.queue_declare(name, durable=True)
            channel.queue_bind(name, name, "#")
            channel.basic_consume(name, self._taking(sink))
        # Methods are answered in order: by the answer to this one, all of the above is done.
        channel.basic_qos(prefetch_count=100, callback=lambda _: self._ready.set())

    def _taking(self, sink: Callable[[bytes], None]) -> Callable[[Any, Any, Any, bytes], None]:
        def take(channel: Any, method: Any, _: Any, body: bytes) -> None:
            try:
                sink(body)
            except Exception:
                log.exception("a message could not be kept; it stays with the broker")
                asyncio.get_running_loop().call_later(
                    RECONNECT_PAUSE, channel.basic_nack, method.delivery_tag
                )
            else:
                channel.basic_ack(method.delivery_tag)

        return take
