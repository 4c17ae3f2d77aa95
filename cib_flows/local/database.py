"""One SQLite file for everything the embedded Globus must remember.

Each service module owns its tables: it passes its ``CREATE TABLE IF NOT EXISTS`` statements to
:meth:`Database.create`. Writes are short transactions made durable before the caller goes on, so that a
killed server finds on restart exactly what its clients were told.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["Database", "DiskFull"]

Parameters = Sequence[Any]


class DiskFull(Exception):
    """A write could not be kept, because there is no room or the disk fails. Nothing of it was: it
    may be repeated."""

    def __init__(self, problem: sqlite3.Error) -> None:
        super().__init__(f"The local Globus cannot write to its database: {problem}.")


def _is_disk(problem: sqlite3.Error) -> bool:
    text = str(problem)
    return "disk is full" in text or "disk I/O error" in text or "readonly database" in text


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
        # What befalls a change at the moment before it is kept, and at the one after.
        self.before_commit: Callable[[], None] = lambda: None
        self.after_commit: Callable[[], None] = lambda: None

    def create(self, schema: str) -> None:
        """Run a module's ``CREATE … IF NOT EXISTS`` statements."""
        with self._lock:
            self._connection.executescript(schema)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Group writes: all of them are kept, or none. May be nested. Raises :class:`DiskFull`."""
        with self._lock:
            if self._depth > 0:
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1
                return
            try:
                before = self._connection.total_changes
                self._connection.execute("BEGIN IMMEDIATE")
                self._depth = 1
                try:
                    yield
                finally:
                    self._depth = 0
                changed = self._connection.total_changes != before
                if changed:
                    self.before_commit()
                self._connection.execute("COMMIT")
                if changed:
                    self.after_commit()
            except BaseException as problem:
                # On a full disk SQLite may have done so by itself.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                if isinstance(problem, sqlite3.OperationalError) and _is_disk(problem):
                    raise DiskFull(problem) from problem
                raise

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
