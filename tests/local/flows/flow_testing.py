"""A Flows service on a loopback port, providers that follow a script, and clients that speak to both."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import globus_sdk
import pytest
import uvicorn
from globus_sdk import FlowsAPIError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response

from cib_flows.local.actions import ActionRefused, ActionRequest, ActionStatus, Identity
from cib_flows.local.database import Database
from cib_flows.local.flows import FlowsService

COMPUTE = "https://compute.actions.globus.org/v3"
TRANSFER = "https://transfer.actions.globus.org/transfer"
NOW = "2026-01-02T03:04:05.000000+00:00"


def identity(name: str) -> Identity:
    number = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
    return Identity(number, f"{name}@example.org", f"{name}@mail.example.org")


class ScriptedProvider:
    """Answers each run with what ``script`` says about its body: a finished status and details, None for an action
    that stays ACTIVE until :meth:`finish`, or an exception to raise."""

    def __init__(self, script: Callable[[dict[str, Any]], Any] = lambda body: body) -> None:
        self.reset(script)

    def reset(self, script: Callable[[dict[str, Any]], Any] = lambda body: body) -> None:
        """Forget everything that happened."""
        self.script = script
        self.requests: list[ActionRequest] = []
        self.statuses: dict[str, ActionStatus] = {}
        self.by_request: dict[str, str] = {}
        self.cancelled: list[str] = []
        self.asked: list[str] = []
        self.begun = threading.Event()
        self._waiting: list[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run(self, request: ActionRequest) -> ActionStatus:
        self.requests.append(request)
        self.begun.set()
        if request.request_id in self.by_request:
            return self.statuses[self.by_request[request.request_id]]
        answer = self.script(request.body)
        if isinstance(answer, Exception):
            raise answer
        action_id = f"action-{len(self.statuses)}"
        self.by_request[request.request_id] = action_id
        name, details = (
            ("ACTIVE", {})
            if answer is None
            else answer
            if isinstance(answer, tuple)
            else ("SUCCEEDED", answer)
        )
        self.statuses[action_id] = status(action_id, name, details)
        return self.statuses[action_id]

    async def wait(self, action_id: str) -> ActionStatus:
        event = asyncio.Event()
        self._waiting.append((action_id, asyncio.get_running_loop(), event))
        while self.statuses[action_id].status == "ACTIVE":
            await event.wait()
        return self.statuses[action_id]

    async def status(self, action_id: str) -> ActionStatus:
        self.asked.append(action_id)
        return self.statuses[action_id]

    async def cancel(self, action_id: str) -> ActionStatus:
        self.cancelled.append(action_id)
        return self.statuses[action_id]

    def finish(self, action_id: str, name: str = "SUCCEEDED", details: Any = None) -> None:
        """End an action, from any thread."""
        self.statuses[action_id] = status(action_id, name, details or {})
        for waiting_for, loop, event in self._waiting:
            if waiting_for == action_id and not loop.is_closed():
                loop.call_soon_threadsafe(event.set)


def status(action_id: str, name: Any, details: Any) -> ActionStatus:
    ended = None if name in ("ACTIVE", "INACTIVE") else NOW
    return ActionStatus(action_id, name, details, name, NOW, ended)


def refused(text: str) -> ActionRefused:
    return ActionRefused(422, {"code": "ENDPOINT_NOT_ONLINE", "description": text})


async def _authenticate(request: Request, answer: Callable[[Request], Any]) -> Response:
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    if token:
        name, semicolon, scopes = token.partition(";")
        request.state.identity = identity(name)
        request.state.scopes = frozenset(scopes.split()) if semicolon else None
    response: Response = await answer(request)
    return response


class FlowsServer:
    """The service behind a real socket; tokens are the names of their bearers, perhaps with a
    semicolon and scopes."""

    def __init__(self, database: Path | str, providers: Mapping[str, Any], **options: Any) -> None:
        # With the protocol named, asyncio switches off the delay that would cost each answer 40 ms.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(256)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._database = Database(database)
        self.service = FlowsService(self._database, providers, self.url, **options)
        self.loop: asyncio.AbstractEventLoop | None = None
        ready = threading.Event()

        @contextlib.asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            self.loop = asyncio.get_running_loop()
            await self.service.start()
            ready.set()
            yield
            await self.service.stop()

        app = Starlette(
            routes=self.service.routes(),
            middleware=[Middleware(BaseHTTPMiddleware, dispatch=_authenticate)],
            lifespan=lifespan,
        )
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()
        assert ready.wait(30)

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        self._socket.close()
        self._database.close()

    def client(self, name: str = "alice") -> globus_sdk.FlowsClient:
        authorizer = globus_sdk.AccessTokenAuthorizer(name)
        return globus_sdk.FlowsClient(authorizer=authorizer, base_url=self.url)

    def flow_client(self, flow_id: str, name: str = "alice") -> globus_sdk.SpecificFlowClient:
        """The environment variable GLOBUS_SDK_SERVICE_URL_FLOWS must name this server."""
        return globus_sdk.SpecificFlowClient(
            flow_id, authorizer=globus_sdk.AccessTokenAuthorizer(name)
        )

    def rested(self, run_id: str) -> None:
        """Return when nothing more happens to the run by itself."""
        assert self.loop is not None
        asyncio.run_coroutine_threadsafe(self.service.settled(run_id), self.loop).result(60)

    def settled(self, run_id: str) -> dict[str, Any]:
        """The run when nothing more happens to it by itself."""
        self.rested(run_id)
        return dict(self.client().get_run(run_id).data)

    def flow(self, definition: Mapping[str, Any], schema: Mapping[str, Any] | None = None) -> str:
        created = self.client().create_flow("A flow", dict(definition), dict(schema or {}))
        return str(created["id"])

    def begin(self, definition: Mapping[str, Any], body: Mapping[str, Any] | None = None) -> str:
        """Create a flow and start it."""
        return str(self.flow_client(self.flow(definition)).run_flow(dict(body or {}))["run_id"])

    def run(
        self, definition: Mapping[str, Any], body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Create a flow, start it, and wait for its end."""
        return self.settled(self.begin(definition, body))

    def log(self, run_id: str) -> list[dict[str, Any]]:
        pages = self.client().paginated.get_run_logs(run_id, limit=100)
        return list(pages.items())

    def states(self, run_id: str) -> list[str]:
        """The states that a run entered, in their order."""
        return [
            entry["details"]["state_name"]
            for entry in self.log(run_id)
            if entry["code"].endswith("Started") and "state_name" in entry["details"]
        ]


