"""The Transfer service's REST routes, in the shapes that ``globus_sdk.TransferClient`` reads."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cib_flows.local.transfer import operations
from cib_flows.local.transfer.collections import Collection
from cib_flows.local.transfer.documents import endpoint_document, event_document, task_document
from cib_flows.local.transfer.errors import TransferError
from cib_flows.local.transfer.filters import event_filter, listing_filter, ordered, task_filter
from cib_flows.local.transfer.https_access import https_server
from cib_flows.local.transfer.service import TransferService
from cib_flows.local.transfer.store import TaskRow

__all__ = ["transfer_routes"]

MAX_PAGE = 1000
MAX_DIGITS = 15
_STATUSES = {"Accepted": 202, "Created": 201}

Handler = Callable[[Request], Awaitable[Any]]


def transfer_routes(service: TransferService) -> list[Route]:
    handlers = _Handlers(service)
    table: list[tuple[str, str, Handler]] = [
        ("GET", "/endpoint_search", handlers.search),
        ("GET", "/endpoint/{endpoint_id}", handlers.endpoint),
        ("GET", "/endpoint/{endpoint_id}/access_list", handlers.access_list),
        ("POST", "/endpoint/{endpoint_id}/access", handlers.create_access),
        ("GET", "/endpoint/{endpoint_id}/access/{rule_id}", handlers.get_access),
        ("PUT", "/endpoint/{endpoint_id}/access/{rule_id}", handlers.update_access),
        ("DELETE", "/endpoint/{endpoint_id}/access/{rule_id}", handlers.delete_access),
        ("GET", "/submission_id", handlers.submission_id),
        ("POST", "/transfer", handlers.transfer),
        ("POST", "/delete", handlers.delete),
        ("GET", "/task_list", handlers.task_list),
        ("GET", "/task/{task_id}", handlers.task),
        ("PUT", "/task/{task_id}", handlers.update_task),
        ("POST", "/task/{task_id}/cancel", handlers.cancel),
        ("GET", "/task/{task_id}/event_list", handlers.events),
        ("GET", "/task/{task_id}/successful_transfers", handlers.successes),
        ("GET", "/task/{task_id}/skipped_errors", handlers.skipped),
        ("GET", "/task/{task_id}/pause_info", handlers.pause_info),
        ("GET", "/operation/endpoint/{endpoint_id}/ls", handlers.ls),
        ("GET", "/operation/endpoint/{endpoint_id}/stat", handlers.stat),
        ("POST", "/operation/endpoint/{endpoint_id}/mkdir", handlers.mkdir),
        ("POST", "/operation/endpoint/{endpoint_id}/rename", handlers.rename),
    ]
    return [
        Route(f"/v0.10{path}", _answering(handler), methods=[method])
        for method, path, handler in table
    ]


def _answering(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        resource = request.url.path
        try:
            document = await handler(request)
        except TransferError as refusal:
            return JSONResponse(refusal.body(resource), refusal.status)
        if document.get("DATA_TYPE", "").endswith("result"):
            document = {**document, "request_id": "local", "resource": resource}
        return JSONResponse(document, _STATUSES.get(document.get("code", ""), 200))

    return answer


async def _body(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body() or b"null")
    except ValueError:
        raise TransferError.bad_request("The request body is not JSON.") from None
    if not isinstance(body, dict):
        raise TransferError.bad_request("The request body must be a JSON object.")
    return body


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isdecimal() or len(text) > MAX_DIGITS:
        raise TransferError.bad_request(
            f"{name} must be a whole number of at most {MAX_DIGITS} digits."
        )
    return int(text)


def _page(request: Request, default: int = 100) -> tuple[int, int]:
    return min(_number(request, "limit", default), MAX_PAGE), _number(request, "offset", 0)


def _rule(request: Request) -> str:
    return str(request.path_params["rule_id"])


class _Handlers:
    def __init__(self, service: TransferService) -> None:
        self._service = service

    # -- collections ---------------------------------------------------------------------------

    def _collection(self, request: Request) -> Collection:
        return self._service.collections.get(request.path_params["endpoint_id"])

    async def endpoint(self, request: Request) -> dict[str, Any]:
        collection = self._collection(request)
        document = endpoint_document(collection, self._service.identity.id)
        return {**document, "https_server": https_server(request, collection.id)}

    async def search(self, request: Request) -> dict[str, Any]:
        words = request.query_params.get("filter_fulltext", "").lower().split()
        limit, offset = _page(request)
        found = [
            endpoint_document(item, self._service.identity.id)
            for item in self._service.collections.all()
            if all(word in f"{item.name} {item.id}".lower() for word in words)
        ]
        return {
            "DATA_TYPE": "endpoint_list",
            "DATA": found[offset : offset + limit],
            "has_next_page": len(found) > offset + limit,
            "limit": limit,
            "offset": offset,
        }

    # -- access rules --------------------------------------------------------------------------

    async def access_list(self, request: Request) -> dict[str, Any]:
        return self._service.access.list(self._collection(request))

    async def create_access(self, request: Request) -> dict[str, Any]:
        return self._service.access.create(self._collection(request), await _body(request))

    async def get_access(self, request: Request) -> dict[str, Any]:
        return self._service.access.get(self._collection(request), _rule(request))

    async def update_access(self, request: Request) -> dict[str, Any]:
        collection = self._collection(request)
        return self._service.access.update(collection, _rule(request), await _body(request))

    async def delete_access(self, request: Request) -> dict[str, Any]:
        return self._service.access.delete(self._collection(request), _rule(request))

    # -- tasks ---------------------------------------------------------------------------------

    async def submission_id(self, request: Request) -> dict[str, Any]:
        return {"DATA_TYPE": "submission_id", "value": str(uuid.uuid4())}

    async def transfer(self, request: Request) -> dict[str, Any]:
        return self._accepted("transfer", self._submit("TRANSFER", request, await _body(request)))

    async def delete(self, request: Request) -> dict[str, Any]:
        return self._accepted("delete", self._submit("DELETE", request, await _body(request)))

    def _submit(self, kind: str, request: Request, body: dict[str, Any]) -> TaskRow:
        return self._service.submit(kind, body, owner=request.state.identity)

    def _accepted(self, verb: str, task: TaskRow) -> dict[str, Any]:
        return {
            "DATA_TYPE": f"{verb}_result",
            "code": "Accepted",
            "message": f"The {verb} has been accepted and a task has been created "
            "and queued for execution",
            "submission_id": task.submission_id,
            "task_id": task.id,
            "task_link": {
                "DATA_TYPE": "link",
                "href": f"/v0.10/task/{task.id}?format=json",
                "rel": "related",
                "resource": "task",
                "title": "related task",
            },
        }

    def _task(self, request: Request) -> TaskRow:
        return self._service.task(request.path_params["task_id"], request.state.identity)

    async def task(self, request: Request) -> dict[str, Any]:
        return task_document(self._task(request), self._service.collections)

    async def update_task(self, request: Request) -> dict[str, Any]:
        task, body = self._task(request), await _body(request)
        changed: dict[str, Any] = {key: body[key] for key in ("label", "deadline") if key in body}
        self._service.store.set_label(task.id, {**task.request, **changed})
        return {
            "DATA_TYPE": "result",
            "code": "Updated",
            "message": "The task has been updated successfully",
        }

    async def task_list(self, request: Request) -> dict[str, Any]:
        limit, offset = _page(request)
        owner, store = request.state.identity.id, self._service.store
        query = request.query_params
        if query.get("filter") or query.get("orderby"):
            shows = task_filter(query.get("filter", ""))
            every = self._documents(store.tasks(owner, -1, 0))
            found = ordered([task for task in every if shows(task)], query.get("orderby", ""))
            page, total = found[offset : offset + limit], len(found)
        else:
            page, total = (
                self._documents(store.tasks(owner, limit, offset)),
                store.count_tasks(owner),
            )
        return {
            "DATA_TYPE": "task_list",
            "DATA": page,
            "length": len(page),
            "limit": limit,
            "offset": offset,
            "total": total,
        }

    def _documents(self, tasks: list[TaskRow]) -> list[dict[str, Any]]:
        return [task_document(task, self._service.collections) for task in tasks]

    async def cancel(self, request: Request) -> dict[str, Any]:
        if self._service.cancel(self._task(request).id):
            code, message = "Canceled", "The task has been cancelled successfully."
        else:
            code, message = "TaskComplete", "The task completed before the cancel request."
        return {"DATA_TYPE": "result", "code": code, "message": message}

    async def events(self, request: Request) -> dict[str, Any]:
        limit, offset = _page(request)
        shows = event_filter(request.query_params.get("filter", ""))
        rows, _ = self._service.store.events(self._task(request).id, -1, 0)
        found = [event for event in map(event_document, rows) if shows(event)]
        page = found[offset : offset + limit]
        return {
            "DATA_TYPE": "event_list",
            "DATA": page,
            "length": len(page),
            "limit": limit,
            "offset": offset,
            "total": len(found),
        }

    async def successes(self, request: Request) -> dict[str, Any]:
        marker = _number(request, "marker", 0)
        moved = self._service.store.files(self._task(request).id, MAX_PAGE + 1, marker)
        return {
            "DATA_TYPE": "successful_transfers",
            "DATA": [
                {
                    "DATA_TYPE": "successful_transfer",
                    "source_path": source,
                    "destination_path": destination,
                }
                for source, destination in moved[:MAX_PAGE]
            ],
            "marker": marker,
            "next_marker": str(marker + MAX_PAGE) if len(moved) > MAX_PAGE else None,
        }

    async def skipped(self, request: Request) -> dict[str, Any]:
        return {
            "DATA_TYPE": "skipped_errors",
            "DATA": self._task(request).progress.get("skipped_errors", []),
            "next_marker": None,
        }

    async def pause_info(self, request: Request) -> dict[str, Any]:
        self._task(request)
        return {"DATA_TYPE": "pause_info_limited", "pause_rules": [], "source_pause_message": None}

    # -- operations ----------------------------------------------------------------------------

    async def ls(self, request: Request) -> dict[str, Any]:
        query = request.query_params
        return await run_in_threadpool(
            operations.list_folder,
            self._collection(request),
            query.get("path", "/"),
            show_hidden=query.get("show_hidden", "1").lower() in ("1", "true"),
            limit=_number(request, "limit", operations.MAX_LISTING),
            offset=_number(request, "offset", 0),
            order=query.get("orderby"),
            shows=listing_filter(query.get("filter", "")),
        )

    async def stat(self, request: Request) -> dict[str, Any]:
        path = request.query_params.get("path", "/")
        return await run_in_threadpool(operations.status_of, self._collection(request), path)

    async def mkdir(self, request: Request) -> dict[str, Any]:
        body = await _body(request)
        path = body.get("path")
        if not isinstance(path, str):
            raise TransferError.bad_request("path is required.")
        return await run_in_threadpool(operations.make_folder, self._collection(request), path)

    async def rename(self, request: Request) -> dict[str, Any]:
        body = await _body(request)
        old, new = body.get("old_path"), body.get("new_path")
        if not isinstance(old, str) or not isinstance(new, str):
            raise TransferError.bad_request("old_path and new_path are required.")
        return await run_in_threadpool(operations.rename, self._collection(request), old, new)
