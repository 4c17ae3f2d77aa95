"""The ``.=`` expressions as written: a small part of Python over a run's document, in which a
JSONPath in backticks may stand for a name."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from typing import Any

from . import paths

__all__ = [
    "FUNCTIONS",
    "PATH_NAME",
    "Unreadable",
    "expression_problem",
    "parsed",
    "short",
    "without_paths",
]

MAX_EXPRESSION_LENGTH = 16_384
MAX_DEPTH = 60
# What a path in backticks is called in the syntax tree, by its number.
PATH_NAME = "__path_{}"

# The functions that the service is known, or was seen, to have.
FUNCTIONS = frozenset({"pathsplit", "is_present", "getattr", "len", "str", "int", "float"})

# Text in quotes stays as it is; a JSONPath in backticks becomes a name.
_QUOTED_OR_PATH = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`([^`]*)`""", re.DOTALL)


class Unreadable(ValueError):
    """An expression that is too long, too deep, or holds what is no JSONPath."""


@lru_cache(maxsize=1024)
def parsed(expression: str) -> tuple[ast.expr, tuple[str, ...]]:
    """The syntax tree, and the backticked paths in the order of their stand-in names.

    :raises Unreadable: as :class:`Unreadable` says
    :raises SyntaxError: for what is not an expression
    """
    source, found = without_paths(expression)
    tree = ast.parse(source, mode="eval").body
    _check_depth(tree)
    return tree, found


def without_paths(expression: str) -> tuple[str, tuple[str, ...]]:
    """The expression as Python reads it, with names in brackets in place of the backticked paths,
    and these paths in the order of their names.

    :raises Unreadable: as :class:`Unreadable` says
    """
    if len(expression) > MAX_EXPRESSION_LENGTH:
        raise Unreadable(
            f"it has {len(expression)} characters; {MAX_EXPRESSION_LENGTH} are allowed"
        )
    found: list[str] = []

    def stand_in(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return match.group(0)
        problem = paths.path_problem(match.group(1))
        if problem is not None:
            raise Unreadable(problem)
        found.append(match.group(1))
        return f"({PATH_NAME.format(len(found) - 1)})"

    return _QUOTED_OR_PATH.sub(stand_in, expression).strip(), tuple(found)


def _check_depth(tree: ast.AST) -> None:
    level: list[ast.AST] = [tree]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return
    raise Unreadable("it is nested too deeply")


def expression_problem(expression: Any) -> str | None:
    """One sentence on why ``expression`` can never be evaluated, or None."""
    if not isinstance(expression, str):
        return f"an expression must be a string, not {expression!r}"
    try:
        parsed(expression)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error).rstrip(".")
        return (
            f"the expression {short(expression)} cannot be read: {reason or type(error).__name__}"
        )
    return None


def short(expression: str) -> str:
    """The expression in quotes, cut where a message would become too long."""
    return repr(expression if len(expression) <= 200 else expression[:200] + "…")
