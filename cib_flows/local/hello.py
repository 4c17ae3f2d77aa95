"""The Hello World action provider, with which most people's first flow speaks."""

from __future__ import annotations

import sqlite3
import time
import uuid
from datetime import datetime, timezone
from typing import Any

from cib_flows.local import clock
from cib_flows.local.actions import ActionRefused, ActionRequest, ActionStatus, StatusName
from cib_flows.local.database import Database

__all__ = ["HELLO_URL", "HelloProvider"]

HELLO_URL = "https://actions.globus.org/hello_world"
MAX_SLEEP_S = 31_536_000

SCHEMA = """
CREATE TABLE IF NOT EXISTS hello_actions (
    id TEXT PRIMARY KEY, request_id TEXT NOT NULL UNIQUE, creator TEXT NOT NULL, echo TEXT NOT NULL,
    created REAL NOT NULL, until REAL NOT NULL, canceled INTEGER NOT NULL DEFAULT 0
);
"""


class HelloProvider:
    """Says hello, and its ``echo_string``, after ``sleep_time`` seconds."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.create(SCHEMA)

    async def run(self, request: ActionRequest) -> ActionStatus:
        echo = request.body.get("echo_string", "")
        seconds = request.body.get("sleep_time", 0)
        if not isinstance(echo, str):
            raise _bad("echo_string must be a text")
        is_number = isinstance(seconds, int) and not isinstance(seconds, bool)
        if not is_number or not 0 <= seconds <= MAX_SLEEP_S:
            raise _bad(f"sleep_time must be a whole number of seconds from 0 to {MAX_SLEEP_S}")
        now = time.time()
        self._database.execute(
            "INSERT OR IGNORE INTO hello_actions (id, request_id, creator, echo, created, until)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                str(uuid.uuid4()),
                request.request_id,
                request.identity.urn,
                echo,
                now,
                now + seconds,
            ),
        )
        row = self._database.row(
            "SELECT * FROM hello_actions WHERE request_id = ?", (request.request_id,)
        )
        assert row is not None
        return _status(row)

    async def wait(self, action_id: str) -> ActionStatus:
        await clock.reached(self._row(action_id)["until"])
        return _status(self._row(action_id))

    async def status(self, action_id: str) -> ActionStatus:
        return _status(self._row(action_id))

    async def cancel(self, action_id: str) -> ActionStatus:
        now = time.time()
        self._database.execute(
            "UPDATE hello_actions SET canceled = 1, until = ? WHERE id = ? AND until > ?",
            (now, action_id, now),
        )
        return _status(self._row(action_id))

    def _row(self, action_id: str) -> sqlite3.Row:
        row = self._database.row("SELECT * FROM hello_actions WHERE id = ?", (action_id,))
        if row is None:
            raise ActionRefused(
                404, {"code": "NOT_FOUND", "message": f"There is no action {action_id}"}
            )
        return row


def _status(row: sqlite3.Row) -> ActionStatus:
    is_over = row["until"] <= time.time()
    name: StatusName = "ACTIVE" if not is_over else "FAILED" if row["canceled"] else "SUCCEEDED"
    details: dict[str, Any] = {}
    if name == "SUCCEEDED":
        details = {"Hello": "World", "hello": row["echo"]}
    elif name == "FAILED":
        details = {"code": "Canceled", "description": "The action was canceled."}
    return ActionStatus(
        action_id=row["id"],
        status=name,
        details=details,
        display_status=name,
        start_time=_timestamp(row["created"]),
        completion_time=_timestamp(row["until"]) if is_over else None,
        creator_id=row["creator"],
    )


def _timestamp(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).isoformat()


def _bad(sentence: str) -> ActionRefused:
    return ActionRefused(422, {"code": "RequestValidationError", "description": sentence})
