"""Reading from a run's document by JSONPath, and writing results to reference paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cib_flows.flow.paths import (
    CONTEXT,
    Step,
    begins_in_context,
    compiled,
    path_problem,
    reference_path_problem,
    reference_steps,
)

from .errors import StateError

__all__ = ["CONTEXT", "MISSING", "find", "path_problem", "read", "reference_path_problem", "write"]


class _Missing:
    def __repr__(self) -> str:
        return "<missing>"


MISSING: Any = _Missing()


def find(path: str, document: Any, context: Mapping[str, Any] | None = None) -> Any:
    """What ``path`` selects: the value of a path without wildcards, the list of matches of one with
    them, and :data:`MISSING` when nothing matches. ``$._context`` is looked up in ``context``."""
    query = compiled(path)
    root = {CONTEXT: context} if begins_in_context(path) else document
    matches = [match.obj for match in query.finditer(root)]
    if not matches:
        return MISSING
    return matches[0] if query.singular_query() else matches


def read(path: str, document: Any, context: Mapping[str, Any] | None = None) -> Any:
    """As :func:`find`.

    :raises StateError: ``States.ParameterPathFailure`` when the path is malformed or matches
    nothing
    """
    problem = path_problem(path)
    if problem is not None:
        raise StateError("States.ParameterPathFailure", problem)
    value = find(path, document, context)
    if value is MISSING:
        raise StateError(
            "States.ParameterPathFailure", f"The path {path} matches nothing in the run's document."
        )
    return value


def write(path: str, document: Any, value: Any) -> Any:
    """``document`` with ``value`` at the reference path ``path``; the given document is left as it
    is.

    Objects that are missing on the way are made; list items must exist.

    :raises StateError: ``States.ResultPathMatchFailure`` when something on the way is neither
    """
    problem = reference_path_problem(path)
    if problem is not None:
        raise StateError("States.ResultPathMatchFailure", problem)
    return _written(document, reference_steps(path) or [], value, path)


def _written(container: Any, steps: list[Step], value: Any, path: str) -> Any:
    if not steps:
        return value
    step, rest = steps[0], steps[1:]
    if isinstance(step, str) and (container is MISSING or isinstance(container, dict)):
        holder = {} if container is MISSING else dict(container)
        holder[step] = _written(holder.get(step, MISSING), rest, value, path)
        return holder
    if (
        isinstance(step, int)
        and isinstance(container, list)
        and -len(container) <= step < len(container)
    ):
        items = list(container)
        items[step] = _written(items[step], rest, value, path)
        return items
    raise StateError(
        "States.ResultPathMatchFailure",
        f"The result cannot be written to {path}: "
        + (
            f"there is no list item {step}."
            if isinstance(step, int)
            else f"what holds {step!r} is not an object."
        ),
    )
