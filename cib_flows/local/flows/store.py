"""What the Flows service remembers: flows, runs, and the runs' logs."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from cib_flows.local.actions import Identity
from cib_flows.local.database import Database

__all__ = ["ENDED", "Flow", "LogEntry", "Run", "RunSummary", "Store", "now_text"]

ENDED = frozenset({"SUCCEEDED", "FAILED", "ENDED"})

SCHEMA = """
CREATE TABLE IF NOT EXISTS flows (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    flow_id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    deleted_at TEXT,
    content TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS runs (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL UNIQUE,
    flow_id TEXT NOT NULL,
    owner TEXT NOT NULL,
    status TEXT NOT NULL,
    start_time TEXT NOT NULL,
    completion_time TEXT,
    outcome TEXT,
    submission TEXT NOT NULL,
    definition TEXT NOT NULL,
    input_schema TEXT NOT NULL,
    identity TEXT NOT NULL,
    context TEXT NOT NULL,
    document TEXT NOT NULL,
    state_name TEXT NOT NULL,
    step INTEGER NOT NULL,
    pending TEXT,
    cancel_requested INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS runs_by_status ON runs (status);
CREATE INDEX IF NOT EXISTS runs_by_flow ON runs (flow_id);
CREATE TABLE IF NOT EXISTS run_log (
    run_id TEXT NOT NULL,
    n INTEGER NOT NULL,
    time TEXT NOT NULL,
    code TEXT NOT NULL,
    description TEXT NOT NULL,
    details TEXT NOT NULL,
    PRIMARY KEY (run_id, n)
) WITHOUT ROWID;
"""
SUMMARY = (
    "n, run_id, flow_id, owner, status, start_time, completion_time, outcome, submission, pending"
)


def now_text() -> str:
    """The present moment as the services write it."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


def _text(value: Any) -> str:
    # Escaped, since JSON may hold halves of surrogate pairs, which SQLite does not take.
    return json.dumps(value, separators=(",", ":"))


@dataclass
class Flow:
    """``content`` holds what its author sent: title, definition, input_schema, roles, keywords and
    so on."""

    id: str
    owner: str
    created_at: str
    updated_at: str
    content: dict[str, Any]
    n: int = 0


@dataclass(frozen=True)
class LogEntry:
    code: str
    description: str
    details: dict[str, Any]
    time: str = field(default_factory=now_text)

    def document(self) -> dict[str, Any]:
        return {
            "time": self.time,
            "code": self.code,
            "description": self.description,
            "details": self.details,
        }


@dataclass
class RunSummary:
    """A run as lists show it. ``submission`` holds label, tags, roles and the flow's title;
    ``outcome`` the details of a run that ended or is inactive; ``web_input_id`` names the question
    that it waits for."""

    n: int
    id: str
    flow_id: str
    owner: str
    status: str
    start_time: str
    completion_time: str | None
    outcome: dict[str, Any] | None
    submission: dict[str, Any]
    web_input_id: str | None = None


@dataclass
class Run:
    """A run as the interpreter moves it: where it is, with which document, and what it waits for.

    ``step`` counts the states entered. ``pending`` is what the present state has begun:
    ``request_id``, ``action_id`` and ``deadline`` of an Action, ``until`` of a Wait, or the
    ``web_input_id`` that an answer is awaited for.
    """

    id: str
    flow_id: str
    definition: dict[str, Any]
    identity: Identity
    context: dict[str, Any]
    document: Any
    state_name: str
    step: int
    pending: dict[str, Any] | None
    cancel_requested: bool


class Store:
    """Every write method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # What is written within it is kept together, or not at all.
        self.transaction = database.transaction
        database.create(SCHEMA)

    # --- flows ------------------------------------------------------------------------------------

    def add_flow(self, flow: Flow) -> None:
        self._database.execute(
            "INSERT INTO flows (flow_id, owner, created_at, updated_at, content) VALUES (?, ?, ?,"
            " ?, ?)",
            (flow.id, flow.owner, flow.created_at, flow.updated_at, _text(flow.content)),
        )

    def change_flow(self, flow: Flow) -> None:
        self._database.execute(
            "UPDATE flows SET owner = ?, updated_at = ?, content = ? WHERE flow_id = ?",
            (flow.owner, flow.updated_at, _text(flow.content), flow.id),
        )

    def delete_flow(self, flow_id: str, deleted_at: str) -> None:
        self._database.execute(
            "UPDATE flows SET deleted_at = ? WHERE flow_id = ?", (deleted_at, flow_id)
        )

    def flow(self, flow_id: str) -> Flow | None:
        row = self._database.row(
            "SELECT * FROM flows WHERE flow_id = ? AND deleted_at IS NULL", (flow_id,)
        )
        return None if row is None else _flow(row)

    def flows(self) -> list[Flow]:
        """Every flow, oldest first."""
        return [
            _flow(row)
            for row in self._database.rows(
                "SELECT * FROM flows WHERE deleted_at IS NULL ORDER BY n"
            )
        ]

    # --- runs -------------------------------------------------------------------------------------

    def add_run(
        self,
        run: Run,
        submission: dict[str, Any],
        input_schema: Any,
        start_time: str,
        entry: LogEntry,
    ) -> None:
        with self._database.transaction():
            self._database.execute(
                "INSERT INTO runs (run_id, flow_id, owner, status, start_time, submission,"
                " definition, input_schema,"
                " identity, context, document, state_name, step) VALUES (?, ?, ?, 'ACTIVE', ?, ?,"
                " ?, ?, ?, ?, ?, ?, 0)",
                (
                    run.id,
                    run.flow_id,
                    run.identity.urn,
                    start_time,
                    _text(submission),
                    _text(run.definition),
                    _text(input_schema),
                    _text([run.identity.id, run.identity.username, run.identity.email]),
                    _text(run.context),
                    _text(run.document),
                    run.state_name,
                ),
            )
            self._log(run.id, [entry])

    def save_run(
        self, run: Run, entries: Sequence[LogEntry], document_text: str | None = None
    ) -> None:
        """Keep where ``run`` is now, with new log entries. ``document_text`` is given when the
        document changed."""
        pending = None if run.pending is None else _text(run.pending)
        with self._database.transaction():
            if document_text is None:
                self._database.execute(
                    "UPDATE runs SET state_name = ?, step = ?, pending = ? WHERE run_id = ?",
                    (run.state_name, run.step, pending, run.id),
                )
            else:
                self._database.execute(
                    "UPDATE runs SET state_name = ?, step = ?, pending = ?, document = ? WHERE"
                    " run_id = ?",
                    (run.state_name, run.step, pending, document_text, run.id),
                )
            self._log(run.id, entries)

    def end_run(
        self,
        run: Run,
        status: str,
        outcome: dict[str, Any],
        entries: Sequence[LogEntry],
        document_text: str | None = None,
    ) -> None:
        """The run's last write."""
        with self._database.transaction():
            self.save_run(run, entries, document_text)
            self._database.execute(
                "UPDATE runs SET status = ?, outcome = ?, completion_time = ?, pending = NULL"
                " WHERE run_id = ?",
                (status, _text(outcome), now_text(), run.id),
            )

    def rest_run(self, run: Run, outcome: dict[str, Any], entry: LogEntry) -> None:
        """From ACTIVE to INACTIVE."""
        with self._database.transaction():
            self.save_run(run, [entry])
            self._database.execute(
                "UPDATE runs SET status = 'INACTIVE', outcome = ? WHERE run_id = ?",
                (_text(outcome), run.id),
            )

    def wake_run(self, run_id: str, entry: LogEntry) -> None:
        """From INACTIVE to ACTIVE."""
        with self._database.transaction():
            self._database.execute(
                "UPDATE runs SET status = 'ACTIVE', outcome = NULL WHERE run_id = ?", (run_id,)
            )
            self._log(run_id, [entry])

    def request_cancel(self, run_id: str) -> None:
        """Mark a run, so that it is cancelled even if the service is killed before it could be. The
        mark makes an INACTIVE run ACTIVE, for its cancellation."""
        self._database.execute(
            "UPDATE runs SET cancel_requested = 1, status = 'ACTIVE'"
            " WHERE run_id = ? AND status IN ('ACTIVE', 'INACTIVE')",
            (run_id,),
        )

    def change_submission(self, run_id: str, submission: dict[str, Any]) -> None:
        self._database.execute(
            "UPDATE runs SET submission = ? WHERE run_id = ?", (_text(submission), run_id)
        )

    def delete_run(self, run_id: str) -> None:
        with self._database.transaction():
            self._database.execute("DELETE FROM runs WHERE run_id = ?", (run_id,))
            self._database.execute("DELETE FROM run_log WHERE run_id = ?", (run_id,))

    def run(self, run_id: str) -> Run | None:
        row = self._database.row("SELECT * FROM runs WHERE run_id = ?", (run_id,))
        if row is None:
            return None
        return Run(
            id=row["run_id"],
            flow_id=row["flow_id"],
            definition=json.loads(row["definition"]),
            identity=Identity(*json.loads(row["identity"])),
            context=json.loads(row["context"]),
            document=json.loads(row["document"]),
            state_name=row["state_name"],
            step=row["step"],
            pending=None if row["pending"] is None else json.loads(row["pending"]),
            cancel_requested=bool(row["cancel_requested"]),
        )

    def active_runs(self) -> list[str]:
        rows = self._database.rows("SELECT run_id FROM runs WHERE status = 'ACTIVE' ORDER BY n")
        return [row["run_id"] for row in rows]

    def summary(self, run_id: str) -> RunSummary | None:
        row = self._database.row(f"SELECT {SUMMARY} FROM runs WHERE run_id = ?", (run_id,))  # noqa: S608 - constant
        return None if row is None else _summary(row)

    def summaries(self, before: int | None = None) -> Iterator[RunSummary]:
        """Runs, newest first, from the one that follows ``before``."""
        last = before if before is not None else 2**62
        while True:
            rows = self._database.rows(
                f"SELECT {SUMMARY} FROM runs WHERE n < ? ORDER BY n DESC LIMIT 200",  # noqa: S608 - constant
                (last,),
            )
            for row in rows:
                yield _summary(row)
            if not rows:
                return
            last = rows[-1]["n"]

    def run_definition(self, run_id: str) -> tuple[Any, Any]:
        """The definition and the input schema that the run was started with."""
        row = self._database.row(
            "SELECT definition, input_schema FROM runs WHERE run_id = ?", (run_id,)
        )
        if row is None:
            raise KeyError(run_id)
        return json.loads(row["definition"]), json.loads(row["input_schema"])

    # --- logs -------------------------------------------------------------------------------------

    def _log(self, run_id: str, entries: Sequence[LogEntry]) -> None:
        for entry in entries:
            self._database.execute(
                "INSERT INTO run_log (run_id, n, time, code, description, details)"
                " SELECT ?, coalesce(max(n), 0) + 1, ?, ?, ?, ? FROM run_log WHERE run_id = ?",
                (run_id, entry.time, entry.code, entry.description, _text(entry.details), run_id),
            )

    def log(
        self, run_id: str, limit: int, after: int | None = None, newest_first: bool = False
    ) -> list[tuple[int, LogEntry]]:
        """Up to ``limit`` entries with their numbers, from the one that follows ``after`` in the
        given order."""
        if newest_first:
            rows = self._database.rows(
                "SELECT * FROM run_log WHERE run_id = ? AND n < ? ORDER BY n DESC LIMIT ?",
                (run_id, 2**62 if after is None else after, limit),
            )
        else:
            rows = self._database.rows(
                "SELECT * FROM run_log WHERE run_id = ? AND n > ? ORDER BY n LIMIT ?",
                (run_id, after or 0, limit),
            )
        return [
            (
                row["n"],
                LogEntry(row["code"], row["description"], json.loads(row["details"]), row["time"]),
            )
            for row in rows
        ]


def _flow(row: sqlite3.Row) -> Flow:
    return Flow(
        id=row["flow_id"],
        owner=row["owner"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        content=json.loads(row["content"]),
        n=row["n"],
    )


def _summary(row: sqlite3.Row) -> RunSummary:
    return RunSummary(
        n=row["n"],
        id=row["run_id"],
        flow_id=row["flow_id"],
        owner=row["owner"],
        status=row["status"],
        start_time=row["start_time"],
        completion_time=row["completion_time"],
        outcome=None if row["outcome"] is None else json.loads(row["outcome"]),
        submission=json.loads(row["submission"]),
        web_input_id=json.loads(row["pending"] or "{}").get("web_input_id"),
    )
