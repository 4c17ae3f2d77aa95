"""What a state reads from the run's document: the paths, and the places in expressions."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import expressions, paths
from .language import PRIVATE_PARAMETERS
from .paths import CONTEXT, Step
from .problems import Place
from .scopes import ScopedVisitor

__all__ = ["ExpressionRead", "Read", "expression_reads", "state_reads", "unknown_names"]

_WORDS = {"true": "True", "false": "False", "null": "None"}


@dataclass(frozen=True)
class Read:
    """``text`` as it is written; ``tolerant`` where a missing value is no fault by itself."""

    place: Place
    steps: tuple[Step, ...]
    text: str
    tolerant: bool = False


@dataclass(frozen=True)
class ExpressionRead:
    steps: tuple[Step, ...]
    text: str
    tolerant: bool


def state_reads(state: Mapping[str, Any]) -> Iterator[Read]:
    """What ``state`` reads, apart from the rules of a Choice, which depend on each other."""
    for name in ("InputPath", "SecondsPath", "TimestampPath", "ErrorPath", "CausePath"):
        if name in state:
            yield from _path_read((name,), state[name])
    if "Parameters" in state:
        yield from _template_reads(state["Parameters"], ("Parameters",))


def _path_read(place: Place, path: Any) -> Iterator[Read]:
    if paths.path_problem(path) is None:
        steps = tuple(paths.leading_steps(path))
        if steps[:1] != (CONTEXT,):
            yield Read(place, steps, path)


def _template_reads(template: Any, place: Place) -> Iterator[Read]:
    if isinstance(template, list):
        for number, item in enumerate(template):
            yield from _template_reads(item, (*place, number))
    if not isinstance(template, dict):
        return
    for key, item in template.items():
        if key == PRIVATE_PARAMETERS:
            continue
        if key.endswith(".$"):
            yield from _path_read((*place, key), item)
        elif key.endswith(".="):
            for read in expression_reads(item):
                yield Read((*place, key), read.steps, read.text, read.tolerant)
        else:
            yield from _template_reads(item, (*place, key))


# --- expressions ----------------------------------------------------------------------------------


def expression_reads(expression: Any) -> list[ExpressionRead]:
    """What an expression reads; what it asks ``is_present`` about is read with care, and so is
    what lies above it."""
    if expressions.expression_problem(expression) is not None:
        return []
    tree, found = expressions.parsed(expression)
    reader = _Reader(found)
    reader.visit(tree)
    asked = [read.steps for read in reader.reads if read.tolerant]
    return [
        read
        if read.tolerant or not any(read.steps[: len(steps)] == steps for steps in asked)
        else ExpressionRead(read.steps, read.text, True)
        for read in reader.reads
        if read.steps[:1] != (CONTEXT,)
    ]


def unknown_names(expression: Any) -> list[tuple[str, str]]:
    """Words and functions that the language does not have, each with what to write instead."""
    if expressions.expression_problem(expression) is not None:
        return []
    tree, _ = expressions.parsed(expression)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in _WORDS:
            found.append((node.id, f"Write {_WORDS[node.id]}."))
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id not in expressions.FUNCTIONS
        ):
            known = ", ".join(sorted(expressions.FUNCTIONS))
            found.append((f"{node.func.id}()", f"The known functions are {known}."))
    return found


class _Reader(ScopedVisitor):
    def __init__(self, found: tuple[str, ...]) -> None:
        self._paths = {
            expressions.PATH_NAME.format(number): path for number, path in enumerate(found)
        }
        super().__init__()
        self.reads: list[ExpressionRead] = []

    def visit_Name(self, node: ast.Name) -> None:
        self._read(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._chain(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self._chain(node)

    def _chain(self, node: ast.expr) -> None:
        if not self._read(node):
            self.generic_visit(node)
        else:
            # An index that is computed reads too.
            self._visit_indices(node)

    def _visit_indices(self, node: ast.expr) -> None:
        while isinstance(node, (ast.Attribute, ast.Subscript)):
            if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Constant):
                self.visit(node.slice)
            node = node.value

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name in ("is_present", "getattr") and node.args:
            path = node.args[0]
            if isinstance(path, ast.Constant) and isinstance(path.value, str):
                self._asked(path.value)
            else:
                self.visit(path)
            rest = node.args[1:]
        else:
            rest = node.args
            if isinstance(node.func, ast.Attribute):
                # A method: what stands before its name is read.
                self.visit(node.func.value)
        for value in [*rest, *(keyword.value for keyword in node.keywords)]:
            self.visit(value)

    def _asked(self, text: str) -> None:
        path = text if text.startswith("$") else f"$.{text}"
        if paths.path_problem(path) is None:
            steps = tuple(paths.leading_steps(path))
            if steps[:1] != (CONTEXT,):
                self.reads.append(ExpressionRead(steps, text, True))

    def _read(self, node: ast.expr) -> bool:
        """Note the path that a chain of names and indices is; False when it begins with none."""
        steps: list[Step] = []
        while isinstance(node, (ast.Attribute, ast.Subscript)):
            if isinstance(node, ast.Attribute):
                steps.insert(0, node.attr)
            else:
                index = _constant(node.slice)
                # Below an index that is computed nothing is known.
                steps = [index, *steps] if index is not None else []
            node = node.value
        if not isinstance(node, ast.Name):
            return False
        if self.is_bound(node.id) or node.id in _WORDS:
            return True
        if node.id in self._paths:
            path = self._paths[node.id]
            inner = tuple(paths.leading_steps(path))
            whole = len(inner) == len(paths.compiled(path).segments)
            self.reads.append(ExpressionRead((*inner, *(steps if whole else ())), path, False))
            return True
        text = node.id + "".join(f".{s}" if isinstance(s, str) else f"[{s}]" for s in steps)
        self.reads.append(ExpressionRead((node.id, *steps), text, False))
        return True


def _constant(node: ast.expr) -> Step | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, int)):
        return None if isinstance(node.value, bool) else node.value
    if (
        isinstance(node, ast.UnaryOp)
        and isinstance(node.op, ast.USub)
        and isinstance(node.operand, ast.Constant)
        and isinstance(node.operand.value, int)
    ):
        return -node.operand.value
    return None
