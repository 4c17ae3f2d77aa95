"""The broker's loopback socket."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from urllib.parse import quote

from cib_flows.local.amqp.broker import Broker
from cib_flows.local.amqp.connection import Connection

__all__ = ["AmqpServer"]


class AmqpServer:
    """Accepts AMQP 0-9-1 connections of the one user of a home."""

    def __init__(self, broker: Broker, user: str, password: str) -> None:
        self._broker = broker
        self._user = user
        self._password = password
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, ports: Iterable[int | None]) -> int:
        """Listen on the first of ``ports`` that is free (0: any); returns it."""
        problem: OSError | None = None
        for port in ports:
            if port is None:
                continue
            try:
                self._server = await asyncio.start_server(self._accept, "127.0.0.1", port)
            except OSError as reason:
                problem = reason
                continue
            found: int = self._server.sockets[0].getsockname()[1]
            return found
        raise problem or OSError("no port was named")

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def url(self, port: int | None) -> str:
        """The connection URL, secret included, as the Compute service hands it to its clients."""
        return f"amqp://{quote(self._user)}:{quote(self._password)}@127.0.0.1:{port}/%2F"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await Connection(self._broker, self._user, self._password, reader, writer).run()
        except asyncio.CancelledError:
            pass  # the server is stopping
        finally:
            self._connections.discard(task)
