"""Choice rules: which state a run goes to next."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from cib_flows.flow.language import OPERATORS
from cib_flows.flow.timestamps import timestamp

from . import paths

__all__ = ["choose"]


def _number(value: Any) -> int | float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _boolean(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


Compare = Callable[[Any, Any], bool]
_ORDER: dict[str, Compare] = {
    "Equals": lambda left, right: bool(left == right),
    "LessThan": lambda left, right: bool(left < right),
    "LessThanEquals": lambda left, right: bool(left <= right),
    "GreaterThan": lambda left, right: bool(left > right),
    "GreaterThanEquals": lambda left, right: bool(left >= right),
}


def _matches(text: Any, pattern: Any) -> bool:
    """``*`` stands for any text, ``\\*`` for itself; found part by part, since a regular expression
    with many wildcards can take for ever."""
    if not isinstance(text, str) or not isinstance(pattern, str):
        return False
    first, *parts = (part.replace(r"\*", "*") for part in re.split(r"(?<!\\)\*", pattern))
    if not parts:
        return text == first
    last = parts.pop()
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    place, end = len(first), len(text) - len(last)
    for part in parts:
        found = text.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return True


def _typed(convert: Callable[[Any], Any], compare: Compare) -> Compare:
    """A comparison that is false unless both sides have the operator's type."""

    def compare_typed(value: Any, operand: Any) -> bool:
        left, right = convert(value), convert(operand)
        return left is not None and right is not None and compare(left, right)

    return compare_typed


# The operators that compare with a value; each has a twin that ends in Path and takes the value
# from the document.
COMPARING: dict[str, Compare] = {
    "BooleanEquals": _typed(_boolean, _ORDER["Equals"]),
    "StringMatches": _matches,
    **{f"Numeric{name}": _typed(_number, compare) for name, compare in _ORDER.items()},
    **{f"String{name}": _typed(_string, compare) for name, compare in _ORDER.items()},
    **{f"Timestamp{name}": _typed(timestamp, compare) for name, compare in _ORDER.items()},
}
TESTING: dict[str, Callable[[Any], bool]] = {
    "IsPresent": lambda value: value is not paths.MISSING,
    "IsNull": lambda value: value is None,
    "IsNumeric": lambda value: _number(value) is not None,
    "IsString": lambda value: isinstance(value, str),
    "IsBoolean": lambda value: isinstance(value, bool),
    "IsTimestamp": lambda value: timestamp(value) is not None,
}
Find = Callable[[str], Any]


def choose(
    state: Mapping[str, Any], document: Any, context: Mapping[str, Any], warnings: list[str]
) -> str | None:
    """The next state's name: that of the first rule that holds, else ``Default``, else None.

    Readings of undocumented behaviour are added to ``warnings``.
    """

    def find(path: str) -> Any:
        return paths.find(path, document, context)

    for rule in state["Choices"]:
        if _holds(rule, find, warnings):
            return str(rule["Next"])
    default = state.get("Default")
    return None if default is None else str(default)


def _holds(rule: Mapping[str, Any], find: Find, warnings: list[str]) -> bool:
    if "And" in rule:
        return all(_holds(part, find, warnings) for part in rule["And"])
    if "Or" in rule:
        return any(_holds(part, find, warnings) for part in rule["Or"])
    if "Not" in rule:
        return not _holds(rule["Not"], find, warnings)
    variable = str(rule["Variable"])
    operator = next(key for key in rule if key in OPERATORS)
    operand = rule[operator]
    value = find(variable)
    if operator == "IsPresent":
        return (value is not paths.MISSING) is operand
    if value is paths.MISSING:
        warnings.append(
            f"{variable} matches nothing; the {operator} rule was taken not to hold. The service"
            " may fail the run"
            " instead: put an IsPresent rule before it."
        )
        return False
    if operator in TESTING:
        return TESTING[operator](value) is operand
    if OPERATORS[operator] == "path":
        other = find(operand)
        if other is paths.MISSING:
            warnings.append(
                f"{operand} matches nothing; the {operator} rule was taken not to hold."
            )
            return False
        return COMPARING[operator.removesuffix("Path")](value, other)
    return COMPARING[operator](value, operand)
