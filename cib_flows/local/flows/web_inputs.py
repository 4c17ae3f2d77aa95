"""Questions that runs ask people: kept, answered once, and waited for."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from cib_flows.local.database import Database

from .question import Question
from .store import now_text

__all__ = ["LIFETIME", "WebInput", "WebInputs"]

# How long a web input stays open is not documented.
LIFETIME = 30 * 86_400.0

SCHEMA = """
CREATE TABLE IF NOT EXISTS web_inputs (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    web_input_id TEXT NOT NULL UNIQUE,
    run_id TEXT NOT NULL,
    flow_id TEXT NOT NULL,
    creator TEXT NOT NULL,
    question TEXT NOT NULL,
    created TEXT NOT NULL,
    expires REAL NOT NULL,
    closed TEXT,
    option_id TEXT
);
CREATE INDEX IF NOT EXISTS web_inputs_open ON web_inputs (closed);
"""


@dataclass(frozen=True)
class WebInput:
    """``option_id`` is the answer; None for one that is open, or was closed without an answer."""

    n: int
    id: str
    run_id: str
    flow_id: str
    creator: str
    question: Question
    created: str
    expires: float
    closed: str | None
    option_id: str | None

    @property
    def status(self) -> str:
        return "closed" if self.closed_timestamp is not None else "open"

    @property
    def closed_timestamp(self) -> str | None:
        if self.closed is None and self.expires <= time.time():
            return datetime.fromtimestamp(self.expires, timezone.utc).isoformat()
        return self.closed

    @property
    def answer(self) -> Any:
        """What the chosen option means in the flow."""
        return None if self.option_id is None else self.question.values[self.option_id]


class WebInputs:
    """Every write is one transaction.

    :param lifetime: seconds for which a question stays open
    """

    def __init__(self, database: Database, lifetime: float = LIFETIME) -> None:
        self._database = database
        self._lifetime = lifetime
        self._answered: dict[str, asyncio.Event] = {}
        database.create(SCHEMA)

    @property
    def lifetime(self) -> float:
        return self._lifetime

    def ask(
        self, web_input_id: str, run_id: str, flow_id: str, creator: str, question: Question
    ) -> None:
        """Open a question; the same id again is the same question."""
        self._database.execute(
            "INSERT OR IGNORE INTO web_inputs"
            " (web_input_id, run_id, flow_id, creator, question, created, expires)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                web_input_id,
                run_id,
                flow_id,
                creator,
                json.dumps(vars(question)),
                now_text(),
                time.time() + self._lifetime,
            ),
        )

    def get(self, web_input_id: str) -> WebInput | None:
        row = self._database.row("SELECT * FROM web_inputs WHERE web_input_id = ?", (web_input_id,))
        return None if row is None else _web_input(row)

    def all(self) -> list[WebInput]:
        """Every web input, oldest first."""
        return [
            _web_input(row) for row in self._database.rows("SELECT * FROM web_inputs ORDER BY n")
        ]

    def respond(self, web_input_id: str, option_id: str) -> bool:
        """Keep the answer and wake who waits for it; False when the question was closed already."""
        kept = self._database.execute(
            "UPDATE web_inputs SET closed = ?, option_id = ?"
            " WHERE web_input_id = ? AND closed IS NULL AND expires > ?",
            (now_text(), option_id, web_input_id, time.time()),
        )
        event = self._answered.get(web_input_id)
        if event is not None:
            event.set()
        return kept == 1

    def close_ended(self) -> None:
        """Close what runs that have ended left open."""
        self._database.execute(
            "UPDATE web_inputs SET closed = ? WHERE closed IS NULL AND run_id IN"
            " (SELECT run_id FROM runs WHERE status NOT IN ('ACTIVE', 'INACTIVE'))",
            (now_text(),),
        )

    def forget(self, run_id: str) -> None:
        """Remove a run's questions with it."""
        self._database.execute("DELETE FROM web_inputs WHERE run_id = ?", (run_id,))

    async def closed(self, web_input_id: str, cancelled: asyncio.Event) -> WebInput | None:
        """The web input when it has been answered or has expired; None when the run was cancelled
        meanwhile, or there is no such web input."""
        event = self._answered.setdefault(web_input_id, asyncio.Event())
        try:
            while True:
                asked = self.get(web_input_id)
                if asked is None or asked.status == "closed":
                    return asked
                waits = [asyncio.ensure_future(e.wait()) for e in (event, cancelled)]
                try:
                    await asyncio.wait(
                        waits,
                        timeout=max(0.0, asked.expires - time.time()),
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                finally:
                    for wait in waits:
                        wait.cancel()
                if cancelled.is_set():
                    return None
        finally:
            self._answered.pop(web_input_id, None)


def _web_input(row: sqlite3.Row) -> WebInput:
    kept: Mapping[str, Any] = json.loads(row["question"])
    return WebInput(
        n=row["n"],
        id=row["web_input_id"],
        run_id=row["run_id"],
        flow_id=row["flow_id"],
        creator=row["creator"],
        question=Question(**kept),
        created=row["created"],
        expires=row["expires"],
        closed=row["closed"],
        option_id=row["option_id"],
    )
