"""The Search service's REST routes, in the shapes that the unmodified SDK reads."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cib_flows.local.actions import Identity
from cib_flows.local.search.errors import SearchError
from cib_flows.local.search.query import read_query
from cib_flows.local.search.service import SearchService, gmeta
from cib_flows.local.search.store import Role, SearchTask

__all__ = ["search_routes"]

Handler = Callable[[Request], Awaitable[Any]]


def search_routes(service: SearchService) -> list[Route]:
    handlers = _Handlers(service)
    index = "/v1/index/{index_id}"
    table: list[tuple[str, str, Handler]] = [
        ("POST", "/v1/index", handlers.create),
        ("GET", "/v1/index_list", handlers.list),
        ("GET", index, handlers.get),
        ("PATCH", index, handlers.update),
        ("DELETE", index, handlers.delete),
        ("POST", f"{index}/reopen", handlers.reopen),
        ("POST", f"{index}/ingest", handlers.ingest),
        ("GET", f"{index}/search", handlers.search),
        ("POST", f"{index}/search", handlers.post_search),
        ("POST", f"{index}/scroll", handlers.scroll),
        ("POST", f"{index}/delete_by_query", handlers.delete_by_query),
        ("POST", f"{index}/batch_delete_by_subject", handlers.delete_subjects),
        ("GET", f"{index}/subject", handlers.get_subject),
        ("DELETE", f"{index}/subject", handlers.delete_subject),
        ("GET", f"{index}/entry", handlers.get_entry),
        ("DELETE", f"{index}/entry", handlers.delete_entry),
        ("POST", f"{index}/role", handlers.add_role),
        ("GET", f"{index}/role_list", handlers.roles),
        ("DELETE", f"{index}/role/{{role_id}}", handlers.delete_role),
        ("GET", "/v1/task/{task_id}", handlers.task),
        ("GET", "/v1/task_list/{index_id}", handlers.tasks),
    ]
    return [Route(path, _answering(handler), methods=[method]) for method, path, handler in table]


def _answering(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            return JSONResponse(await handler(request))
        except SearchError as refusal:
            return JSONResponse(refusal.body, refusal.status)

    return answer


async def _body(request: Request) -> Any:
    try:
        return json.loads(await request.body() or b"null")
    except ValueError:
        raise SearchError.bad_request("The request body is not JSON") from None


def _who(request: Request) -> Identity:
    identity: Identity = request.state.identity
    return identity


def _where(request: Request) -> str:
    index_id: str = request.path_params["index_id"]
    return index_id


def _needed(request: Request, name: str) -> str:
    value = request.query_params.get(name)
    if not value:
        raise SearchError.bad_request(f"{name}: is required")
    return value


class _Handlers:
    def __init__(self, service: SearchService) -> None:
        self._service = service

    # -- indexes -------------------------------------------------------------------------------

    async def create(self, request: Request) -> Any:
        index = self._service.create_index(await _body(request), _who(request))
        return self._service.document(index, _who(request))

    async def list(self, request: Request) -> Any:
        who = _who(request)
        found = self._service.my_indexes(who)
        return {"index_list": [self._service.document(index, who) for index in found]}

    async def get(self, request: Request) -> Any:
        who = _who(request)
        return self._service.document(self._service.index(_where(request), who), who)

    async def update(self, request: Request) -> Any:
        who, body = _who(request), await _body(request)
        index = self._service.index(_where(request), who, "admin")
        if not isinstance(body, dict):
            raise SearchError.bad_request("The request body must be a JSON object")
        changed = type(index)(
            index.id,
            str(body.get("display_name", index.name)),
            str(body.get("description", index.description)),
            index.status,
            index.created,
        )
        self._service.store.change_index(changed)
        return self._service.document(changed, who)

    async def delete(self, request: Request) -> Any:
        self._service.set_status(_where(request), _who(request), "open", "delete_pending")
        return {"index_id": _where(request), "acknowledged": True}

    async def reopen(self, request: Request) -> Any:
        self._service.set_status(_where(request), _who(request), "delete_pending", "open")
        return {"index_id": _where(request), "acknowledged": True}

    async def add_role(self, request: Request) -> Any:
        role = self._service.add_role(_where(request), await _body(request), _who(request))
        return _role_document(role)

    async def roles(self, request: Request) -> Any:
        self._service.index(_where(request), _who(request), "admin")
        found = self._service.store.roles(_where(request))
        return {"role_list": [_role_document(role) for role in found]}

    async def delete_role(self, request: Request) -> Any:
        role = self._service.delete_role(
            _where(request), request.path_params["role_id"], _who(request)
        )
        return {"success": True, "deleted": _role_document(role)}

    # -- entries -------------------------------------------------------------------------------

    async def ingest(self, request: Request) -> Any:
        task = self._service.ingest(_where(request), await _body(request), _who(request))
        return {"acknowledged": True, "success": True, "task_id": task.id}

    async def search(self, request: Request) -> Any:
        names = ("q", "limit", "offset", "advanced")
        query = {name: request.query_params[name] for name in names if name in request.query_params}
        return self._service.search(_where(request), read_query(query), _who(request))

    async def post_search(self, request: Request) -> Any:
        query = read_query(await _body(request))
        return self._service.search(_where(request), query, _who(request))

    async def scroll(self, request: Request) -> Any:
        body = await _body(request)
        body = dict(body) if isinstance(body, dict) else body
        marker = body.pop("marker", None) if isinstance(body, dict) else None
        if marker is not None:
            if not isinstance(marker, str) or not marker.isdigit():
                raise SearchError.bad_request("marker: is not one that this service made")
            body["offset"] = int(marker)
        query = read_query(body)
        result = self._service.search(_where(request), query, _who(request))
        following = query.offset + result["count"]
        del result["offset"]
        return {**result, "marker": str(following) if result["has_next_page"] else None}

    async def delete_by_query(self, request: Request) -> Any:
        task = self._service.delete_by_query(_where(request), await _body(request), _who(request))
        return {"task_id": task.id}

    async def delete_subjects(self, request: Request) -> Any:
        body = await _body(request)
        subjects = body.get("subjects") if isinstance(body, dict) else None
        task = self._service.delete_subjects(_where(request), subjects, _who(request))
        return {"task_id": task.id}

    async def get_subject(self, request: Request) -> Any:
        subject = _needed(request, "subject")
        found = self._service.visible(_where(request), _who(request), subject)
        if not found:
            raise SearchError(404, "NotFound.Generic", f"There is no subject {subject}")
        return gmeta(subject, found)

    async def delete_subject(self, request: Request) -> Any:
        subjects = [_needed(request, "subject")]
        task = self._service.delete_subjects(_where(request), subjects, _who(request))
        return {"task_id": task.id}

    async def get_entry(self, request: Request) -> Any:
        subject, entry_id = _needed(request, "subject"), request.query_params.get("entry_id")
        for entry in self._service.visible(_where(request), _who(request), subject):
            if entry.entry_id == entry_id:
                return gmeta(subject, [entry])
        raise SearchError(404, "NotFound.Generic", f"There is no entry {entry_id} of {subject}")

    async def delete_entry(self, request: Request) -> Any:
        task = self._service.delete_entry(
            _where(request),
            _needed(request, "subject"),
            request.query_params.get("entry_id"),
            _who(request),
        )
        return {"task_id": task.id}

    # -- tasks ---------------------------------------------------------------------------------

    async def task(self, request: Request) -> Any:
        task = self._service.store.task(request.path_params["task_id"])
        if task is None or task.creator != _who(request).id:
            raise SearchError(404, "NotFound.Generic", "There is no such task")
        return task_document(task)

    async def tasks(self, request: Request) -> Any:
        self._service.index(_where(request), _who(request), "writer")
        found = self._service.store.tasks(_where(request))
        return {"task_list": [task_document(task) for task in found]}


def _role_document(role: Role) -> dict[str, Any]:
    kind = "identity" if ":auth:identity:" in role.principal else "group"
    document = asdict(role)
    document["creation_date"] = document.pop("created")
    return {**document, "principal_type": kind}


def task_document(task: SearchTask) -> dict[str, Any]:
    return {
        "task_id": task.id,
        "index_id": task.index_id,
        "task_type": task.task_type,
        "state": "SUCCESS",
        "state_description": "Task succeeded",
        "message": task.message,
        "creation_date": task.created,
        "completion_date": task.created,
        "additional_details": None,
    }
