"""The Compute service's REST routes, in the shapes that the unmodified SDKs read."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cib_flows.local.actions import Identity
from cib_flows.local.compute import wire
from cib_flows.local.compute.endpoint_routes import endpoint_handlers
from cib_flows.local.compute.requests import Handler, read_body, read_uuid
from cib_flows.local.compute.service import ComputeService, Submission
from cib_flows.local.compute.store import Task
from cib_flows.local.compute.wire import ComputeError

__all__ = ["compute_routes", "submission_of"]

API_VERSION = "1.0.0"
MIN_CLIENT_VERSION = "4.0.0"


def compute_routes(service: ComputeService) -> list[Route]:
    """Every route of the service but the queue's address, which the server knows."""
    handlers = _Handlers(service)
    table: list[tuple[str, str, Handler]] = [
        ("GET", "/v2/version", handlers.version),
        ("POST", "/v2/functions", handlers.register_function),
        ("POST", "/v3/functions", handlers.register_function),
        ("GET", "/v2/functions/{function_id}", handlers.get_function),
        ("DELETE", "/v2/functions/{function_id}", handlers.delete_function),
        ("POST", "/v2/submit", handlers.submit_v2),
        ("POST", "/v3/endpoints/{endpoint_id}/submit", handlers.submit_v3),
        ("GET", "/v2/tasks/{task_id}", handlers.get_task),
        ("POST", "/v2/batch_status", handlers.batch_status),
        ("GET", "/v2/taskgroup/{group_id}", handlers.task_group),
        *endpoint_handlers(service),
    ]
    return [Route(path, _answering(handler), methods=[method]) for method, path, handler in table]


