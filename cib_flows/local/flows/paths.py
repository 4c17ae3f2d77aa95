"""JSONPath: reading from a run's document, and the reference paths that results are written to."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jsonpath import JSONPath, JSONPathEnvironment, JSONPathError

from .errors import StateError

__all__ = ["CONTEXT", "MISSING", "find", "path_problem", "read", "reference_path_problem", "write"]

CONTEXT = "_context"
MAX_PATH_LENGTH = 2000
Step = str | int


class _Missing:
    def __repr__(self) -> str:
        return "<missing>"


MISSING: Any = _Missing()


class _Environment(JSONPathEnvironment):
    def setup_function_extensions(self) -> None:
        super().setup_function_extensions()
        # A regular expression from a flow could occupy the whole service.
        for name in ("match", "search"):
            self.function_extensions.pop(name, None)


_environment = _Environment(strict=True)


@lru_cache(maxsize=2048)
def _compiled(path: str) -> JSONPath:
    compiled = _environment.compile(path)
    # Compound paths need an operator that the strict grammar does not have.
    assert isinstance(compiled, JSONPath)
    return compiled


def path_problem(path: Any) -> str | None:
    """One sentence on why ``path`` is not a JSONPath, or None when it is one."""
    if not isinstance(path, str):
        return f"a JSONPath must be a string, not {path!r}"
    if not path.startswith("$"):
        return f"a JSONPath begins with '$': {path!r}"
    if len(path) > MAX_PATH_LENGTH:
        return f"a JSONPath may have {MAX_PATH_LENGTH} characters, not {len(path)}"
    if path.count("..") > 1:
        # Each further one multiplies the work by the size of the document.
        return f"a JSONPath may descend with '..' once: {path!r}"
    try:
        _compiled(path)
    except JSONPathError as error:
        # Some of the library's errors fail when turned into text; the first argument never does.
        reason = error.args[0] if error.args else "it does not parse"
        return f"{path!r} is not a JSONPath: {reason}"
    except RecursionError:
        return f"{path[:80]!r}… is nested too deeply"
    return None


def find(path: str, document: Any, context: Mapping[str, Any] | None = None) -> Any:
    """What ``path`` selects: the value of a path without wildcards, the list of matches of one with
    them, and :data:`MISSING` when nothing matches. ``$._context`` is looked up in ``context``."""
    compiled = _compiled(path)
    root = {CONTEXT: context} if _begins_in_context(compiled) else document
    matches = [match.obj for match in compiled.finditer(root)]
    if not matches:
        return MISSING
    return matches[0] if compiled.singular_query() else matches


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


def _begins_in_context(compiled: JSONPath) -> bool:
    if not compiled.segments or len(compiled.segments[0].selectors) != 1:
        return False
    return getattr(compiled.segments[0].selectors[0], "name", None) == CONTEXT


def _steps(path: str) -> list[Step] | None:
    """The names and indices of a reference path; None when the path selects in any other way."""
    compiled = _compiled(path)
    if not compiled.singular_query():
        return None
    steps: list[Step] = []
    for segment in compiled.segments:
        (selector,) = segment.selectors
        step = getattr(selector, "name", getattr(selector, "index", None))
        if not isinstance(step, (str, int)):
            return None
        steps.append(step)
    return steps


def reference_path_problem(path: Any) -> str | None:
    """One sentence on why ``path`` cannot be a ``ResultPath``, or None when it can."""
    problem = path_problem(path)
    if problem is not None:
        return problem
    steps = _steps(path)
    if steps is None:
        return (
            f"a ResultPath may only hold names and indices, no wildcard, slice or filter: {path!r}"
        )
    if steps and steps[0] == CONTEXT:
        return "a ResultPath may not lie in $._context, which is read-only"
    return None


def write(path: str, document: Any, value: Any) -> Any:
    """``document`` with ``value`` at the reference path ``path``; the given document is left as it
    is.

    Objects that are missing on the way are made; list items must exist.

    :raises StateError: ``States.ResultPathMatchFailure`` when something on the way is neither
    """
    problem = reference_path_problem(path)
    if problem is not None:
        raise StateError("States.ResultPathMatchFailure", problem)
    return _written(document, _steps(path) or [], value, path)


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
