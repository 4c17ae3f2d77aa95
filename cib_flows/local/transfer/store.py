"""What the Transfer service remembers: tasks, their events, the files they moved, and flows'
actions."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cib_flows.local.database import Database

__all__ = ["Action", "TaskRow", "TransferStore"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS transfer_tasks (
    id TEXT PRIMARY KEY, submission_id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, type TEXT NOT NULL,
    request TEXT NOT NULL, status TEXT NOT NULL, progress TEXT NOT NULL, created REAL NOT NULL,
    completed REAL
);
CREATE TABLE IF NOT EXISTS transfer_events (
    number INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT NOT NULL, time REAL NOT NULL,
    code TEXT NOT NULL, description TEXT NOT NULL, details TEXT NOT NULL, is_error INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS transfer_events_task ON transfer_events (task_id, number);
CREATE TABLE IF NOT EXISTS transfer_files (
    task_id TEXT NOT NULL, source TEXT NOT NULL, destination TEXT NOT NULL,
    PRIMARY KEY (task_id, destination)
);
CREATE TABLE IF NOT EXISTS transfer_actions (
    id TEXT PRIMARY KEY, request_id TEXT NOT NULL UNIQUE, task_id TEXT, status TEXT NOT NULL,
    details TEXT, creator TEXT NOT NULL, label TEXT, created REAL NOT NULL
);
"""


@dataclass(frozen=True)
class TaskRow:
    """A task: what was asked (``request``), and how far it is (``progress``, the counters)."""

    id: str
    submission_id: str
    owner: str
    type: str
    request: dict[str, Any]
    status: str
    progress: dict[str, Any]
    created: float
    completed: float | None


@dataclass(frozen=True)
class Action:
    """A flow's action: one with a task follows it, one without was done at once."""

    id: str
    task_id: str | None
    status: str
    details: Any
    creator: str
    label: str | None
    created: float


