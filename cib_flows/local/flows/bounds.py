"""How far one expression may go: what it may make, and how much it may do in all."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

import simpleeval

__all__ = ["MAX_LENGTH", "Budget", "TooMuch", "bounded_number", "operators"]

MAX_WORK = 500_000
MAX_LENGTH = 200_000
MAX_BITS = 4096


class TooMuch(simpleeval.InvalidExpression):  # type: ignore[misc]
    """An expression that would take too long or grow too large."""


class Budget:
    """What one evaluation may still do, counted in visited values; one list may stand in a value
    many times, so that a short expression could otherwise describe an endless one."""

    def __init__(self) -> None:
        self._left = MAX_WORK

    def spend(self, value: Any) -> None:
        waiting = [value]
        while waiting:
            item = waiting.pop()
            self._left -= 1 + (len(item) // 100 if isinstance(item, str) else 0)
            if self._left < 0:
                raise TooMuch("it takes too much work")
            if isinstance(item, dict):
                waiting.extend(item.values())
            elif isinstance(item, (list, tuple)):
                if len(item) > self._left:
                    raise TooMuch("it takes too much work")
                waiting.extend(item)


def _add(left: Any, right: Any) -> Any:
    if (
        hasattr(left, "__len__")
        and hasattr(right, "__len__")
        and len(left) + len(right) > MAX_LENGTH
    ):
        raise TooMuch("the sum would become too long")
    return bounded_number(left + right)


def _multiply(left: Any, right: Any) -> Any:
    for value, times in ((left, right), (right, left)):
        if hasattr(value, "__len__") and isinstance(times, int) and len(value) * times > MAX_LENGTH:
            raise TooMuch("the product would become too long")
    return bounded_number(left * right)


def _power(base: Any, exponent: Any) -> Any:
    whole = isinstance(base, int) and isinstance(exponent, int)
    if whole and base.bit_length() * exponent > MAX_BITS:
        raise TooMuch("the power would become too large")
    return base**exponent


def _modulo(left: Any, right: Any) -> Any:
    if isinstance(left, (str, bytes)):
        raise simpleeval.FeatureNotAvailable("'%' does not format text here; use '+' and str()")
    return left % right


def bounded_number(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise TooMuch("the number would become too large")
    return value


OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any] | Callable[[Any], Any]] = {
    ast.Add: _add,
    ast.Sub: operator.sub,
    ast.Mult: _multiply,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: _modulo,
    ast.Pow: _power,
    ast.Not: operator.not_,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
COMPARISONS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Gt: operator.gt,
    ast.Lt: operator.lt,
    ast.GtE: operator.ge,
    ast.LtE: operator.le,
    ast.In: lambda item, holder: operator.contains(holder, item),
    ast.NotIn: lambda item, holder: not operator.contains(holder, item),
}


def operators(budget: Budget) -> dict[type[ast.AST], Callable[..., Any]]:
    def counted(compare: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def counted_compare(left: Any, right: Any) -> Any:
            budget.spend(left)
            budget.spend(right)
            return compare(left, right)

        return counted_compare

    return {**OPERATORS, **{node: counted(compare) for node, compare in COMPARISONS.items()}}
