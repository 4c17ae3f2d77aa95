"""The Compute service: registers functions, takes tasks, hands them to engines, keeps their
results."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cib_flows.local.actions import Identity
from cib_flows.local.amqp.broker import Broker, Message
from cib_flows.local.compute import wire
from cib_flows.local.compute.allow_lists import registered_allow_list
from cib_flows.local.compute.couriers import Courier
from cib_flows.local.compute.daemons import DaemonEndpoints
from cib_flows.local.compute.endpoint_store import EndpointStore
from cib_flows.local.compute.engines import UserEndpoints
from cib_flows.local.compute.sites import SiteEndpoints
from cib_flows.local.compute.store import ComputeStore, Function, Task, Work
from cib_flows.local.compute.user_processes import (
    ConfigurationRefused,
    EngineTask,
    configuration_key,
)
from cib_flows.local.compute.wire import ComputeError
from cib_flows.local.database import Database, DiskFull
from cib_flows.local.endpoint_files import CONFIG, SCHEMA, TEMPLATE
from cib_flows.local.home import Home

__all__ = ["ComputeService", "Submission", "Submitted"]

log = logging.getLogger(__name__)

RETRY_PAUSE = 1.0
MAX_SUBMISSION = 10 * 1024 * 1024


@dataclass(frozen=True)
class Submission:
    """Tasks for one endpoint: ``(function id, packed arguments)`` pairs and how to run them."""

    endpoint_id: str
    tasks: list[tuple[str, str]]
    user_endpoint_config: dict[str, Any] = field(default_factory=dict)
    user_runtime: dict[str, Any] = field(default_factory=dict)
    resource_specification: dict[str, Any] | None = None
    result_serializers: list[str] | None = None
    task_group_id: str | None = None
    create_queue: bool = False
    owner: Identity | None = None  # None: the home's own identity


@dataclass(frozen=True)
class Submitted:
    """Ids of what was submitted; ``task_ids`` in the order of the submission."""

    group_id: str
    task_ids: list[str]


class ComputeService:
    queue_prefix = "tg."

    def __init__(
        self,
        database: Database,
        home: Home,
        endpoint_id: str,
        identity: Identity,
        broker: Broker,
        courier: Courier,
    ) -> None:
        self.store = ComputeStore(database)
        self.endpoint_id = endpoint_id
        self.identity = identity
        self._home = home
        self._broker = broker
        self._engines = UserEndpoints(
            home, endpoint_id, identity.id, self._receive, self._on_lost, self.store.take
        )
        self.sites = SiteEndpoints(home, identity.id, self._receive, self._on_lost, self.store.take)
        self.daemons = DaemonEndpoints(
            EndpointStore(database),
            courier,
            self._receive,
            self._on_lost,
            self.store.take,
            self._waiting,
        )
        # What befalls a result on its way here: lost-result, duplicate-result, nothing.
        self.befalls_result: Callable[[], str | None] = lambda: None
        self._group_waiters: dict[str, set[asyncio.Future[None]]] = defaultdict(set)
        broker.restore = self._restore_queue

    async def start(self) -> None:
        """Take up what was under way when the last server ended: tasks whose processes live on are
        waited for, those that no process was given are given to one, the rest is answered for."""
        self._engines.remove_old_run_dirs()
        alive = {**await self._engines.reattach(), **await self.sites.reattach()}
        for work in self.store.open_work():
            engines = self._engines_of(work.endpoint_id)
            if engines is None:
                owner = Identity(*work.owner) if work.owner else self.identity
                self.daemons.resume(work.endpoint_id, work.config, work.runtime, owner)
            elif work.taken_by is None or work.task_id not in alive.get(
                work.taken_by, {work.task_id}
            ):
                # Nobody began it: the process that lives would know, had it read the task.
                engines.dispatch(work.config, work.runtime, [self._engine_task(work)])
            elif work.taken_by not in alive:
                self._on_lost(
                    work.task_id,
                    "The local Globus was restarted while this task was under way, "
                    "and its engine had ended too.",
                )
        await self.daemons.start()

    async def stop(self) -> None:
        await self.daemons.stop()
        await self.sites.stop()
        await self._engines.stop()

    def _engines_of(self, endpoint_id: str) -> UserEndpoints | None:
        """What runs the tasks of an endpoint of this home; None for a daemon's."""
        if endpoint_id == self.endpoint_id:
            return self._engines
        return self.sites.engines(endpoint_id)

    # -- functions -----------------------------------------------------------------------------

    def register_function(self, body: Any, owner: Identity | None = None) -> str:
        """Store a function as the v2 and v3 routes send it; returns its id."""
        if not isinstance(body, dict):
            raise _invalid("The request body must be a JSON object.")
        name, code = body.get("function_name"), body.get("function_code")
        if not isinstance(name, str) or not name:
            raise _invalid("function_name must be a string that is not empty.")
        if not isinstance(code, str) or not code:
            raise _invalid("function_code must be a string that is not empty.")
        if len(code) > MAX_SUBMISSION:
            raise ComputeError(413, "PAYLOAD_TOO_LARGE", "function_code may hold at most 10 MB.")
        if not body.get("serialized", True):
            code = wire.pack_source(name, code)
        description = body.get("description")
        metadata = body.get("meta", body.get("metadata"))
        self._engines.warm()  # whoever registers a function is about to run it
        return self.store.add_function(
            (owner or self.identity).id,
            name,
            code,
            description if isinstance(description, str) else None,
            metadata if isinstance(metadata, dict) else None,
        )

    def function(self, function_id: str) -> Function:
        """Raises :class:`ComputeError` (404) for a function that is not registered here."""
        function = self.store.function(function_id)
        if function is None:
            raise ComputeError(
                404, "FUNCTION_NOT_FOUND", f"Function {function_id} could not be resolved"
            )
        return function

    def check_endpoint(self, endpoint_id: str) -> None:
        known = endpoint_id == self.endpoint_id or self.sites.find(endpoint_id) is not None
        if not known and self.daemons.store.get(endpoint_id) is None:
            raise ComputeError(
                404, "ENDPOINT_NOT_FOUND", f"Endpoint {endpoint_id} could not be resolved"
            )

    def endpoint_files(self, home: Home | None = None) -> dict[str, Any]:
        """The configuration that the endpoint's administrator lets everybody see."""
        folder = (home or self._home).endpoint_dir
        return {
            "endpoint_config": _text(folder / CONFIG),
            "user_config_template": _text(folder / TEMPLATE),
            "user_config_schema": json.loads(_text(folder / SCHEMA) or "{}"),
        }

    # -- tasks ---------------------------------------------------------------------------------

    async def submit(
        self, submission: Submission, action: tuple[str, str] | None = None
    ) -> Submitted:
        """Store the tasks and hand them to the engine of their configuration.

        Waits until that engine is up, as the web service does, so that a configuration that the endpoint
        refuses is refused here (422). Raises :class:`ComputeError`.
        """
        self.check_endpoint(submission.endpoint_id)
        if not submission.tasks:
            raise _invalid("A submission needs at least one task.")
        allowed = self.allowed_functions(submission.endpoint_id)
        for name in {name: None for name, _ in submission.tasks}:
            self.function(name)
            if allowed is not None and name not in allowed:
                raise ComputeError(
                    403,
                    "FUNCTION_NOT_PERMITTED",
                    f"Function {name} not permitted on endpoint {submission.endpoint_id}",
                )
        if sum(len(payload) for _, payload in submission.tasks) > MAX_SUBMISSION:
            raise ComputeError(413, "PAYLOAD_TOO_LARGE", "A submission may hold at most 10 MB.")
        group_id = submission.task_group_id or str(uuid.uuid4())
        config, runtime = submission.user_endpoint_config, submission.user_runtime
        owner = submission.owner or self.identity
        self.check_group(group_id, owner)
        engines = self._engines_of(submission.endpoint_id)
        try:
            if engines is not None:
                place = configuration_key(config)
                await engines.ready(config, runtime)
            else:
                place = self.daemons.place(submission.endpoint_id, config, runtime, owner)
                await self.daemons.ready(place)
        except ConfigurationRefused as refusal:
            raise ComputeError(
                422, "SEMANTICALLY_INVALID", f"Request payload failed validation: {refusal}"
            ) from refusal
        listed = [
            Work(
                task_id=str(uuid.uuid4()),
                function_id=function_id,
                endpoint_id=submission.endpoint_id,
                place=place,
                payload=payload,
                config=config,
                runtime=runtime,
                resource_specification=submission.resource_specification,
                result_serializers=submission.result_serializers,
                owner=(owner.id, owner.username, owner.email),
            )
            for function_id, payload in submission.tasks
        ]
        self.store.add_tasks(owner.id, group_id, submission.create_queue, listed, action)
        if submission.create_queue:
            self._broker.declare(self.queue_prefix + group_id)
        tasks = [self._engine_task(work) for work in listed]
        if engines is not None:
            engines.dispatch(config, runtime, tasks)
        else:
            self.daemons.dispatch(place, tasks)
        return Submitted(group_id, [work.task_id for work in listed])

    def allowed_functions(self, endpoint_id: str) -> list[str] | None:
        """The only functions that an endpoint's registration allows; None: all."""
        registration = self.daemons.store.get(endpoint_id)
        if registration is not None:
            return registration.allowed_functions
        site = self.sites.find(endpoint_id)
        return registered_allow_list((site.home if site else self._home).endpoint_dir)

    def _engine_task(self, work: Work) -> EngineTask:
        function = self.store.function(work.function_id)
        return EngineTask(
            task_id=work.task_id,
            function_id=work.function_id,
            buffer=(function.packed_code if function is not None else "") + work.payload,
            resource_specification=work.resource_specification,
            result_serializers=work.result_serializers,
        )

    def _waiting(self, place: str) -> list[tuple[EngineTask, bool]]:
        return [
            (self._engine_task(work), work.taken_by is not None)
            for work in self.store.open_work(place)
        ]

    def _receive(self, task_id: str, result: str) -> None:
        """Take a result from an engine or a daemon."""
        fault = self.befalls_result()
        if fault == "lost-result":
            self._on_lost(task_id, "The result of this task was lost, as the faults had it.")
            return
        self._on_result(task_id, result)
        if fault == "duplicate-result":
            self._on_result(task_id, result)
            task = self.store.task(task_id)
            if task is not None and self.store.group_queue(task.group_id):
                self._publish(task_id, task.group_id)

    def _on_lost(self, task_id: str, sentence: str) -> None:
        try:
            self._on_result(task_id, wire.error_result(task_id, "TASK_LOST", sentence))
        except DiskFull:
            asyncio.get_running_loop().call_later(RETRY_PAUSE, self._on_lost, task_id, sentence)

    def _on_result(self, task_id: str, result: str) -> None:
        failed = json.loads(result)["data"].get("error_details") is not None
        if not self.store.complete(task_id, result, failed):
            return
        task = self.store.task(task_id)
        assert task is not None
        if self.store.group_queue(task.group_id):
            self._publish(task_id, task.group_id)
        for waiter in self._group_waiters.pop(task.group_id, set()):
            if not waiter.done():
                waiter.set_result(None)

    def check_group(self, group_id: str, asking: Identity) -> None:
        """Raises :class:`ComputeError` (403) for a task group of somebody else."""
        if self.store.group_owner(group_id) not in (None, asking.id):
            raise ComputeError(403, "FORBIDDEN", f"Task Group {group_id} is somebody else's")

    async def group_finished(self, group_id: str) -> list[Task]:
        """The group's tasks, once all are complete."""
        while True:
            tasks = self.store.group_tasks(group_id)
            if all(task.completed is not None for task in tasks):
                return tasks
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._group_waiters[group_id].add(waiter)
            try:
                await waiter
            finally:
                self._group_waiters.get(group_id, set()).discard(waiter)

    def engine_status(self, endpoint_id: str) -> dict[str, Any] | None:
        engines = self._engines_of(endpoint_id)
        return engines.status() if engines is not None else None

    # -- result queues -------------------------------------------------------------------------

    def _publish(self, task_id: str, group_id: str) -> None:
        self._broker.publish(
            self.queue_prefix + group_id,
            Message(
                body=lambda: self._packed_result(task_id),
                timestamp=int(time.time()),
                on_acknowledged=lambda: self.store.mark_delivered(task_id),
            ),
        )

    def _packed_result(self, task_id: str) -> bytes:
        task = self.store.task(task_id)
        return b"\x01" + ((task.result if task else None) or "").encode()

    def _restore_queue(self, name: str) -> Callable[[], None] | None:
        """For a queue that the broker lost with the last server: what fills it again; None if never
        ours."""
        if not name.startswith(self.queue_prefix):
            return self.daemons.refill(name)
        group_id = name.removeprefix(self.queue_prefix)
        if not self.store.group_queue(group_id):
            return None

        def fill() -> None:
            for task_id in self.store.undelivered(group_id):
                self._publish(task_id, group_id)

        return fill


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError:
        return ""


def _invalid(message: str) -> ComputeError:
    return ComputeError(
        422, "SEMANTICALLY_INVALID", f"Request payload failed validation: {message}"
    )
