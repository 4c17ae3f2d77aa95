"""Endpoints that daemons registered: commands to start user endpoints, their tasks, their
heartbeats.

An endpoint daemon is told over its command queue to start a user endpoint for each distinct
configuration; that one takes tasks from a queue of its own and answers on the results exchange.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cib_flows.local.actions import Identity
from cib_flows.local.compute.couriers import HEARTBEATS, RESULTS, Courier, Letter
from cib_flows.local.compute.endpoint_store import EndpointStore, Registration
from cib_flows.local.compute.user_processes import (
    ConfigurationRefused,
    EngineTask,
    configuration_key,
)
from cib_flows.local.compute.wire import pack_task

__all__ = ["DaemonEndpoints"]

log = logging.getLogger(__name__)

# How long a submission is held until its user endpoint has said that it is up, or why it is not.
HOLD_LIMIT = 60.0
COMMAND_PAUSE = 20.0
SLACK = 5.0


@dataclass(eq=False)
class _User:
    """One user endpoint, as its heartbeats tell."""

    id: str
    endpoint_id: str
    config: dict[str, Any]
    runtime: dict[str, Any]
    identity: Identity
    seen: float = 0.0
    period: float = 30.0
    active: bool = False
    figures: dict[str, Any] = field(default_factory=dict)
    commanded: float = -COMMAND_PAUSE
    waiters: set[asyncio.Future[str | None]] = field(default_factory=set)

    @property
    def queue(self) -> str:
        return f"{self.id}.tasks"

    @property
    def alive(self) -> bool:
        return self.active and time.monotonic() - self.seen < 3 * self.period + SLACK

    def tell(self, problem: str | None) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(problem)


class DaemonEndpoints:
    """``on_result`` gets a result's task id and message text; ``on_lost`` the id of a task that will
    have none, and why. ``waiting`` lists the open tasks of one user endpoint, as (task, taken)."""

    def __init__(
        self,
        store: EndpointStore,
        courier: Courier,
        on_result: Callable[[str, str], None],
        on_lost: Callable[[str, str], None],
        on_taken: Callable[[str, str], None],
        waiting: Callable[[str], list[tuple[EngineTask, bool]]],
    ) -> None:
        self.store = store
        self._courier = courier
        self._on_result = on_result
        self._on_lost = on_lost
        self._on_taken = on_taken
        self._waiting = waiting
        self._users: dict[str, _User] = {}
        self._seen: dict[str, tuple[float, float]] = {}  # endpoint: (when, period)

    async def start(self) -> None:
        await self._courier.start(self._take_result, self._take_heartbeat)

    async def stop(self) -> None:
        for user in self._users.values():
            user.tell("The local Globus is shutting down.")
        await self._courier.stop()

    # -- registration --------------------------------------------------------------------------

    async def register(self, registration: Registration) -> dict[str, Any]:
        """Keep a registration, and answer with the queues that its daemon is to use."""
        self.store.save(registration)
        queue = f"{registration.id}.commands"
        await self._courier.open(queue)
        return {
            "endpoint_id": registration.id,
            "command_queue_info": {
                "connection_url": self._courier.url(),
                "exchange": "",
                "queue": queue,
            },
            "heartbeat_queue_info": self._publishing(HEARTBEATS, registration.id),
        }

    def online(self, endpoint_id: str) -> bool:
        when, period = self._seen.get(endpoint_id, (0.0, 0.0))
        return period > 0 and time.monotonic() - when < 3 * period + SLACK

    def figures(self, endpoint_id: str) -> dict[str, Any]:
        """What the endpoint's user endpoints last said of themselves, added up."""
        alive = [
            user for user in self._users.values() if user.endpoint_id == endpoint_id and user.alive
        ]
        names = ("managers", "total_workers", "idle_workers", "pending_tasks", "outstanding_tasks")
        return {name: sum(_count(user.figures.get(name)) for user in alive) for name in names}

    def _publishing(self, exchange: str, routing_key: str) -> dict[str, Any]:
        return {
            "connection_url": self._courier.url(),
            "exchange": exchange,
            "queue": exchange,
            "queue_publish_kwargs": {
                "exchange": exchange,
                "routing_key": routing_key,
                "mandatory": True,
                "properties": {"delivery_mode": 2},
            },
        }

    # -- tasks ---------------------------------------------------------------------------------

    def place(
        self,
        endpoint_id: str,
        config: Mapping[str, Any],
        runtime: Mapping[str, Any],
        identity: Identity,
    ) -> str:
        """The id of an identity's user endpoint for this configuration: the same for the same."""
        words = [endpoint_id, identity.id, configuration_key(config), configuration_key(runtime)]
        found = str(uuid.uuid5(uuid.NAMESPACE_URL, "\n".join(words)))
        if found not in self._users:
            self._users[found] = _User(found, endpoint_id, dict(config), dict(runtime), identity)
        return found

    def resume(
        self,
        endpoint_id: str,
        config: Mapping[str, Any],
        runtime: Mapping[str, Any],
        identity: Identity,
    ) -> None:
        """Expect a user endpoint that was at work when the last server ended; it connects again."""
        user = self._users[self.place(endpoint_id, config, runtime, identity)]
        user.active, user.seen = True, time.monotonic()

    async def ready(self, place: str) -> None:
        """Have the user endpoint started. Raises :class:`ConfigurationRefused` when the endpoint
        says that it will not; returns without it when the endpoint is not there to be asked: tasks
        then wait."""
        user = self._users[place]
        await self._courier.open(user.queue)
        if not self.online(user.endpoint_id):
            return
        # Each submission commands a start, as the web service does: the endpoint ignores what runs
        # already, and remembers it for one that is about to end.
        self._command(user)
        if user.alive:
            return
        waiter: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        user.waiters.add(waiter)
        try:
            problem = await asyncio.wait_for(waiter, HOLD_LIMIT)
        except asyncio.TimeoutError:
            return
        finally:
            user.waiters.discard(waiter)
        if problem is not None:
            raise ConfigurationRefused(problem)

    def dispatch(self, place: str, tasks: list[EngineTask]) -> None:
        for task in tasks:
            self._courier.send(self._users[place].queue, self._letter(place, task))

    def _letter(self, place: str, task: EngineTask) -> Letter:
        headers: dict[str, Any] = {
            "function_uuid": task.function_id,
            "task_uuid": task.task_id,
            "resource_specification": json.dumps(task.resource_specification),
        }
        if task.result_serializers:
            headers["result_serializers"] = task.result_serializers
        return Letter(
            body=lambda: pack_task(task.task_id, task.buffer),
            headers=headers,
            on_taken=lambda: self._on_taken(task.task_id, place),
        )

    def refill(self, queue: str) -> Callable[[], None] | None:
        """For a queue that the embedded broker lost with the last server: what fills it again."""
        name, _, kind = queue.rpartition(".")
        if kind == "commands" and self.store.get(name) is not None:
            return lambda: None  # a command that nobody took is given again, or too old
        if kind != "tasks" or not (name in self._users or self._waiting(name)):
            return None

        def fill() -> None:
            for task, taken in self._waiting(name):
                if not taken:
                    self._courier.send(queue, self._letter(name, task))

        return fill

    def _command(self, user: _User) -> None:
        user.commanded = time.monotonic()
        credentials = {
            "endpoint_id": user.id,
            "task_queue_info": {
                "connection_url": self._courier.url(),
                "exchange": "",
                "queue": user.queue,
            },
            "result_queue_info": self._publishing(RESULTS, user.id),
            "heartbeat_queue_info": self._publishing(HEARTBEATS, user.id),
        }
        identity = user.identity
        body = {
            "command": "cmd_start_endpoint",
            "args": [],
            "kwargs": {
                "name": f"uep.{user.endpoint_id}.{user.id}",
                "user_opts": user.config,
                "user_runtime": user.runtime,
                "amqp_creds": credentials,
            },
            "globus_effective_identity": identity.id,
            "globus_identity_set": [
                {
                    "sub": identity.id,
                    "id": identity.id,
                    "username": identity.username,
                    "name": identity.username,
                    "email": identity.email,
                    "status": "used",
                    "organization": None,
                    "identity_provider": str(uuid.UUID(int=0)),
                }
            ],
            "globus_username": identity.username,
        }
        packed = json.dumps(body).encode()
        letter = Letter(body=lambda: packed, content_type="application/json")
        self._courier.send(f"{user.endpoint_id}.commands", letter)

    # -- what endpoints say --------------------------------------------------------------------

    def _take_result(self, body: bytes) -> None:
        message = json.loads(body[1:])
        if message.get("message_type") == "result":
            self._on_result(str(message["data"]["task_id"]), body[1:].decode())

    def _take_heartbeat(self, body: bytes) -> None:
        message = json.loads(body[1:])
        if message.get("message_type") != "ep_status_report":
            return
        data = message["data"]
        state = data.get("global_state") or data.get("ep_status_report") or {}
        sender = str(data["endpoint_id"])
        if self.store.get(sender) is not None:
            self._seen[sender] = (time.monotonic(), float(state.get("heartbeat_period") or 0))
            self._look_after(sender)
        elif sender in self._users:
            self._hear(self._users[sender], state)

    def _hear(self, user: _User, state: dict[str, Any]) -> None:
        user.seen = time.monotonic()
        if state.get("error"):
            user.active = False
            problem = " ".join(str(state["error"]).split())
            user.tell(problem)
            for task, _ in self._waiting(user.id):
                self._on_lost(task.task_id, f"The endpoint did not start for this task: {problem}")
            return
        user.period = float(state.get("heartbeat_period") or user.period)
        user.active = bool(state.get("active", True))
        user.figures = state
        if user.active:
            user.tell(None)

    def _look_after(self, endpoint_id: str) -> None:
        """Have user endpoints started whose tasks wait; answer for tasks of those that fell
        silent."""
        for user in self._users.values():
            if user.endpoint_id != endpoint_id or user.alive:
                continue
            waiting = self._waiting(user.id)
            for task, taken in waiting:
                if taken and not self._courier.keeps_letters:
                    self._on_lost(
                        task.task_id,
                        "The user endpoint process stopped answering while this task was under way.",
                    )
            unfinished = self._courier.keeps_letters or not all(taken for _, taken in waiting)
            if waiting and unfinished and time.monotonic() - user.commanded > COMMAND_PAUSE:
                self._command(user)


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0
