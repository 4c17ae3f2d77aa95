"""The result queues, through pika's own client."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pika
import pika.exceptions
import pytest

from cib_flows.local.amqp.broker import Broker, Message
from cib_flows.local.amqp.server import AmqpServer

USER, PASSWORD = "client", "secret"


@dataclass
class Running:
    """A broker whose loop runs in a thread."""

    loop: asyncio.AbstractEventLoop
    broker: Broker
    server: AmqpServer
    port: int
    acknowledged: list[bytes] = field(default_factory=list)

    def url(self, password: str = PASSWORD, options: str = "") -> str:
        return f"amqp://{USER}:{password}@127.0.0.1:{self.port}/%2F{options}"

    def connect(self) -> pika.BlockingConnection:
        return pika.BlockingConnection(pika.URLParameters(self.url()))

    def call(self, function: Callable[[], Any]) -> Any:
        """Run ``function`` on the broker's loop."""

        async def run() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10)

    def put(self, queue: str, *bodies: bytes) -> None:
        def publish() -> None:
            self.broker.declare(queue)
            for body in bodies:
                self.broker.publish(queue, self.message(body))

        self.call(publish)

    def message(self, body: bytes) -> Message:
        return Message(
            body=lambda: body,
            timestamp=int(time.time()),
            on_acknowledged=lambda: self.acknowledged.append(body),
        )

    def ready(self, queue: str) -> int:
        found: int = self.call(lambda: len(self.broker.declare(queue).ready))
        return found


@pytest.fixture
def running() -> Iterator[Running]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    broker = Broker()
    server = AmqpServer(broker, USER, PASSWORD)
    port = asyncio.run_coroutine_threadsafe(server.start([0]), loop).result(10)
    yield Running(loop, broker, server, port)
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def take(channel: Any, queue: str, count: int, **options: Any) -> list[tuple[Any, bytes]]:
    """The next messages of a queue."""
    found = []
    for method, _, body in channel.consume(queue, inactivity_timeout=10, **options):
        assert method is not None, "no message came"
        found.append((method, body))
        if len(found) == count:
            return found
    raise AssertionError("the consumer was cancelled")


def test_messages_come_in_order_whatever_their_size(running: Running) -> None:
    bodies = [b"", b"small", b"x" * 131_064, b"y" * 131_065, b"z" * 3_000_000]
    running.put("q", *bodies)
    with running.connect() as connection:
        channel = connection.channel()
        assert [body for _, body in take(channel, "q", len(bodies))] == bodies


def test_a_message_published_later_is_delivered_at_once(running: Running) -> None:
    running.put("q")
    with running.connect() as connection:
        channel = connection.channel()
        running.call(
            lambda: running.loop.call_later(
                0.05, lambda: running.broker.publish("q", running.message(b"late"))
            )
        )
        assert take(channel, "q", 1)[0][1] == b"late"


def test_what_was_not_acknowledged_comes_again(running: Running) -> None:
    running.put("q", b"1", b"2", b"3")
    with running.connect() as connection:
        channel = connection.channel()
        taken = take(channel, "q", 3)
        channel.basic_ack(taken[0][0].delivery_tag)
        channel.close()
    assert running.acknowledged == [b"1"]
    with running.connect() as connection:
        channel = connection.channel()
        again = take(channel, "q", 2)
        assert [(method.redelivered, body) for method, body in again] == [
            (True, b"2"),
            (True, b"3"),
        ]
        channel.basic_ack(again[-1][0].delivery_tag, multiple=True)
    assert sorted(running.acknowledged) == [b"1", b"2", b"3"]


TAKE_ONE = """
import sys, pika
channel = pika.BlockingConnection(pika.URLParameters(sys.argv[1])).channel()
for _, _, body in channel.consume("q"):
    print(body.decode(), flush=True)
"""


