"""What the Compute service remembers: functions, task groups, tasks, and actions that flows
started."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cib_flows.local.database import Database

__all__ = ["ComputeStore", "Function", "StoredAction", "Task", "Work"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS compute_functions (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, packed_code TEXT NOT NULL,
    description TEXT, metadata TEXT, created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS compute_groups (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, has_queue INTEGER NOT NULL, created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS compute_tasks (
    id TEXT PRIMARY KEY, group_id TEXT NOT NULL REFERENCES compute_groups (id), position INTEGER NOT NULL,
    function_id TEXT NOT NULL, status TEXT NOT NULL, result TEXT, delivered INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL, completed REAL
);
CREATE INDEX IF NOT EXISTS compute_tasks_group ON compute_tasks (group_id, position);
CREATE INDEX IF NOT EXISTS compute_tasks_open ON compute_tasks (status) WHERE completed IS NULL;
CREATE TABLE IF NOT EXISTS compute_actions (
    id TEXT PRIMARY KEY, request_id TEXT NOT NULL UNIQUE, group_id TEXT NOT NULL, creator TEXT NOT NULL,
    created REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS compute_work (
    task_id TEXT PRIMARY KEY, endpoint_id TEXT NOT NULL, place TEXT NOT NULL, how TEXT NOT NULL,
    payload TEXT NOT NULL, taken_by TEXT
);
CREATE INDEX IF NOT EXISTS compute_work_place ON compute_work (place);
"""

WAITING = "waiting-for-ep"


@dataclass(frozen=True)
class Function:
    id: str
    owner: str
    name: str
    packed_code: str
    description: str | None
    metadata: dict[str, Any] | None


@dataclass(frozen=True)
class Task:
    """A task; ``result`` is its packed result message once it is complete."""

    id: str
    group_id: str
    status: str
    result: str | None
    created: float
    completed: float | None

    @property
    def message(self) -> dict[str, Any] | None:
        """The data of the result message."""
        if self.result is None:
            return None
        data: dict[str, Any] = json.loads(self.result)["data"]
        return data


@dataclass(frozen=True)
class StoredAction:
    id: str
    group_id: str
    creator: str
    created: float


@dataclass(frozen=True)
class Work:
    """What an open task needs to be run. ``place`` says which user endpoint is to run it,
    ``taken_by`` which process was given it; None while nobody was."""

    task_id: str
    function_id: str
    endpoint_id: str
    place: str
    payload: str
    config: dict[str, Any]
    runtime: dict[str, Any]
    resource_specification: dict[str, Any] | None = None
    result_serializers: list[str] | None = None
    taken_by: str | None = None
    owner: tuple[str, str, str | None] | None = None  # id, user name, e-mail


