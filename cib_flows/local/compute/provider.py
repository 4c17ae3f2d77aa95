"""The Compute action provider, versions 2 and 3, over the same tasks as the REST routes."""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, Literal

from cib_flows.local.actions import ActionRefused, ActionRequest, ActionStatus
from cib_flows.local.compute import wire
from cib_flows.local.compute.routes import submission_of
from cib_flows.local.compute.service import ComputeService, Submission
from cib_flows.local.compute.store import StoredAction, Task
from cib_flows.local.compute.wire import ComputeError

__all__ = ["ComputeProvider"]

_V3_FIELDS = {
    "endpoint_id",
    "tasks",
    "user_endpoint_config",
    "resource_specification",
    "task_group_id",
    "create_queue",
    "user_runtime",
    "result_serializers",
}


class ComputeProvider:
    """Runs registered functions as one action: ``details.result`` holds the outputs,
    ``details.results`` each task's id and output. The action fails when every task failed; a
    failing task's output is its traceback."""

    def __init__(self, service: ComputeService, version: Literal[2, 3]) -> None:
        self._service = service
        self._version = version
        self._locks: dict[str, asyncio.Lock] = {}

    async def run(self, request: ActionRequest) -> ActionStatus:
        lock = self._locks.setdefault(request.request_id, asyncio.Lock())
        try:
            async with lock:
                return await self._run_once(request)
        finally:
            self._locks.pop(request.request_id, None)

    async def _run_once(self, request: ActionRequest) -> ActionStatus:
        started = self._service.store.action_of_request(request.request_id)
        if started is None:
            try:
                submission = replace(self._submission(request.body), owner=request.identity)
                action_id = f"tg_{submission.task_group_id}"
                await self._service.submit(submission, action=(action_id, request.request_id))
            except ComputeError as refusal:
                raise ActionRefused(refusal.status, refusal.body) from refusal
            started = self._service.store.action(action_id)
            assert started is not None
        return self._status(started)

    async def wait(self, action_id: str) -> ActionStatus:
        action = self._action(action_id)
        await self._service.group_finished(action.group_id)
        return self._status(action)

    async def status(self, action_id: str) -> ActionStatus:
        return self._status(self._action(action_id))

    async def cancel(self, action_id: str) -> ActionStatus:
        """Compute cannot cancel tasks: the action goes on, as it does at the service."""
        return self._status(self._action(action_id))

    def _action(self, action_id: str) -> StoredAction:
        action = self._service.store.action(action_id)
        if action is None:
            raise ActionRefused(
                404, {"code": "NOT_FOUND", "message": f"There is no action {action_id}"}
            )
        return action

    # -- what was asked ------------------------------------------------------------------------

    def _submission(self, body: dict[str, Any]) -> Submission:
        submission = _v3_submission(body) if self._version == 3 else _v2_submission(body)
        group_id = submission.task_group_id
        if group_id is None or self._service.store.action(f"tg_{group_id}") is not None:
            group_id = str(uuid.uuid4())
        return replace(
            submission,
            task_group_id=group_id,
            # A flow's state is JSON, so that is the only form a result may take.
            result_serializers=submission.result_serializers or [wire.JSON_SERIALIZER],
        )

    # -- what came of it -----------------------------------------------------------------------

    def _status(self, action: StoredAction) -> ActionStatus:
        tasks = self._service.store.group_tasks(action.group_id)
        finished = [task for task in tasks if task.completed is not None]
        results = [{"task_id": task.id, "output": _output(task)} for task in finished]
        details = {"result": [entry["output"] for entry in results], "results": results}
        urn = f"urn:globus:auth:identity:{action.creator}"
        common: dict[str, Any] = {
            "action_id": action.id,
            "details": details,
            "start_time": _timestamp(action.created),
            "creator_id": urn,
        }
        if len(finished) < len(tasks):
            return ActionStatus(
                status="ACTIVE", display_status="Function(s) submitted for execution", **common
            )
        common["completion_time"] = _timestamp(
            max((task.completed or 0.0) for task in finished) if finished else action.created
        )
        if any(task.status == "success" for task in finished):
            return ActionStatus(
                status="SUCCEEDED", display_status="Function Results Received", **common
            )
        return ActionStatus(status="FAILED", display_status="All tasks failed", **common)


def _output(task: Task) -> Any:
    message = task.message
    assert message is not None
    if message.get("error_details") is not None:
        return message["data"]
    try:
        return wire.load_json_data(message["data"])
    except ValueError:
        return message["data"]


def _bad(sentence: str) -> ComputeError:
    return ComputeError(
        422, "SEMANTICALLY_INVALID", f"Request payload failed validation: {sentence}"
    )


def _arguments(task: dict[str, Any]) -> str:
    args, kwargs = task.get("args"), task.get("kwargs")
    if args is not None and not isinstance(args, list):
        raise _bad("args must be a list")
    if kwargs is not None and not isinstance(kwargs, dict):
        raise _bad("kwargs must be an object")
    return wire.pack_arguments(args or [], kwargs or {})


def _v3_submission(body: dict[str, Any]) -> Submission:
    unknown = sorted(set(body) - _V3_FIELDS)
    if unknown:
        raise _bad(f"{unknown[0]} is not a field of this action")
    if not isinstance(body.get("endpoint_id"), str):
        raise _bad("endpoint_id is required")
    tasks = body.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise _bad("tasks must be a list with at least one task")
    pairs = []
    for task in tasks:
        if not isinstance(task, dict) or not isinstance(task.get("function_id"), str):
            raise _bad("each task needs a function_id")
        extra = sorted(set(task) - {"function_id", "args", "kwargs"})
        if extra:
            raise _bad(f"{extra[0]} is not a field of a task")
        pairs.append((task["function_id"], _arguments(task)))
    return submission_of(body["endpoint_id"], body, pairs)


def _v2_submission(body: dict[str, Any]) -> Submission:
    listed = body.get("tasks")
    listed = list(listed) if isinstance(listed, list) else []
    if "function" in body:
        listed.insert(0, body)
    pairs, endpoints = [], []
    for task in listed:
        if not isinstance(task, dict) or not isinstance(task.get("function"), str):
            raise _bad("each task needs a function")
        arguments = {
            "args": _loose(task.get("args")),
            "kwargs": _loose(task.get("kwargs", task.get("payload"))),
        }
        if isinstance(arguments["args"], dict) and arguments["kwargs"] is None:
            arguments = {"args": None, "kwargs": arguments["args"]}
        pairs.append((task["function"], _arguments(arguments)))
        endpoints.append(task.get("endpoint", body.get("endpoint")))
    if not pairs:
        raise _bad("function or tasks is required")
    if len(set(map(str, endpoints))) != 1 or not isinstance(endpoints[0], str):
        raise _bad("all tasks must name the same endpoint")
    return submission_of(endpoints[0], {}, pairs)


def _loose(value: Any) -> Any:
    """Version 2 takes arguments as JSON texts or as what they stand for."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise _bad("args and kwargs must be JSON") from None


def _timestamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).isoformat()
