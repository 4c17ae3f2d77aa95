"""The ``.=`` expressions: a small, bounded part of Python over the run's document.

Names are the document's top-level keys and ``_context``; a JSONPath in backticks may stand for a
name. What the official examples use is here, and little more: an expression that is accepted here
should be accepted there.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import simpleeval

from cib_flows.flow.expressions import PATH_NAME, expression_problem, parsed, short

from . import paths
from .bounds import MAX_LENGTH, Budget, TooMuch, bounded_number, operators
from .errors import StateError

__all__ = ["evaluate", "expression_problem"]

METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        {
            *("capitalize", "lower", "lstrip", "replace", "rstrip", "strip", "title", "upper"),
            *("removeprefix", "removesuffix", "endswith", "startswith"),
            *("count", "find", "index", "rfind", "rindex"),
            *("isalnum", "isalpha", "isdigit", "islower", "isspace", "isupper"),
            *("join", "partition", "rpartition", "rsplit", "split", "splitlines"),
        }
    ),
    # Nothing that changes a list or an object: the document is the run's, not the expression's.
    dict: frozenset({"get", "items", "keys", "values", "copy"}),
    list: frozenset({"count", "index", "copy"}),
    tuple: frozenset({"count", "index"}),
}


def evaluate(expression: str, document: Any, context: Mapping[str, Any]) -> Any:
    """The JSON value of ``expression``.

    :raises StateError: ``States.IntrinsicFailure`` naming the expression and what was wrong with it
    """
    problem = expression_problem(expression)
    if problem is not None:
        raise StateError("States.IntrinsicFailure", problem[0].upper() + problem[1:] + ".")
    tree, found = parsed(expression)
    try:
        budget = Budget()
        names, functions = _Names(document, context, found), _functions(document, context, budget)
        value = _Evaluator(names, functions, budget).eval(expression, tree)
        budget.spend(value)
        return _json_value(value)
    except StateError:
        raise
    # Whatever the flow's author wrote may go wrong in any way that Python knows; all of them fail
    # the state.
    except Exception as error:
        raise StateError(
            "States.IntrinsicFailure",
            f"The expression {short(expression)} cannot be evaluated: {_reason(error)}.",
        ) from error


class _Names(Mapping[str, Any]):
    """The document's keys, and the backticked paths, which are looked up only when they are
    reached."""

    def __init__(self, document: Any, context: Mapping[str, Any], found: tuple[str, ...]) -> None:
        self._document = document
        self._context = context
        self._keys = {**document, paths.CONTEXT: context} if isinstance(document, dict) else {}
        self._paths = {PATH_NAME.format(number): path for number, path in enumerate(found)}

    def __getitem__(self, name: str) -> Any:
        if name in self._paths:
            return paths.read(self._paths[name], self._document, self._context)
        return self._keys[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class _Evaluator(simpleeval.EvalWithCompoundTypes):  # type: ignore[misc]
    def __init__(
        self, names: _Names, functions: dict[str, Callable[..., Any]], budget: Budget
    ) -> None:
        super().__init__(operators=operators(budget), functions=dict(functions), names=names)
        # The base class adds list, dict, tuple and set, which no example of the service uses.
        self.functions = functions
        self.nodes.pop(ast.Set, None)
        self._budget = budget

    def _eval(self, node: ast.AST) -> Any:
        self._budget.spend(None)
        value = super()._eval(node)
        if _makes_a_copy(node):
            self._budget.spend(value)
        return value

    def _check_disallowed_items(self, item: Any) -> None:
        """Values are JSON from the document, or come from the functions and methods below; the
        library's deep check of every intermediate value would make long documents slow for
        nothing."""

    def _eval_attribute(self, node: ast.Attribute) -> Any:
        if node.attr.startswith("_"):
            raise simpleeval.FeatureNotAvailable(
                f"names that begin with '_' are not reachable: {node.attr}"
            )
        holder = self._eval(node.value)
        if node.attr in METHODS.get(type(holder), ()):
            return self._counted_method(holder, node.attr)
        if isinstance(holder, dict) and node.attr in holder:
            return holder[node.attr]
        raise simpleeval.AttributeDoesNotExist(node.attr, self.expr)

    def _counted_method(self, holder: Any, name: str) -> Callable[..., Any]:
        method = _bounded_method(holder, name)

        def counted(*positional: Any, **named: Any) -> Any:
            self._budget.spend(holder)
            value = method(*positional, **named)
            self._budget.spend(value)
            return value

        return counted

    def _eval_formattedvalue(self, node: ast.FormattedValue) -> Any:
        if node.format_spec is not None:
            raise simpleeval.FeatureNotAvailable("formats in f-strings are not available")
        return self.functions["str"](self._eval(node.value))


def _makes_a_copy(node: ast.AST) -> bool:
    """Whether the node's value is made anew, rather than a part of the document."""
    return isinstance(node, (ast.BinOp, ast.JoinedStr)) or (
        isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Slice)
    )


