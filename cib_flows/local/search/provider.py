"""The Search action providers: ingest one entry, delete entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cib_flows.local.actions import ActionProvider, ActionRefused, ActionRequest, ActionStatus
from cib_flows.local.search.errors import SearchError
from cib_flows.local.search.routes import task_document
from cib_flows.local.search.service import SearchService
from cib_flows.local.search.store import SearchTask

__all__ = ["search_providers"]

BASE_URL = "https://actions.globus.org/search"

Work = Callable[[SearchService, ActionRequest], SearchTask]


def search_providers(service: SearchService) -> dict[str, ActionProvider]:
    return {
        f"{BASE_URL}/ingest": _Provider(service, _ingest),
        f"{BASE_URL}/delete": _Provider(service, _delete),
    }


def _needed(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise SearchError.bad_request(f"{name}: is required")
    return value


def _ingest(service: SearchService, request: ActionRequest) -> SearchTask:
    body = request.body
    names = ("subject", "visible_to", "content", "id")
    data = {name: body[name] for name in names if name in body}
    document = {"ingest_type": "GMetaEntry", "ingest_data": data}
    index_id = _needed(body, "search_index")
    return service.ingest(index_id, document, request.identity, request.request_id)


def _delete(service: SearchService, request: ActionRequest) -> SearchTask:
    body, who, request_id = request.body, request.identity, request.request_id
    index_id = _needed(body, "search_index")
    kind = body.get("delete_by")
    if kind == "subject":
        return service.delete_subjects(index_id, [_needed(body, "subject")], who, request_id)
    if kind == "entry":
        subject, entry_id = _needed(body, "subject"), body.get("id", body.get("entry_id"))
        return service.delete_entry(index_id, subject, entry_id, who, request_id)
    if kind == "query":
        query = body.get("query", {name: body[name] for name in ("q", "filters") if name in body})
        return service.delete_by_query(
            index_id, {"q": query} if isinstance(query, str) else query, who, request_id
        )
    raise SearchError.bad_request("delete_by: must be entry, subject or query")


class _Provider:
    """An action that is done when it is begun; its details are the Search task's document."""

    def __init__(self, service: SearchService, work: Work) -> None:
        self._service = service
        self._work = work

    async def run(self, request: ActionRequest) -> ActionStatus:
        task = self._service.store.task_of_request(request.request_id)
        if task is None:
            try:
                task = self._work(self._service, request)
            except SearchError as refusal:
                raise ActionRefused(refusal.status, refusal.body) from refusal
        return _status(task)

    async def status(self, action_id: str) -> ActionStatus:
        task = self._service.store.task(action_id)
        if task is None:
            raise ActionRefused(404, {"code": "NotFound", "message": f"No such action {action_id}"})
        return _status(task)

    async def wait(self, action_id: str) -> ActionStatus:
        return await self.status(action_id)

    async def cancel(self, action_id: str) -> ActionStatus:
        return await self.status(action_id)


def _status(task: SearchTask) -> ActionStatus:
    moment = task.created.replace(" ", "T") + "+00:00"
    return ActionStatus(
        action_id=task.id,
        status="SUCCEEDED",
        details=task_document(task),
        display_status="SUCCESS",
        start_time=moment,
        completion_time=moment,
        creator_id=f"urn:globus:auth:identity:{task.creator}",
    )