class TransferStore:
    def __init__(self, database: Database) -> None:
        self._database = database
        # What is written within it is kept together, or not at all.
        self.transaction = database.transaction
        database.create(SCHEMA)

    # -- tasks ---------------------------------------------------------------------------------

    def add_task(
        self,
        task_id: str,
        submission_id: str,
        owner: str,
        kind: str,
        request: Mapping[str, Any],
        action: Action | None = None,
        request_id: str = "",
    ) -> None:
        """Store a task as ACTIVE, together with the action it stands for, if any."""
        with self._database.transaction():
            self._database.execute(
                "INSERT INTO transfer_tasks VALUES (?, ?, ?, ?, ?, 'ACTIVE', '{}', ?, NULL)",
                (task_id, submission_id, owner, kind, json.dumps(request), time.time()),
            )
            if action is not None:
                self.add_action(action, request_id)

    def task(self, task_id: str) -> TaskRow | None:
        return self._first("WHERE id = ?", (task_id,))

    def task_of_submission(self, submission_id: str) -> TaskRow | None:
        return self._first("WHERE submission_id = ?", (submission_id,))

    def tasks(self, owner: str, limit: int, offset: int) -> list[TaskRow]:
        return self._tasks(
            "WHERE owner = ? ORDER BY created DESC LIMIT ? OFFSET ?", (owner, limit, offset)
        )

    def active_tasks(self) -> list[TaskRow]:
        return self._tasks("WHERE completed IS NULL ORDER BY created", ())

    def count_tasks(self, owner: str) -> int:
        row = self._database.row(
            "SELECT count(*) AS n FROM transfer_tasks WHERE owner = ?", (owner,)
        )
        return int(row["n"]) if row is not None else 0

    def save_progress(self, task_id: str, progress: Mapping[str, Any]) -> None:
        self._database.execute(
            "UPDATE transfer_tasks SET progress = ? WHERE id = ? AND completed IS NULL",
            (json.dumps(progress), task_id),
        )

    def finish(self, task_id: str, status: str, progress: Mapping[str, Any]) -> bool:
        """End a task; False when it has ended before."""
        return (
            self._database.execute(
                "UPDATE transfer_tasks SET status = ?, progress = ?, completed = ? "
                "WHERE id = ? AND completed IS NULL",
                (status, json.dumps(progress), time.time(), task_id),
            )
            > 0
        )

    def set_label(self, task_id: str, request: Mapping[str, Any]) -> None:
        self._database.execute(
            "UPDATE transfer_tasks SET request = ? WHERE id = ?", (json.dumps(request), task_id)
        )

    def _first(self, clause: str, parameters: tuple[Any, ...]) -> TaskRow | None:
        return next(iter(self._tasks(clause, parameters)), None)

    def _tasks(self, clause: str, parameters: tuple[Any, ...]) -> list[TaskRow]:
        rows = self._database.rows(
            f"SELECT * FROM transfer_tasks {clause}",  # noqa: S608 - clauses are this module's own
            parameters,
        )
        return [
            TaskRow(
                row["id"],
                row["submission_id"],
                row["owner"],
                row["type"],
                json.loads(row["request"]),
                row["status"],
                json.loads(row["progress"]),
                row["created"],
                row["completed"],
            )
            for row in rows
        ]

    # -- what happened -------------------------------------------------------------------------

    def add_event(
        self, task_id: str, code: str, description: str, details: Any, is_error: bool
    ) -> None:
        self._database.execute(
            "INSERT INTO transfer_events (task_id, time, code, description, details, is_error) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (task_id, time.time(), code, description, json.dumps(details), int(is_error)),
        )

    def events(self, task_id: str, limit: int, offset: int) -> tuple[list[dict[str, Any]], int]:
        """A page of the task's events, newest first, and how many there are."""
        rows = self._database.rows(
            "SELECT * FROM transfer_events WHERE task_id = ? ORDER BY number DESC LIMIT ? OFFSET ?",
            (task_id, limit, offset),
        )
        total = self._database.row(
            "SELECT count(*) AS n FROM transfer_events WHERE task_id = ?", (task_id,)
        )
        return [dict(row) for row in rows], int(total["n"]) if total is not None else 0

    def has_events(self, task_id: str) -> bool:
        found = self._database.row(
            "SELECT 1 FROM transfer_events WHERE task_id = ? LIMIT 1", (task_id,)
        )
        return found is not None

    def add_file(self, task_id: str, source: str, destination: str) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO transfer_files VALUES (?, ?, ?)",
            (task_id, source, destination),
        )

    def moved(self, task_id: str) -> list[str]:
        """Where the files are that the task has moved."""
        rows = self._database.rows(
            "SELECT destination FROM transfer_files WHERE task_id = ?", (task_id,)
        )
        return [row["destination"] for row in rows]

    def files(self, task_id: str, limit: int, offset: int) -> list[tuple[str, str]]:
        rows = self._database.rows(
            "SELECT source, destination FROM transfer_files WHERE task_id = ? "
            "ORDER BY destination LIMIT ? OFFSET ?",
            (task_id, limit, offset),
        )
        return [(row["source"], row["destination"]) for row in rows]

    # -- actions -------------------------------------------------------------------------------

    def add_action(self, action: Action, request_id: str) -> None:
        """Keep an action; one that was kept before gets this status and these details."""
        self._database.execute(
            "INSERT INTO transfer_actions VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id)"
            " DO UPDATE SET status = excluded.status, details = excluded.details",
            (
                action.id,
                request_id,
                action.task_id,
                action.status,
                json.dumps(action.details),
                action.creator,
                action.label,
                action.created,
            ),
        )

    def action(self, action_id: str) -> Action | None:
        return self._action("id", action_id)

    def action_of_request(self, request_id: str) -> Action | None:
        return self._action("request_id", request_id)

    def _action(self, column: str, value: str) -> Action | None:
        row = self._database.row(
            f"SELECT * FROM transfer_actions WHERE {column} = ?",  # noqa: S608
            (value,),
        )
        if row is None:
            return None
        return Action(
            row["id"],
            row["task_id"],
            row["status"],
            json.loads(row["details"]),
            row["creator"],
            row["label"],
            row["created"],
        )