def _answering(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            return JSONResponse(await handler(request))
        except ComputeError as refusal:
            return JSONResponse(refusal.body, refusal.status)

    return answer


def submission_of(
    endpoint_id: str,
    body: dict[str, Any],
    tasks: list[tuple[str, str]],
    owner: Identity | None = None,
) -> Submission:
    """A submission with the options that the v3 route and the action provider share, checked."""
    options: dict[str, Any] = {}
    for name in ("user_endpoint_config", "user_runtime", "resource_specification"):
        value = body.get(name)
        if value is not None and not isinstance(value, dict):
            raise ComputeError(
                422,
                "SEMANTICALLY_INVALID",
                f"Request payload failed validation: {name} must be an object",
            )
        options[name] = value
    serializers = body.get("result_serializers")
    if serializers is not None and not (
        isinstance(serializers, list) and all(isinstance(item, str) for item in serializers)
    ):
        raise ComputeError(
            422,
            "SEMANTICALLY_INVALID",
            "Request payload failed validation: result_serializers must be a list of strings",
        )
    group_id = body.get("task_group_id")
    return Submission(
        endpoint_id=read_uuid(endpoint_id, "endpoint_id"),
        tasks=tasks,
        user_endpoint_config=options["user_endpoint_config"] or {},
        user_runtime=options["user_runtime"] or {},
        resource_specification=options["resource_specification"],
        result_serializers=serializers,
        task_group_id=read_uuid(group_id, "task_group_id") if group_id is not None else None,
        create_queue=bool(body.get("create_queue", False)),
        owner=owner,
    )


def task_document(task: Task) -> dict[str, Any]:
    document: dict[str, Any] = {"task_id": task.id, "status": task.status}
    message = task.message
    if message is not None:
        failed = message.get("error_details") is not None
        document["exception" if failed else "result"] = message["data"]
        document["completion_t"] = str(task.completed)
        document["details"] = {
            **(message.get("details") or {}),
            "task_transitions": wire.transitions(message.get("task_statuses")),
        }
    return document


class _Handlers:
    def __init__(self, service: ComputeService) -> None:
        self._service = service

    async def version(self, request: Request) -> Any:
        if request.query_params.get("service") != "all":
            return API_VERSION
        return {
            "api": API_VERSION,
            "min_sdk_version": MIN_CLIENT_VERSION,
            "min_ep_version": MIN_CLIENT_VERSION,
            "min_endpoint_version": MIN_CLIENT_VERSION,
            "git_sha": "0" * 40,
        }

    # -- functions -----------------------------------------------------------------------------

    async def register_function(self, request: Request) -> Any:
        return {
            "function_uuid": self._service.register_function(
                await read_body(request), request.state.identity
            )
        }

    async def get_function(self, request: Request) -> Any:
        function = self._service.function(request.path_params["function_id"])
        return {
            "function_uuid": function.id,
            "function_name": function.name,
            "function_code": function.packed_code,
            "description": function.description,
            "metadata": function.metadata,
        }

    async def delete_function(self, request: Request) -> Any:
        function = self._service.function(request.path_params["function_id"])
        if function.owner != request.state.identity.id:
            raise ComputeError(403, "FORBIDDEN", f"Function {function.id} is somebody else's")
        self._service.store.delete_function(function.id)
        return {"result": 302}

    # -- tasks ---------------------------------------------------------------------------------

    async def submit_v3(self, request: Request) -> Any:
        body = await read_body(request)
        listed = body.get("tasks")
        if not isinstance(listed, dict) or not all(
            isinstance(payloads, list) and all(isinstance(item, str) for item in payloads)
            for payloads in listed.values()
        ):
            raise ComputeError(
                422,
                "SEMANTICALLY_INVALID",
                "Request payload failed validation: tasks must map function ids to lists of strings",
            )
        tasks = [(name, payload) for name, payloads in listed.items() for payload in payloads]
        submission = submission_of(
            request.path_params["endpoint_id"], body, tasks, request.state.identity
        )
        submitted = await self._service.submit(submission)
        by_function: dict[str, list[str]] = {}
        for (name, _), task_id in zip(tasks, submitted.task_ids, strict=True):
            by_function.setdefault(name, []).append(task_id)
        return {
            "request_id": str(uuid.uuid4()),
            "task_group_id": submitted.group_id,
            "endpoint_id": submission.endpoint_id,
            "tasks": by_function,
        }

    async def submit_v2(self, request: Request) -> Any:
        body = await read_body(request)
        listed = body.get("tasks")
        if (
            not isinstance(listed, list)
            or not listed
            or not all(
                isinstance(item, list) and len(item) == 3 and isinstance(item[2], str)
                for item in listed
            )
        ):
            raise ComputeError(
                400,
                "MALFORMED_REQUEST",
                "tasks must be a list of [function id, endpoint id, payload]",
            )
        if len({str(item[1]) for item in listed}) != 1:
            raise ComputeError(
                400, "MALFORMED_REQUEST", "All tasks of one submission must name the same endpoint"
            )
        options = {**body, "create_queue": body.get("create_websocket_queue", False)}
        submission = submission_of(
            str(listed[0][1]),
            options,
            [(str(item[0]), item[2]) for item in listed],
            request.state.identity,
        )
        submitted = await self._service.submit(submission)
        return {
            "response": "success",
            "task_group_id": submitted.group_id,
            "results": [
                {
                    "status": "success",
                    "task_uuid": task_id,
                    "http_status_code": 200,
                    "reason": None,
                }
                for task_id in submitted.task_ids
            ],
        }

    async def get_task(self, request: Request) -> Any:
        task_id = request.path_params["task_id"]
        task = self._service.store.task(task_id)
        if task is None:
            raise ComputeError(404, "TASK_NOT_FOUND", f"Task {task_id} could not be resolved")
        self._service.check_group(task.group_id, request.state.identity)
        return task_document(task)

    async def batch_status(self, request: Request) -> Any:
        wanted = (await read_body(request)).get("task_ids")
        if not isinstance(wanted, list):
            raise ComputeError(400, "MALFORMED_REQUEST", "task_ids must be a list")
        found = [self._service.store.task(str(task_id)) for task_id in wanted]
        mine = [task for task in found if task is not None]
        for group_id in {task.group_id for task in mine}:
            self._service.check_group(group_id, request.state.identity)
        return {"response": "batch", "results": {task.id: task_document(task) for task in mine}}

    async def task_group(self, request: Request) -> Any:
        group_id = request.path_params["group_id"]
        has_queue = self._service.store.group_queue(group_id)
        if has_queue is None:
            raise ComputeError(
                404, "TASK_GROUP_NOT_FOUND", f"Task Group {group_id} could not be resolved"
            )
        self._service.check_group(group_id, request.state.identity)
        return {
            "taskgroup_id": group_id,
            "create_websockets_queue": has_queue,
            "tasks": [
                {"id": task.id, "created_at": _timestamp(task.created)}
                for task in self._service.store.group_tasks(group_id)
            ],
        }


def _timestamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).isoformat()
