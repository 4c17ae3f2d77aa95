"""The embedded Globus as one web application, and the process that serves it.

``python -m cib_flows.local.server --home DIR`` runs it in the foreground; ``cib-flows local start``
(:mod:`cib_flows.local.control`) puts it in the background.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import ExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from cib_flows.local import lean as lean
from cib_flows.local import login
from cib_flows.local.actions import ActionProvider
from cib_flows.local.amqp.broker import Broker
from cib_flows.local.amqp.server import AmqpServer
from cib_flows.local.auth import AuthService
from cib_flows.local.compute.couriers import Courier, EmbeddedCourier, RabbitCourier
from cib_flows.local.compute.provider import ComputeProvider
from cib_flows.local.compute.routes import compute_routes
from cib_flows.local.compute.service import ComputeService
from cib_flows.local.database import Database, DiskFull
from cib_flows.local.endpoint_files import install_endpoint
from cib_flows.local.faults import Faults, Unruly
from cib_flows.local.flows import FlowsService
from cib_flows.local.guard import Guard
from cib_flows.local.hello import HELLO_URL, HelloProvider
from cib_flows.local.home import Home, ServerRecord
from cib_flows.local.identities import Identities
from cib_flows.local.refusals import not_served, refusal
from cib_flows.local.search.provider import search_providers
from cib_flows.local.search.routes import search_routes
from cib_flows.local.search.service import SearchService
from cib_flows.local.transfer.consenting import ConsentingProvider
from cib_flows.local.transfer.https_access import https_routes
from cib_flows.local.transfer.provider import transfer_providers
from cib_flows.local.transfer.routes import transfer_routes
from cib_flows.local.transfer.service import TransferService

__all__ = ["LocalGlobus", "serve"]

COMPUTE_PORT = 5000

log = logging.getLogger(__name__)


class LocalGlobus:
    """All services of one home, composed."""

    def __init__(
        self, home: Home, record: Callable[[], ServerRecord], faults: Faults | None = None
    ) -> None:
        self.home = home
        self._faults = faults
        client = home.prepare()
        install_endpoint(home, home.write_site())
        self.database = Database(home.database_path)
        self.login = login.LoginDesk(home.path)
        self.auth = AuthService(
            client.signing_key, Identities.of_home(home), self.database, self.login
        )
        self.broker = Broker()
        self.amqp = AmqpServer(self.broker, user=client.client_id, password=client.queue_password)
        address = home.broker_url()
        courier: Courier = (
            RabbitCourier(address)
            if address is not None
            else EmbeddedCourier(self.broker, lambda: self.amqp.url(self._record().amqp_port))
        )
        self.compute = ComputeService(
            self.database, home, client.endpoint_id, self.auth.identity, self.broker, courier
        )
        if faults is not None:
            self.compute.befalls_result = faults.of_result
        self.transfer = TransferService(self.database, home, self.auth.identity)
        self.search = SearchService(self.database)
        compute_v3 = ComputeProvider(self.compute, version=3)
        compute_v2 = ComputeProvider(self.compute, version=2)
        providers: dict[str, ActionProvider] = {
            "https://compute.actions.globus.org/v3": compute_v3,
            "https://compute.actions.globus.org/v2": compute_v2,
            "https://compute.actions.globus.org": compute_v2,
            **{
                url: ConsentingProvider(
                    provider, self.transfer.collections, self.auth.consents, self.database
                )
                for url, provider in transfer_providers(self.transfer).items()
            },
            **search_providers(self.search),
            HELLO_URL: HelloProvider(self.database),
        }
        self.flows = FlowsService(
            self.database,
            providers,
            record().url,
            identify=lambda token: self.auth.identify(f"Bearer {token}"),
        )
        self._record = record
        if faults is not None:
            self.database.before_commit = faults.before_change
            self.database.after_commit = faults.after_change

    def application(self) -> ASGIApp:
        async def connection_url(request: Request) -> Response:
            return JSONResponse(
                {
                    "queue_prefix": self.compute.queue_prefix,
                    "connection_url": self.amqp.url(self._record().amqp_port),
                }
            )

        routes: list[Route] = [
            *self.auth.routes(),
            *self.login.routes(),
            Route("/v2/get_amqp_result_connection_url", connection_url, methods=["GET"]),
            *compute_routes(self.compute),
            *transfer_routes(self.transfer),
            *https_routes(self.transfer),
            *search_routes(self.search),
            *self.flows.routes(),
        ]
        app = Starlette(
            routes=routes,
            lifespan=self._lifespan,
            exception_handlers={
                404: _unknown,
                405: _unknown,
                DiskFull: _full,
                RecursionError: _too_deep,
                ClientDisconnect: _hung_up,
                500: _broken,
            },
        )
        guarded = Guard(app, self.auth)
        return Unruly(guarded, self._faults) if self._faults is not None else guarded

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        await self.compute.start()
        await self.transfer.start()
        await self.flows.start()
        try:
            yield
        finally:
            # Flows first: it asks the others; engines last: they need the longest.
            await self.flows.stop()
            await self.transfer.stop()
            await self.amqp.stop()
            await self.compute.stop()
            self.database.close()


async def _unknown(request: Request, problem: Exception) -> Response:
    return not_served(request.method, request.url.path, getattr(problem, "status_code", 404))


async def _full(request: Request, problem: Exception) -> Response:
    # Clients try again on this status; what they asked for was not done.
    return refusal(request.url.path, 503, "SERVICE_UNAVAILABLE", str(problem))


async def _hung_up(request: Request, _: Exception) -> Response:
    # Nobody reads it; a client that goes away in the middle of its request is no error of ours.
    return refusal(request.url.path, 400, "BAD_REQUEST", "The request broke off.")


async def _too_deep(request: Request, _: Exception) -> Response:
    return refusal(
        request.url.path, 400, "BAD_REQUEST", "The request's JSON is nested too deeply to be read."
    )


async def _broken(request: Request, problem: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=problem)
    message = "The local Globus failed; its server.log says how."
    return refusal(request.url.path, 500, "INTERNAL_ERROR", message)


# -- the process -------------------------------------------------------------------------------


def listen(ports: Iterable[int | None]) -> socket.socket:
    """A listening loopback socket on the first of ``ports`` that is free (0: any)."""
    problem: OSError | None = None
    for port in ports:
        if port is None:
            continue
        # With the protocol named, asyncio turns Nagle's algorithm off; without, every answer on a
        # connection that is kept open waits 40 ms for the client's delayed acknowledgement.
        candidate = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
            candidate.listen(512)
        except OSError as reason:
            candidate.close()
            problem = reason
            continue
        candidate.setblocking(False)
        return candidate
    raise problem or OSError("no port was named")


def listen_for_compute() -> socket.socket | None:
    """Port 5000, the only one that the Compute SDK knows for ``local``; None while another has
    it."""
    if _answers_on_ipv6(COMPUTE_PORT):
        return None  # "localhost" would lead the SDK there, not here
    try:
        return listen([COMPUTE_PORT])
    except OSError:
        return None


def _answers_on_ipv6(port: int) -> bool:
    try:
        with socket.create_connection(("::1", port), timeout=0.2):
            return True
    except OSError:
        return False


class _Server(uvicorn.Server):
    """Says when it answers, and sleeps while nobody asks anything: uvicorn's own loop wakes ten
    times a second."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started
        self._loop = asyncio.get_running_loop()
        self._told_to_stop = asyncio.Event()

    async def main_loop(self) -> None:
        await self._told_to_stop.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._loop.call_soon_threadsafe(self._told_to_stop.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_started()


async def serve(
    home: Home,
    port: int | None,
    with_compute_port: bool,
    announce: Callable[[ServerRecord], None],
    faults: Faults | None = None,
) -> None:
    """Serve ``home`` until SIGTERM or SIGINT. ``port`` is wished for; without a wish the last one
    is.

    The caller holds the home's lock.
    """
    last = home.last_record()
    web = listen([port] if port else [last.port if last else None, 0])
    compute = listen_for_compute() if with_compute_port else None
    record = ServerRecord(
        os.getpid(), web.getsockname()[1], COMPUTE_PORT if compute else None, None
    )
    globus = LocalGlobus(home, lambda: record, faults)
    amqp_port = await globus.amqp.start([last.amqp_port if last else None, 0])
    record = ServerRecord(record.pid, record.port, record.compute_port, amqp_port)

    def started() -> None:
        home.write_record(record)
        announce(record)

    config = uvicorn.Config(
        globus.application(),
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        timeout_graceful_shutdown=3,
        timeout_keep_alive=65,
        server_header=False,
        date_header=False,  # kept up to date by the loop that we do without
    )
    server = _Server(config, started)
    await server.serve([web, *([compute] if compute else [])])
    home.write_record(ServerRecord(None, record.port, None, record.amqp_port))
    if not server.started:
        raise SystemExit(1)


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the server process; ``--ready-fd`` gets one JSON line once it answers, or
    fails."""
    parser = argparse.ArgumentParser(prog="python -m cib_flows.local.server")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--port", type=int)
    parser.add_argument("--no-compute-port", action="store_true")
    parser.add_argument("--faults")
    parser.add_argument("--ready-fd", type=int)
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    os.umask(0o022)

    def tell(document: dict[str, Any]) -> None:
        if options.ready_fd is not None:
            with os.fdopen(options.ready_fd, "w") as stream:
                stream.write(json.dumps(document) + "\n")
        else:
            print(json.dumps(document), flush=True)

    # uvicorn takes these signals as the order to stop, and raises them again once it has: without
    # a handler of ours that would end the process before it could say that it was stopped.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    home = Home(options.home)
    home.prepare()
    with ExitStack() as held:
        # Nobody may take the last server's pid for ours meanwhile; control.start, which gives a
        # descriptor, sees to that itself.
        with home.alone() if options.ready_fd is None else nullcontext():
            was_free = held.enter_context(home.lock())
            if was_free:
                home.forget_last_server()
        if not was_free:
            tell({"error": f"Another server already serves {home.path}."})
            return 1
        try:
            asyncio.run(
                serve(
                    home,
                    options.port,
                    not options.no_compute_port,
                    lambda record: tell({"port": record.port}),
                    Faults(options.faults) if options.faults else None,
                )
            )
        except OSError as problem:
            tell(
                {
                    "error": f"The server could not listen on port {options.port}: {problem.strerror}."
                }
            )
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
