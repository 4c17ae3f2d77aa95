"""What the Search service remembers: indexes, roles, entries, tasks."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from cib_flows.local.database import Database

__all__ = ["Entry", "Index", "Role", "SearchStore", "SearchTask"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS search_indexes (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, description TEXT NOT NULL, status TEXT NOT NULL,
    created TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS search_roles (
    id TEXT PRIMARY KEY, index_id TEXT NOT NULL, role_name TEXT NOT NULL, principal TEXT NOT NULL,
    created TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS search_entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT, index_id TEXT NOT NULL, subject TEXT NOT NULL,
    entry_id TEXT, visible_to TEXT NOT NULL, content TEXT NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS search_entries_place
    ON search_entries (index_id, subject, coalesce(entry_id, ''));
CREATE TABLE IF NOT EXISTS search_tasks (
    id TEXT PRIMARY KEY, index_id TEXT NOT NULL, task_type TEXT NOT NULL, creator TEXT NOT NULL,
    message TEXT NOT NULL, created TEXT NOT NULL, request_id TEXT UNIQUE
);
"""


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S")


@dataclass(frozen=True)
class Index:
    id: str
    name: str
    description: str
    status: str
    created: str


@dataclass(frozen=True)
class Role:
    id: str
    index_id: str
    role_name: str
    principal: str
    created: str


@dataclass(frozen=True)
class Entry:
    subject: str
    entry_id: str | None
    visible_to: list[str]
    content: Any


@dataclass(frozen=True)
class SearchTask:
    """A task; it was done when it was made."""

    id: str
    index_id: str
    task_type: str
    creator: str
    message: str
    created: str


class SearchStore:
    def __init__(self, database: Database) -> None:
        self._database = database
        database.create(SCHEMA)

    # -- indexes and roles ---------------------------------------------------------------------

    def add_index(self, name: str, description: str, owner: str) -> Index:
        index = Index(str(uuid.uuid4()), name, description, "open", now())
        with self._database.transaction():
            self._database.execute(
                "INSERT INTO search_indexes VALUES (?, ?, ?, ?, ?)",
                (index.id, index.name, index.description, index.status, index.created),
            )
            self.add_role(index.id, "owner", owner)
        return index

    def index(self, index_id: str) -> Index | None:
        row = self._database.row("SELECT * FROM search_indexes WHERE id = ?", (index_id,))
        return None if row is None else Index(*row)

    def indexes(self) -> list[Index]:
        rows = self._database.rows("SELECT * FROM search_indexes ORDER BY created, id")
        return [Index(*row) for row in rows]

    def change_index(self, index: Index) -> None:
        self._database.execute(
            "UPDATE search_indexes SET name = ?, description = ?, status = ? WHERE id = ?",
            (index.name, index.description, index.status, index.id),
        )

    def add_role(self, index_id: str, role_name: str, principal: str) -> Role:
        role = Role(str(uuid.uuid4()), index_id, role_name, principal, now())
        self._database.execute(
            "INSERT INTO search_roles VALUES (?, ?, ?, ?, ?)",
            (role.id, role.index_id, role.role_name, role.principal, role.created),
        )
        return role

    def roles(self, index_id: str) -> list[Role]:
        rows = self._database.rows(
            "SELECT * FROM search_roles WHERE index_id = ? ORDER BY rowid", (index_id,)
        )
        return [Role(*row) for row in rows]

    def delete_role(self, role_id: str) -> None:
        self._database.execute("DELETE FROM search_roles WHERE id = ?", (role_id,))

    # -- entries -------------------------------------------------------------------------------

    def put(self, index_id: str, entries: Iterable[Entry]) -> int:
        """Add entries; one that has a subject and id that are taken replaces what was there."""
        count = 0
        with self._database.transaction():
            for entry in entries:
                self.delete_entry(index_id, entry.subject, entry.entry_id)
                self._database.execute(
                    "INSERT INTO search_entries (index_id, subject, entry_id, visible_to, content) "
                    "VALUES (?, ?, ?, ?, ?)",
                    (
                        index_id,
                        entry.subject,
                        entry.entry_id,
                        json.dumps(entry.visible_to),
                        json.dumps(entry.content),
                    ),
                )
                count += 1
        return count

    def entries(self, index_id: str, subject: str | None = None) -> list[Entry]:
        """Entries in the order of their ingestion; of one subject, or of all."""
        condition, parameters = ("AND subject = ?", [subject]) if subject is not None else ("", [])
        rows = self._database.rows(
            "SELECT subject, entry_id, visible_to, content FROM search_entries "  # noqa: S608
            f"WHERE index_id = ? {condition} ORDER BY number",
            [index_id, *parameters],
        )
        return [Entry(row[0], row[1], json.loads(row[2]), json.loads(row[3])) for row in rows]

    def delete_entry(self, index_id: str, subject: str, entry_id: str | None) -> int:
        return self._database.execute(
            "DELETE FROM search_entries WHERE index_id = ? AND subject = ? AND entry_id IS ?",
            (index_id, subject, entry_id),
        )

    def delete_subjects(self, index_id: str, subjects: Iterable[str]) -> int:
        count = 0
        with self._database.transaction():
            for subject in subjects:
                count += self._database.execute(
                    "DELETE FROM search_entries WHERE index_id = ? AND subject = ?",
                    (index_id, subject),
                )
        return count

    # -- tasks ---------------------------------------------------------------------------------

    def add_task(
        self,
        index_id: str,
        task_type: str,
        creator: str,
        message: str,
        request_id: str | None = None,
    ) -> SearchTask:
        task = SearchTask(str(uuid.uuid4()), index_id, task_type, creator, message, now())
        self._database.execute(
            "INSERT INTO search_tasks VALUES (?, ?, ?, ?, ?, ?, ?)",
            (task.id, index_id, task_type, creator, message, task.created, request_id),
        )
        return task

    def task(self, task_id: str) -> SearchTask | None:
        return self._task("id", task_id)

    def task_of_request(self, request_id: str) -> SearchTask | None:
        return self._task("request_id", request_id)

    def _task(self, column: str, value: str) -> SearchTask | None:
        row = self._database.row(
            "SELECT id, index_id, task_type, creator, message, created FROM search_tasks "  # noqa: S608
            f"WHERE {column} = ?",
            (value,),
        )
        return None if row is None else SearchTask(*row)

    def tasks(self, index_id: str) -> list[SearchTask]:
        rows = self._database.rows(
            "SELECT id, index_id, task_type, creator, message, created FROM search_tasks "
            "WHERE index_id = ? ORDER BY created DESC, id",
            (index_id,),
        )
        return [SearchTask(*row) for row in rows]

    def transaction(self) -> Any:
        return self._database.transaction()