def _bounded_method(holder: Any, name: str) -> Any:
    method = getattr(holder, name)
    if name == "replace":

        def replace(old: str, new: str, count: int = -1) -> str:
            if (
                len(holder) + (holder.count(old) if old else len(holder) + 1) * len(new)
                > MAX_LENGTH
            ):
                raise TooMuch("the text would become too long")
            return str(method(old, new, count))

        return replace
    if name == "join":

        def join(parts: Any) -> str:
            parts = list(parts)
            if sum(len(part) + len(holder) for part in parts) > MAX_LENGTH:
                raise TooMuch("the text would become too long")
            return str(method(parts))

        return join
    return method


# --- functions ------------------------------------------------------------------------------------


def _functions(
    document: Any, context: Mapping[str, Any], budget: Budget
) -> dict[str, Callable[..., Any]]:
    def look_up(path: Any) -> Any:
        if not isinstance(path, str):
            raise TypeError(f"the path must be a string, not {path!r}")
        full = path if path.startswith("$") else f"$.{path}"
        problem = paths.path_problem(full)
        if problem is not None:
            raise ValueError(problem)
        return paths.find(full, document, context)

    def is_present(path: Any) -> bool:
        return look_up(path) is not paths.MISSING

    def get_attribute(path: Any, default: Any = None) -> Any:
        value = look_up(path)
        return default if value is paths.MISSING else value

    def text(value: Any = "") -> str:
        budget.spend(value)
        return str(value)

    return {
        "pathsplit": _pathsplit,
        "is_present": is_present,
        "getattr": get_attribute,
        "len": len,
        "str": text,
        "int": _integer,
        "float": float,
    }


def _pathsplit(path: str) -> list[str]:
    """The parent and the last part of a Transfer path; ``/~/`` is a root of its own."""
    head, _, last = path.rstrip("/").rpartition("/") if path != "/" else ("", "", "")
    if head == "/~":
        head = "/~/"
    return [head or ("/" if path.startswith("/") else ""), last]


def _integer(value: Any = 0) -> int:
    if isinstance(value, str) and len(value) > 1000:
        raise TooMuch("the number would become too large")
    return int(value)


# --- results --------------------------------------------------------------------------------------


def _json_value(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return bounded_number(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("its value is not a finite number")
        return value
    if isinstance(value, (list, tuple)):
        return [_json_value(item) for item in value]
    if isinstance(value, dict):
        wrong = next((key for key in value if not isinstance(key, str)), None)
        if wrong is not None:
            raise TypeError(f"the key {wrong!r} is not a string")
        return {key: _json_value(item) for key, item in value.items()}
    raise TypeError(f"its value is a {type(value).__name__}, which is not JSON")


def _reason(error: BaseException) -> str:
    if isinstance(error, simpleeval.NameNotDefined):
        hint = {"true": "True", "false": "False", "null": "None"}.get(error.name)
        return f"there is no name {error.name!r}" + (f" (write {hint})" if hint else "")
    if isinstance(error, simpleeval.FunctionNotDefined):
        return f"there is no function {error.func_name!r}"
    if isinstance(error, simpleeval.AttributeDoesNotExist):
        return f"there is no {error.attr!r} in what stands before it"
    if isinstance(error, SyntaxError):
        return str(error.msg)
    if isinstance(error, KeyError):
        return f"there is no key {error.args[0]!r}"
    return str(error).rstrip(".") or type(error).__name__
