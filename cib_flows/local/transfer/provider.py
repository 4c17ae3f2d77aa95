"""The Transfer action providers: transfer and delete run as tasks, the others are done at once."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Literal, TypeVar

from cib_flows.local.actions import (
    ActionProvider,
    ActionRefused,
    ActionRequest,
    ActionStatus,
    StatusName,
)
from cib_flows.local.transfer import operations
from cib_flows.local.transfer.documents import endpoint_document, task_document
from cib_flows.local.transfer.errors import TransferError
from cib_flows.local.transfer.filters import listing_filter
from cib_flows.local.transfer.service import TransferService
from cib_flows.local.transfer.store import Action

__all__ = ["transfer_providers"]

BASE_URL = "https://transfer.actions.globus.org"


@dataclass(frozen=True)
class _Asked:
    """``begin`` keeps that the operation is begun, ``begun`` says that it was so once before."""

    body: dict[str, Any]
    begun: bool
    begin: Callable[[], None]


Value = TypeVar("Value", bool, int, str)
Operation = Callable[[_Asked], dict[str, Any]]


def transfer_providers(service: TransferService) -> dict[str, ActionProvider]:
    """Every provider, under the URL that a deployed flow names."""
    collections = service.collections

    def path_of(asked: _Asked, default: str | None = None) -> str:
        path = asked.body.get("path", default)
        if not isinstance(path, str):
            raise TransferError.bad_request("path is required.")
        return path

    def collection_of(asked: _Asked) -> Any:
        return collections.get(str(asked.body.get("endpoint_id", "")))

    def ls(asked: _Asked) -> dict[str, Any]:
        return operations.list_folder(
            collection_of(asked),
            path_of(asked, "/"),
            show_hidden=_given(asked, "show_hidden", bool, True),
            limit=_given(asked, "limit", int, operations.MAX_LISTING),
            offset=_given(asked, "offset", int, 0),
            order=_given(asked, "orderby", str, "name"),
            shows=listing_filter(_given(asked, "filter", str, "")),
        )

    def stat(asked: _Asked) -> dict[str, Any]:
        return operations.status_of(collection_of(asked), path_of(asked))

    def mkdir(asked: _Asked) -> dict[str, Any]:
        return operations.make_folder(
            collection_of(asked), path_of(asked), asked.begun, asked.begin
        )

    def collection_info(asked: _Asked) -> dict[str, Any]:
        return endpoint_document(collection_of(asked), service.identity.id)

    def manage_permission(asked: _Asked) -> dict[str, Any]:
        return service.access.manage(collection_of(asked), asked.body, asked.begun, asked.begin)

    operations_by_name: dict[str, Operation] = {
        "ls": ls,
        "stat": stat,
        "mkdir": mkdir,
        "collection_info": collection_info,
        "manage_permission": manage_permission,
    }
    return {
        f"{BASE_URL}/transfer": _TaskProvider(service, "TRANSFER"),
        f"{BASE_URL}/delete": _TaskProvider(service, "DELETE"),
        **{
            f"{BASE_URL}/{name}": _OperationProvider(service, operation)
            for name, operation in operations_by_name.items()
        },
    }


def _given(asked: _Asked, name: str, kind: type[Value], default: Value) -> Value:
    value = asked.body.get(name)
    if value is None:
        return default
    # True is an int to Python.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TransferError.bad_request(f"{name} must be of type {kind.__name__}, not {value!r}.")
    if isinstance(value, int) and value < 0:
        raise TransferError.bad_request(f"{name} must not be negative.")
    return value


def _status(action: Action, status: str, details: Any, completed: float | None) -> ActionStatus:
    names: dict[str, StatusName] = {
        "ACTIVE": "ACTIVE",
        "SUCCEEDED": "SUCCEEDED",
        "FAILED": "FAILED",
    }
    return ActionStatus(
        action_id=action.id,
        status=names[status],
        details=details,
        display_status=status,
        start_time=_timestamp(action.created),
        completion_time=_timestamp(completed) if completed is not None else None,
        label=action.label,
        creator_id=f"urn:globus:auth:identity:{action.creator}",
    )


def _timestamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).isoformat()


def _known(service: TransferService, action_id: str) -> Action:
    action = service.store.action(action_id)
    if action is None:
        raise ActionRefused(404, {"code": "NotFound", "message": f"No such action {action_id}"})
    return action


def _label(request: ActionRequest) -> str | None:
    label = request.body.get("label")
    return label if isinstance(label, str) else None


class _TaskProvider:
    """An action that is a Transfer task; its details are the task's document."""

    def __init__(self, service: TransferService, kind: Literal["TRANSFER", "DELETE"]) -> None:
        self._service = service
        self._kind = kind

    async def run(self, request: ActionRequest) -> ActionStatus:
        started = self._service.store.action_of_request(request.request_id)
        if started is None:
            try:
                # A flow's body has no submission id of its own; the request's serves as one.
                body = {**request.body, "submission_id": request.request_id}
                action = (request.request_id, _label(request))
                task = self._service.submit(self._kind, body, action, request.identity)
            except TransferError as refusal:
                raise ActionRefused(refusal.status, refusal.body()) from refusal
            started = _known(self._service, task.id)
        return await self.status(started.id)

    async def wait(self, action_id: str) -> ActionStatus:
        action = _known(self._service, action_id)
        await self._service.finished(action.task_id or "")
        return await self.status(action_id)

    async def status(self, action_id: str) -> ActionStatus:
        action = _known(self._service, action_id)
        task = self._service.task(action.task_id or "")
        details = task_document(task, self._service.collections)
        return _status(action, task.status, details, task.completed)

    async def cancel(self, action_id: str) -> ActionStatus:
        action = _known(self._service, action_id)
        if self._service.cancel(action.task_id or ""):
            await self._service.finished(action.task_id or "")
        return await self.status(action_id)


class _OperationProvider:
    """An action that is done at once; its details are what the operation answers, or its
    refusal."""

    def __init__(self, service: TransferService, operation: Operation) -> None:
        self._service = service
        self._operation = operation

    async def run(self, request: ActionRequest) -> ActionStatus:
        done = self._service.store.action_of_request(request.request_id)
        if done is None or done.status == "ACTIVE":
            done = await self._carry_out(request, done)
        return _status(done, done.status, done.details, done.created)

    async def _carry_out(self, request: ActionRequest, begun: Action | None) -> Action:
        """:param begun: what a server has kept that was killed meanwhile"""
        if not isinstance(request.body.get("endpoint_id"), str):
            raise ActionRefused(
                400, {"code": "ClientError.BadRequest", "message": "endpoint_id is required."}
            )
        store = self._service.store
        action = begun or Action(
            str(uuid.uuid4()),
            None,
            "ACTIVE",
            None,
            request.identity.id,
            _label(request),
            time.time(),
        )
        asked = _Asked(
            request.body,
            begun is not None,
            lambda: store.add_action(action, request.request_id),
        )
        try:
            details = await asyncio.to_thread(self._operation, asked)
            done = replace(action, status="SUCCEEDED", details=details)
        except TransferError as refusal:
            done = replace(action, status="FAILED", details=refusal.body())
        store.add_action(done, request.request_id)
        return done

    async def wait(self, action_id: str) -> ActionStatus:
        return await self.status(action_id)

    async def status(self, action_id: str) -> ActionStatus:
        action = _known(self._service, action_id)
        return _status(action, action.status, action.details, action.created)

    async def cancel(self, action_id: str) -> ActionStatus:
        return await self.status(action_id)
