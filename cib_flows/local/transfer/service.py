"""The Transfer service: takes tasks, works on them in threads, answers for them."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cib_flows.local.actions import Identity
from cib_flows.local.database import Database
from cib_flows.local.home import Home
from cib_flows.local.transfer.access import AccessRules
from cib_flows.local.transfer.collections import Collections
from cib_flows.local.transfer.errors import TransferError
from cib_flows.local.transfer.filters import check_rules
from cib_flows.local.transfer.job import RETRY_DELAYS, Job, deadline_of
from cib_flows.local.transfer.store import Action, TaskRow, TransferStore

__all__ = ["TransferService"]

log = logging.getLogger(__name__)

WORKERS = 4  # as many active tasks as the service grants one user, roughly


class TransferService:
    def __init__(
        self,
        database: Database,
        home: Home,
        identity: Identity,
        retry_delays: Sequence[float] = RETRY_DELAYS,
    ) -> None:
        self.store = TransferStore(database)
        self.collections = Collections.of_home(home)
        self.access = AccessRules(database)
        self.identity = identity
        self._retry_delays = retry_delays
        self._jobs: dict[str, Job] = {}
        self._waiters: dict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="transfer")
        self._stopping = False

    async def start(self) -> None:
        """Take up the tasks that the last server left; copying a file twice does no harm."""
        for task in self.store.active_tasks():
            self._begin(task)

    async def stop(self) -> None:
        """Stop at the next chunk; the tasks stay ACTIVE for the next server."""
        self._stopping = True
        for job in list(self._jobs.values()):
            job.abandon()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, lambda: self._threads.shutdown(cancel_futures=True))

    def submit(
        self,
        kind: str,
        request: Mapping[str, Any],
        action: tuple[str, str | None] | None = None,
        owner: Identity | None = None,
    ) -> TaskRow:
        """Accept a TRANSFER or DELETE; the same ``submission_id`` again is the same task.

        ``action`` is the request id and label of the flow's action that this is. Raises
        :class:`TransferError`.
        """
        checked = _check(kind, request)
        for key in ("source_endpoint", "destination_endpoint", "endpoint"):
            if key in checked:
                self.collections.get(checked[key])
        submission_id = str(checked.get("submission_id") or uuid.uuid4())
        owner = owner or self.identity
        known = self.store.task_of_submission(submission_id)
        if known is not None:
            return self.task(known.id, owner)
        task_id = str(uuid.uuid4())
        started = None
        if action is not None:
            started = Action(task_id, task_id, "ACTIVE", None, owner.id, action[1], time.time())
        self.store.add_task(
            task_id,
            submission_id,
            owner.id,
            kind,
            checked,
            started,
            action[0] if action else "",
        )
        task = self.store.task(task_id)
        assert task is not None
        self._begin(task)
        return task

    def task(self, task_id: str, asking: Identity | None = None) -> TaskRow:
        """Raises :class:`TransferError` (404) for an unknown id, or (403) for somebody else's
        task."""
        task = self.store.task(task_id)
        if task is None:
            raise TransferError(404, "TaskNotFound", f"No such task {task_id}")
        if asking is not None and task.owner != asking.id:
            raise TransferError(403, "PermissionDenied", f"Task {task_id} is somebody else's")
        return task

    def cancel(self, task_id: str) -> bool:
        """Ask a task to stop; False when it has ended already."""
        self.task(task_id)
        job = self._jobs.get(task_id)
        if job is None:
            return False
        job.cancel()
        return True

    async def finished(self, task_id: str) -> TaskRow:
        """The task, once it has ended."""
        while (task := self.task(task_id)).completed is None:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters[task_id].add(waiter)
            try:
                await waiter
            finally:
                self._waiters.get(task_id, set()).discard(waiter)
        return task

    def _begin(self, task: TaskRow) -> None:
        job = Job(task, self.collections, self.store, self._retry_delays)
        self._jobs[task.id] = job
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._threads, job.run)
        future.add_done_callback(lambda done: self._ended(task.id, done))

    def _ended(self, task_id: str, done: asyncio.Future[None]) -> None:
        self._jobs.pop(task_id, None)
        if not done.cancelled() and done.exception() is not None:
            log.error("transfer task %s broke", task_id, exc_info=done.exception())
        for waiter in self._waiters.pop(task_id, set()):
            if not waiter.done() and not self._stopping:
                waiter.set_result(None)


_REQUIRED = {
    "TRANSFER": ("source_endpoint", "destination_endpoint"),
    "DELETE": ("endpoint",),
}
_PATHS = {"TRANSFER": ("source_path", "destination_path"), "DELETE": ("path",)}


def _check(kind: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """The request, if it is one that can be worked on. Raises :class:`TransferError`."""
    checked = {key: value for key, value in request.items() if value is not None}
    for key in _REQUIRED[kind]:
        if not isinstance(checked.get(key), str):
            raise TransferError.bad_request(f"{key} is required and must be a collection id.")
    items = checked.get("DATA")
    if not isinstance(items, list) or not items:
        verb = kind.lower()
        raise TransferError(
            400,
            f"ClientError.BadRequest.No{verb.capitalize()}Items",
            f"A {verb} requires at least one item",
        )
    for item in items:
        if not isinstance(item, dict):
            raise TransferError.bad_request("Each item of DATA must be an object.")
        for key in _PATHS[kind]:
            if not isinstance(item.get(key), str) or not item[key]:
                raise TransferError.bad_request(f"Each item of DATA needs a {key}.")
        if not isinstance(item.get("recursive"), (bool, type(None))):
            raise TransferError.bad_request("recursive must be true or false.")
        if item.get("DATA_TYPE") == "transfer_symlink_item":
            raise TransferError.bad_request("Symbolic link items are not supported here.")
    level = checked.get("sync_level")
    if level is not None and level not in (0, 1, 2, 3):
        raise TransferError.bad_request("sync_level must be 0, 1, 2 or 3.")
    if checked.get("recursive_symlinks", "ignore") not in ("ignore", "copy"):
        raise TransferError.bad_request("recursive_symlinks must be 'ignore' or 'copy' here.")
    check_rules(checked.get("filter_rules") or [])
    deadline = deadline_of(checked)
    if deadline is not None and deadline <= time.time():
        raise TransferError.bad_request("deadline must lie in the future.")
    json.dumps(checked)
    return checked
