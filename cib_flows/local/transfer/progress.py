"""How far a Transfer task is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Progress"]


@dataclass
class Progress:
    """The counters of a task document, and what an attempt must know of the ones before it."""

    files: int = 0
    directories: int = 0
    files_transferred: int = 0
    files_skipped: int = 0
    bytes_transferred: int = 0
    bytes_checksummed: int = 0
    subtasks_total: int = 0
    subtasks_succeeded: int = 0
    subtasks_failed: int = 0
    subtasks_canceled: int = 0
    subtasks_skipped_errors: int = 0
    faults: int = 0
    nice_status: str | None = None
    nice_status_details: str | None = None
    fatal_error: dict[str, str] | None = None
    skipped_errors: list[dict[str, Any]] = field(default_factory=list)
    # For each item of a DELETE whose removal was begun: how many files and folders it was.
    removals: list[int] = field(default_factory=list)