class ComputeStore:
    def __init__(self, database: Database) -> None:
        self._database = database
        database.create(SCHEMA)

    # -- functions -----------------------------------------------------------------------------

    def add_function(
        self,
        owner: str,
        name: str,
        packed_code: str,
        description: str | None,
        metadata: dict[str, Any] | None,
    ) -> str:
        function_id = str(uuid.uuid4())
        self._database.execute(
            "INSERT INTO compute_functions VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                function_id,
                owner,
                name,
                packed_code,
                description,
                json.dumps(metadata) if metadata is not None else None,
                time.time(),
            ),
        )
        return function_id

    def function(self, function_id: str) -> Function | None:
        row = self._database.row("SELECT * FROM compute_functions WHERE id = ?", (function_id,))
        if row is None:
            return None
        metadata = json.loads(row["metadata"]) if row["metadata"] is not None else None
        return Function(
            row["id"], row["owner"], row["name"], row["packed_code"], row["description"], metadata
        )

    def delete_function(self, function_id: str) -> bool:
        return (
            self._database.execute("DELETE FROM compute_functions WHERE id = ?", (function_id,)) > 0
        )

    # -- tasks ---------------------------------------------------------------------------------

    def add_tasks(
        self,
        owner: str,
        group_id: str,
        has_queue: bool,
        tasks: Sequence[Work],
        action: tuple[str, str] | None = None,
    ) -> None:
        """Store tasks as waiting; with ``action`` (its id and request id) also the action that they
        make up. All of it, or nothing."""
        now = time.time()
        with self._database.transaction():
            self._database.execute(
                "INSERT INTO compute_groups VALUES (?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET has_queue = max(has_queue, excluded.has_queue)",
                (group_id, owner, int(has_queue), now),
            )
            row = self._database.row(
                "SELECT count(*) AS n FROM compute_tasks WHERE group_id = ?", (group_id,)
            )
            first = row["n"] if row is not None else 0
            for position, task in enumerate(tasks, first):
                self._database.execute(
                    "INSERT INTO compute_tasks (id, group_id, position, function_id, status, created) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    (task.task_id, group_id, position, task.function_id, WAITING, now),
                )
                how = [
                    task.config,
                    task.runtime,
                    task.resource_specification,
                    task.result_serializers,
                    task.owner,
                ]
                self._database.execute(
                    "INSERT INTO compute_work (task_id, endpoint_id, place, how, payload) "
                    "VALUES (?, ?, ?, ?, ?)",
                    (task.task_id, task.endpoint_id, task.place, json.dumps(how), task.payload),
                )
            if action is not None:
                self._database.execute(
                    "INSERT INTO compute_actions VALUES (?, ?, ?, ?, ?)",
                    (action[0], action[1], group_id, owner, now),
                )

    def complete(self, task_id: str, result: str, failed: bool) -> bool:
        """Keep a task's result message; False when the task is unknown or already complete."""
        with self._database.transaction():
            self._database.execute("DELETE FROM compute_work WHERE task_id = ?", (task_id,))
            touched = self._database.execute(
                "UPDATE compute_tasks SET status = ?, result = ?, completed = ? "
                "WHERE id = ? AND completed IS NULL",
                ("failed" if failed else "success", result, time.time(), task_id),
            )
        return touched > 0

    def take(self, task_id: str, by: str) -> None:
        """Note that a process was given an open task."""
        self._database.execute(
            "UPDATE compute_work SET taken_by = ? WHERE task_id = ?", (by, task_id)
        )

    def open_work(self, place: str | None = None) -> list[Work]:
        """What is to be run, in the order in which it was asked for; of one place, or of all."""
        columns = "w.task_id, t.function_id, w.endpoint_id, w.place, w.payload, w.how, w.taken_by"
        condition, parameters = ("WHERE w.place = ?", (place,)) if place else ("", ())
        rows = self._database.rows(
            f"SELECT {columns} FROM compute_work w JOIN compute_tasks t ON t.id = w.task_id "  # noqa: S608
            f"{condition} ORDER BY t.created, t.position",
            parameters,
        )
        return [_work(row) for row in rows]

    def task(self, task_id: str) -> Task | None:
        return next(iter(self._tasks("id = ?", (task_id,))), None)

    def group_tasks(self, group_id: str) -> list[Task]:
        return self._tasks("group_id = ?", (group_id,))

    def open_tasks(self) -> list[Task]:
        return self._tasks("completed IS NULL", ())

    def undelivered(self, group_id: str) -> list[str]:
        """Ids of the group's complete tasks whose results no client has acknowledged."""
        rows = self._database.rows(
            "SELECT id FROM compute_tasks WHERE group_id = ? AND completed IS NOT NULL "
            "AND delivered = 0 ORDER BY completed",
            (group_id,),
        )
        return [row["id"] for row in rows]

    def mark_delivered(self, task_id: str) -> None:
        self._database.execute("UPDATE compute_tasks SET delivered = 1 WHERE id = ?", (task_id,))

    def _tasks(self, condition: str, parameters: Iterable[Any]) -> list[Task]:
        columns = "id, group_id, status, result, created, completed"
        # The conditions are this module's own; what callers give goes into the parameters.
        query = f"SELECT {columns} FROM compute_tasks WHERE {condition} ORDER BY position"  # noqa: S608
        rows = self._database.rows(query, tuple(parameters))
        return [Task(*row) for row in rows]

    def group_owner(self, group_id: str) -> str | None:
        row = self._database.row("SELECT owner FROM compute_groups WHERE id = ?", (group_id,))
        return None if row is None else str(row["owner"])

    def group_queue(self, group_id: str) -> bool | None:
        """Whether the group's results go to a queue; None for an unknown group."""
        row = self._database.row("SELECT has_queue FROM compute_groups WHERE id = ?", (group_id,))
        return None if row is None else bool(row["has_queue"])

    # -- actions -------------------------------------------------------------------------------

    def action(self, action_id: str) -> StoredAction | None:
        return self._action("id", action_id)

    def action_of_request(self, request_id: str) -> StoredAction | None:
        return self._action("request_id", request_id)

    def _action(self, column: str, value: str) -> StoredAction | None:
        row = self._database.row(
            f"SELECT id, group_id, creator, created FROM compute_actions WHERE {column} = ?",  # noqa: S608
            (value,),
        )
        return None if row is None else StoredAction(*row)


def _work(row: Any) -> Work:
    config, runtime, specification, serializers, owner = json.loads(row["how"])
    return Work(
        task_id=row["task_id"],
        function_id=row["function_id"],
        endpoint_id=row["endpoint_id"],
        place=row["place"],
        payload=row["payload"],
        config=config,
        runtime=runtime,
        resource_specification=specification,
        result_serializers=serializers,
        taken_by=row["taken_by"],
        owner=owner,
    )
