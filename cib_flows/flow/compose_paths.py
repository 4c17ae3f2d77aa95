"""The states of one flow, rewritten so that they keep their document inside another's."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from cib_flows.errors import UsageError

from . import expressions, paths
from .language import OPERATORS, PRIVATE_PARAMETERS
from .paths import CONTEXT
from .scopes import ScopedVisitor

__all__ = ["Places", "State", "rewritten", "shown_path"]

State = Mapping[str, Any]

WRITING = frozenset({"Action", "Pass", "ExpressionEval", "CreateWebInput", "AwaitWebInput"})
READ_FIELDS = ("InputPath", "SecondsPath", "TimestampPath", "ErrorPath", "CausePath")
# The first name of a path, however it is written.
FIRST = re.compile(r"""\$(?:\.([^.\[\]'"*]+)|\[(['"])((?:(?!\2).)*)\2\])""")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
WORDS = frozenset({"true", "false", "null"})
ASKING = ("getattr", "is_present")
# Names that a dot would take for a method of the object instead of for its field.
METHODS = frozenset(dir(dict))


@dataclass(frozen=True)
class Places:
    """Where the fields of an inserted flow's document lie in its host's.

    The document itself is ``root``; ``moved`` has fields that lie elsewhere. All are lists of
    names, from the top of the host's document.
    """

    root: tuple[str, ...]
    moved: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, name: str) -> tuple[str, ...]:
        return self.moved.get(name, (*self.root, name))


def shown_path(steps: Collection[str]) -> str:
    """The JSONPath of a list of names."""
    return "$" + "".join(f".{s}" if NAME.fullmatch(s) else f"[{_quoted(s)}]" for s in steps)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def rewritten(state: State, places: Places, names: Mapping[str, str]) -> dict[str, Any]:
    """``state`` with its paths led to ``places`` and its transitions to the new ``names`` of the
    states.

    :raises UsageError: for a path or an expression that cannot be led elsewhere
    """
    result: dict[str, Any] = {}
    for key, value in state.items():
        if key in READ_FIELDS or key == "ResultPath":
            result[key] = _path(value, places)
        elif key == "Parameters":
            result[key] = _template(value, places)
        elif key == "Choices":
            result[key] = [_rule(rule, places, names) for rule in value]
        elif key == "Catch":
            result[key] = [_catcher(catcher, places, names) for catcher in value]
        elif key in ("Next", "Default"):
            result[key] = names[value]
        else:
            result[key] = value
    passes_on = state["Type"] == "Pass" and not {"Parameters", "InputPath", "Result"} & set(state)
    if passes_on and "ResultPath" in state:
        # It copies the whole document, which is not the host's.
        result["InputPath"] = shown_path(places.root)
    elif state["Type"] in WRITING and "ResultPath" not in state and not passes_on:
        result["ResultPath"] = shown_path(places.root)
    return result


def _catcher(
    catcher: Mapping[str, Any], places: Places, names: Mapping[str, str]
) -> dict[str, Any]:
    where = _path(catcher.get("ResultPath", "$"), places)
    return {**catcher, "ResultPath": where, "Next": names[catcher["Next"]]}


def _rule(rule: Mapping[str, Any], places: Places, names: Mapping[str, str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in rule.items():
        if key in ("And", "Or"):
            result[key] = [_rule(part, places, names) for part in value]
        elif key == "Not":
            result[key] = _rule(value, places, names)
        elif key == "Variable" or OPERATORS.get(key) == "path":
            result[key] = _path(value, places)
        elif key == "Next":
            result[key] = names[value]
        else:
            result[key] = value
    return result


def _template(template: Any, places: Places) -> Any:
    if isinstance(template, list):
        return [_template(item, places) for item in template]
    if not isinstance(template, dict):
        return template
    result: dict[str, Any] = {}
    for key, item in template.items():
        if key == PRIVATE_PARAMETERS:
            result[key] = item
        elif key.endswith(".$"):
            result[key] = _path(item, places)
        elif key.endswith(".="):
            result[key] = _expression(item, places)
        else:
            result[key] = _template(item, places)
    return result


# --- paths ----------------------------------------------------------------------------------------


def _path(path: str, places: Places) -> str:
    if paths.begins_in_context(path):
        return path
    if "$" in path[1:]:
        raise UsageError(f"The path {path} looks at the document twice, and cannot be inserted.")
    first = FIRST.match(path)
    if first is None:
        # The whole document, or a search through all of it.
        return shown_path(places.root) + path[1:]
    name = first.group(1) if first.group(1) is not None else first.group(3)
    return shown_path(places.of(name)) + path[first.end() :]


# --- expressions ----------------------------------------------------------------------------------


def _expression(expression: str, places: Places) -> str:
    source, found = expressions.without_paths(expression)
    tree, _ = expressions.parsed(expression)
    finder = _Finder(expression, places)
    finder.visit(tree)
    lines = [line.encode() for line in source.splitlines(keepends=True)]
    for node, text in sorted(finder.changes, key=lambda change: _begin(change[0]), reverse=True):
        if node.end_lineno != node.lineno or node.end_col_offset is None:
            raise UsageError(f"The expression {expression!r} cannot be inserted.")
        line = lines[node.lineno - 1]
        lines[node.lineno - 1] = (
            line[: node.col_offset] + text.encode() + line[node.end_col_offset :]
        )
    text = b"".join(lines).decode()
    for number, path in enumerate(found):
        stand_in = f"({expressions.PATH_NAME.format(number)})"
        text = text.replace(stand_in, f"`{_path(path, places)}`")
    return text


def _begin(node: ast.expr) -> tuple[int, int]:
    return node.lineno, node.col_offset


class _Finder(ScopedVisitor):
    """Finds the names and the asked paths of an expression, each with what to write instead."""

    def __init__(self, expression: str, places: Places) -> None:
        self._expression = expression
        self._places = places
        super().__init__()
        self.changes: list[tuple[ast.expr, str]] = []

    def visit_Name(self, node: ast.Name) -> None:
        stands_in = re.fullmatch(expressions.PATH_NAME.format(r"\d+"), node.id)
        known = node.id in WORDS or node.id == CONTEXT or stands_in
        if not known and not self.is_bound(node.id):
            self.changes.append((node, _chain(self._places.of(node.id))))

    def visit_Call(self, node: ast.Call) -> None:
        rest: list[ast.expr] = list(node.args)
        if isinstance(node.func, ast.Name):
            if node.func.id in ASKING and rest:
                self._asked(rest.pop(0))
        else:
            self.visit(node.func)
        for value in [*rest, *(keyword.value for keyword in node.keywords)]:
            self.visit(value)

    def _asked(self, node: ast.expr) -> None:
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            raise UsageError(
                f"The expression {self._expression!r} asks for a path that is computed, and cannot"
                " be inserted."
            )
        path = node.value if node.value.startswith("$") else f"$.{node.value}"
        if paths.path_problem(path) is None:
            moved = _path(path, self._places)
            text = moved if node.value.startswith("$") else moved.removeprefix("$.")
            self.changes.append((node, _quoted(text)))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        # Where its parts stand cannot be told in every Python.
        raise UsageError(f"The expression {self._expression!r} cannot be inserted.")


def _chain(steps: tuple[str, ...]) -> str:
    """A field of the document as an expression names it."""
    first, *rest = steps
    return first + "".join(
        f".{step}" if NAME.fullmatch(step) and step not in METHODS else f"[{_quoted(step)}]"
        for step in rest
    )