def action(url: str = COMPUTE, **fields: Any) -> dict[str, Any]:
    """An Action state that says what the service leaves open."""
    return {
        "Type": "Action",
        "ActionUrl": url,
        "Parameters": {},
        "ResultPath": "$.result",
        "ExceptionOnActionFailure": True,
        **({} if "Next" in fields else {"End": True}),
        **fields,
    }


def one_state(state: Mapping[str, Any], **others: Mapping[str, Any]) -> dict[str, Any]:
    """A definition that begins with ``state``, called Only."""
    return {
        "StartAt": "Only",
        "States": {"Only": dict(state), **{name: dict(s) for name, s in others.items()}},
    }


@contextlib.contextmanager
def serving(
    database: Path | str, providers: Mapping[str, Any], **options: Any
) -> Iterator[FlowsServer]:
    server = FlowsServer(database, providers, **options)
    try:
        yield server
    finally:
        server.stop()


PASS = one_state({"Type": "Pass", "End": True})


def refusal(error: pytest.ExceptionInfo[FlowsAPIError]) -> dict[str, Any]:
    assert error.value.raw_json is not None
    return dict(error.value.raw_json)


def known_answer(module: Any, name: str) -> dict[str, Any]:
    """The answer of the hosted service as the SDK has kept it."""
    return dict(module.RESPONSES.lookup(name).json)