def test_a_killed_client_gives_its_messages_back(running: Running) -> None:
    running.put("q", b"1")
    with subprocess.Popen(
        [sys.executable, "-c", TAKE_ONE, running.url()], stdout=subprocess.PIPE
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"1\n"
        client.kill()
    with running.connect() as other:
        method, body = take(other.channel(), "q", 1)[0]
        assert (method.redelivered, body) == (True, b"1")
    assert running.acknowledged == []


def test_a_rejected_message_comes_again_or_not_as_asked(running: Running) -> None:
    running.put("q", b"1", b"2")
    with running.connect() as connection:
        channel = connection.channel()
        first, second = take(channel, "q", 2)
        channel.basic_nack(first[0].delivery_tag, requeue=True)
        channel.basic_reject(second[0].delivery_tag, requeue=False)
        assert take(channel, "q", 1)[0][1] == b"1"
    assert running.acknowledged == [b"2"]


def test_no_more_is_sent_than_the_prefetch_limit(running: Running) -> None:
    running.put("q", *[b"%d" % number for number in range(5)])
    with running.connect() as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=2)
        taken: list[Any] = []
        channel.basic_consume("q", lambda _c, method, _p, _b: taken.append(method))
        while len(taken) < 2:
            connection.process_data_events(time_limit=0.1)
        assert running.ready("q") == 3
        channel.basic_ack(taken[0].delivery_tag)
        while len(taken) < 3:
            connection.process_data_events(time_limit=0.1)
        assert running.ready("q") == 2


def test_a_wrong_password_is_refused(running: Running) -> None:
    for password in ("guess", "", "secret%00"):
        with pytest.raises(pika.exceptions.ProbableAuthenticationError):
            pika.BlockingConnection(pika.URLParameters(running.url(password)))


def test_an_unknown_queue_is_not_made(running: Running) -> None:
    with running.connect() as connection:
        for use in (
            lambda channel: channel.basic_consume("nowhere", print),
            lambda channel: channel.queue_declare("nowhere", passive=True),
        ):
            with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
                use(connection.channel())
            assert closed.value.reply_code == 404


def test_what_is_not_implemented_is_refused_aloud(running: Running) -> None:
    running.put("q")
    with running.connect() as connection:
        for use, code in (
            (lambda channel: channel.exchange_declare("e"), 403),
            (lambda channel: channel.queue_purge("q"), 540),
            (lambda channel: channel.queue_declare("mine"), 403),
        ):
            with pytest.raises(pika.exceptions.ChannelClosedByBroker) as closed:
                use(connection.channel())
            assert closed.value.reply_code == code


def test_a_restored_queue_holds_what_was_left(running: Running) -> None:
    def restore(name: str) -> Callable[[], None] | None:
        if name != "old":
            return None
        return lambda: running.broker.publish("old", running.message(b"kept"))

    running.broker.restore = restore
    with running.connect() as connection:
        assert take(connection.channel(), "old", 1)[0][1] == b"kept"


@pytest.mark.parametrize(
    "noise",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"AMQP\x00\x00\x09\x01" + b"\xff" * 40,
        b"AMQP\x00\x00\x09\x01\x01\x00\x00\x7f\xff\xff\xff" + b"x" * 200_000,
        b"AMQP\x00\x00\x08\x00",
    ],
    ids=["http", "garbage", "huge frame", "another version"],
)
def test_noise_closes_its_own_connection_only(running: Running, noise: bytes) -> None:
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as stranger:
        try:
            stranger.sendall(noise)
            stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(65536):
                pass
        except ConnectionError:
            pass  # closed while we were still talking
    running.put("q", b"fine")
    with running.connect() as connection:
        assert take(connection.channel(), "q", 1)[0][1] == b"fine"


def test_nothing_is_done_before_the_login(running: Running) -> None:
    from pika import frame, spec

    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as stranger:
        stranger.sendall(frame.ProtocolHeader().marshal())
        stranger.sendall(frame.Method(0, spec.Connection.Open("/")).marshal())
        received = b""
        while chunk := stranger.recv(65536):
            received += chunk
    assert b"not logged in" in received
