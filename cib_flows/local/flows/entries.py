"""What the log says about a state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import states
from .errors import StateError
from .states import Finished
from .store import LogEntry, Run

__all__ = ["completed", "started", "state_failed"]

State = Mapping[str, Any]


def started(run: Run, state: State, shown_input: Any, warnings: list[str]) -> LogEntry:
    return _entry(run, state, "Started", {"input": shown_input}, warnings)


def completed(run: Run, state: State, finished: Finished) -> LogEntry:
    return _entry(run, state, "Completed", {"output": finished.output}, finished.warnings)


def state_failed(run: Run, state: State, error: StateError, warnings: list[str]) -> LogEntry:
    details = {"error": error.error, "cause": states.shown(error.cause)}
    return _entry(run, state, "Failed", details, warnings)


def _entry(
    run: Run, state: State, event: str, details: dict[str, Any], warnings: list[str]
) -> LogEntry:
    kind = state["Type"]
    content: dict[str, Any] = {"state_name": run.state_name, "state_type": kind, **details}
    if warnings:
        # Not in the hosted service's entries: which reading of an undocumented behaviour was taken.
        content["warnings"] = warnings
    description = f"State {run.state_name} of type {kind} {event.lower()}"
    return LogEntry(f"{kind}{event}", description, content)
