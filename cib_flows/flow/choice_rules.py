"""What the service refuses about the rules of a Choice state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import paths
from .language import COMBINATORS, OPERATORS, a_boolean, a_name, a_string, a_timestamp
from .problems import Place, Problem, unknown_fields, wrong_type

__all__ = ["choices_problems"]

MAX_DEPTH = 50


def choices_problems(rules: Any, place: Place) -> Iterator[Problem]:
    """Everything that is wrong with the list of rules."""
    if not isinstance(rules, list) or not rules:
        yield Problem(place, "a list of at least one rule is expected")
        return
    for number, rule in enumerate(rules):
        here = (*place, number)
        if isinstance(rule, dict):
            message = a_name(rule.get("Next"))
            if message is not None:
                yield Problem((*here, "Next"), message)
            rule = {key: value for key, value in rule.items() if key != "Next"}
        yield from _rule_problems(rule, here, MAX_DEPTH)


def _rule_problems(rule: Any, place: Place, depth: int) -> Iterator[Problem]:
    if not isinstance(rule, dict):
        yield wrong_type(place, "dict")
        return
    if depth == 0:
        yield Problem(place, "the rule is nested too deeply")
        return
    combinators = [key for key in rule if key in COMBINATORS]
    operators = [key for key in rule if key in OPERATORS]
    yield from unknown_fields(rule, {"Variable", *COMBINATORS, *OPERATORS}, place)
    if len(combinators) + len(operators) != 1 or (operators and "Variable" not in rule):
        yield Problem(
            place, 'a rule holds one of "And", "Or", "Not", or a "Variable" and one operator'
        )
        return
    if operators:
        message = paths.path_problem(rule["Variable"])
        if message is not None:
            yield Problem((*place, "Variable"), message)
        message = _operand_problem(OPERATORS[operators[0]], rule[operators[0]])
        if message is not None:
            yield Problem((*place, operators[0]), message)
        return
    (combinator,) = combinators
    if combinator == "Not":
        yield from _rule_problems(rule["Not"], (*place, "Not"), depth - 1)
        return
    parts = rule[combinator]
    if not isinstance(parts, list) or not parts:
        yield Problem((*place, combinator), "a list of at least one rule is expected")
        return
    for number, part in enumerate(parts):
        yield from _rule_problems(part, (*place, combinator, number), depth - 1)


def _operand_problem(kind: str, operand: Any) -> str | None:
    if kind == "path":
        return paths.path_problem(operand)
    if kind == "boolean":
        return a_boolean(operand)
    if kind == "number":
        is_number = isinstance(operand, (int, float)) and not isinstance(operand, bool)
        return None if is_number else "value is not a number"
    return a_timestamp(operand) if kind == "timestamp" else a_string(operand)
