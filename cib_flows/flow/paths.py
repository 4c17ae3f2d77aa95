"""JSONPath as flows write it: whether a path is one, and which names and indices it goes through."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from jsonpath import JSONPath, JSONPathEnvironment, JSONPathError
from jsonpath.segments import JSONPathChildSegment

__all__ = [
    "CONTEXT",
    "Step",
    "begins_in_context",
    "compiled",
    "leading_steps",
    "path_problem",
    "reference_path_problem",
    "reference_steps",
]

CONTEXT = "_context"
MAX_PATH_LENGTH = 2000
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
Step = str | int


class _Environment(JSONPathEnvironment):
    def setup_function_extensions(self) -> None:
        super().setup_function_extensions()
        # A regular expression from a flow could occupy the whole service.
        for name in ("match", "search"):
            self.function_extensions.pop(name, None)


_environment = _Environment(strict=True)


@lru_cache(maxsize=2048)
def compiled(path: str) -> JSONPath:
    """The library's form of a path that has no :func:`path_problem`."""
    result = _environment.compile(path)
    # Compound paths need an operator that the strict grammar does not have.
    assert isinstance(result, JSONPath)
    return result


def path_problem(path: Any) -> str | None:
    """One sentence on why ``path`` is not a JSONPath, or None when it is one."""
    if not isinstance(path, str):
        return f"a JSONPath must be a string, not {path!r}"
    if not path.startswith("$"):
        return f"a JSONPath begins with '$': {path!r}"
    if len(path) > MAX_PATH_LENGTH:
        return f"a JSONPath may have {MAX_PATH_LENGTH} characters, not {len(path)}"
    if _QUOTED.sub("", path).count("..") > 1:
        # Each further one multiplies the work by the size of the document.
        return f"a JSONPath may descend with '..' once: {path!r}"
    try:
        compiled(path)
    except JSONPathError as error:
        # Some of the library's errors fail when turned into text; the first argument never does.
        reason = error.args[0] if error.args else "it does not parse"
        return f"{path!r} is not a JSONPath: {reason}"
    except RecursionError:
        return f"{path[:80]!r}… is nested too deeply"
    return None


def reference_path_problem(path: Any) -> str | None:
    """One sentence on why ``path`` cannot be a ``ResultPath``, or None when it can."""
    problem = path_problem(path)
    if problem is not None:
        return problem
    steps = reference_steps(path)
    if steps is None:
        return (
            f"a ResultPath may only hold names and indices, no wildcard, slice or filter: {path!r}"
        )
    if steps and steps[0] == CONTEXT:
        return "a ResultPath may not lie in $._context, which is read-only"
    return None


def begins_in_context(path: str) -> bool:
    """Whether ``path`` reads the run's context rather than its document."""
    return leading_steps(path)[:1] == [CONTEXT]


def reference_steps(path: str) -> list[Step] | None:
    """The names and indices of a path that selects one place; None when it selects otherwise."""
    steps = leading_steps(path)
    return steps if len(steps) == len(compiled(path).segments) else None


def leading_steps(path: str) -> list[Step]:
    """The names and indices with which ``path`` begins, up to the first wildcard, slice or
    filter."""
    steps: list[Step] = []
    for segment in compiled(path).segments:
        if not isinstance(segment, JSONPathChildSegment) or len(segment.selectors) != 1:
            break
        (selector,) = segment.selectors
        step = getattr(selector, "name", getattr(selector, "index", None))
        if not isinstance(step, (str, int)):
            break
        steps.append(step)
    return steps
