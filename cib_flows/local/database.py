"""One SQLite file for everything the embedded Globus must remember.

Each service module owns its tables: it passes its ``CREATE TABLE IF NOT EXISTS`` statements to
:meth:`Database.create`. Writes are short transactions made durable before the caller goes on, so that a
killed server finds on restart exactly what its clients were told.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Database"]

Parameters = Sequence[Any]


class Database:
    """A thread-safe connection to the home's SQLite file (``:memory:`` in unit tests)."""

    def __init__(self, path: Path | str) -> None:
        self._lock = threading.RLock()
        self._connection = sqlite3.connect(
            str(path), check_same_thread=False, isolation_level=None, timeout=30
        )
        self._connection.row_factory = sqlite3.Row
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._depth = 0

    def create(self, schema: str) -> None:
        """Run a module's ``CREATE … IF NOT EXISTS`` statements."""
        with self._lock:
            self._connection.executescript(schema)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Group writes: all of them are kept, or none. May be nested."""
        with self._lock:
            if self._depth == 0:
                self._connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield
            except BaseException:
                self._depth -= 1
                if self._depth == 0:
                    self._connection.execute("ROLLBACK")
                raise
            self._depth -= 1
            if self._depth == 0:
                self._connection.execute("COMMIT")

    def execute(self, statement: str, parameters: Parameters = ()) -> int:
        """Run one write; returns how many rows it touched."""
        with self.transaction():
            return self._connection.execute(statement, parameters).rowcount

    def rows(self, statement: str, parameters: Parameters = ()) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(statement, parameters).fetchall()

    def row(self, statement: str, parameters: Parameters = ()) -> sqlite3.Row | None:
        with self._lock:
            found: sqlite3.Row | None = self._connection.execute(statement, parameters).fetchone()
            return found

    def close(self) -> None:
        with self._lock:
            self._connection.close()
