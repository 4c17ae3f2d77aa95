"""States and rules in a few words, for drawings."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from .choice_rules import choices_problems
from .language import OPERATORS
from .rules_providers import provider_url

__all__ = ["errors_caught", "rule_text", "shortened", "state_subtitle"]

_SIGNS = {
    "Equals": "=",
    "LessThan": "<",
    "LessThanEquals": "≤",
    "GreaterThan": ">",
    "GreaterThanEquals": "≥",
}
_TESTS = {
    "IsNull": "null",
    "IsNumeric": "a number",
    "IsString": "a string",
    "IsBoolean": "true or false",
    "IsTimestamp": "a time",
}
# What leads to a function's own output in the result of a Compute action.
_OUTPUT = re.compile(r"\.details\.results?\[0\](\.output)?")


def shortened(text: str, limit: int) -> str:
    """``text`` with an ellipsis where it would be longer than ``limit``."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def state_subtitle(state: Mapping[str, Any]) -> str:
    """What kind of state it is, and the one thing that matters about it."""
    kind = str(state.get("Type", "?"))
    if kind == "Action":
        return _provider(state)
    if kind == "Wait":
        for field, words in (("Seconds", "wait {} s"), ("Timestamp", "wait until {}")):
            if field in state:
                return words.format(state[field])
            if f"{field}Path" in state:
                return words.format(_variable(str(state[f"{field}Path"])))
    if kind == "Fail":
        return str(state.get("Error") or state.get("ErrorPath") or "Fail")
    return {
        "ExpressionEval": "Expressions",
        "CreateWebInput": "Ask a person",
        "AwaitWebInput": "Await the answer",
    }.get(kind, kind)


def _provider(state: Mapping[str, Any]) -> str:
    handler = state.get("Handler")
    if isinstance(handler, str):
        return handler.rpartition(":")[2]
    if isinstance(handler, dict) and handler.get("Type") == "RegisteredAPI":
        return "Registered API"
    parts = urlsplit(provider_url(state))
    host, path = (parts.hostname or "").lower(), parts.path.strip("/")
    if host == "compute.actions.globus.org":
        return "Compute" + ("" if path == "v3" else f" {path or 'v2'}")
    if host == "transfer.actions.globus.org":
        return "Transfer" + ("" if path == "transfer" else f": {path}")
    if host == "flows.globus.org":
        return "Flow"
    if host == "actions.globus.org":
        return path
    return f"{host}/{path}".rstrip("/")


# --- rules ----------------------------------------------------------------------------------------


def rule_text(rule: Any) -> str:
    """A Choice rule as one reads it aloud; a question mark for what is none."""
    if not isinstance(rule, dict) or any(choices_problems([{**rule, "Next": "it"}], ())):
        return "?"
    return _rule(rule, True)


def _rule(rule: dict[str, Any], holds: bool) -> str:
    if isinstance(rule.get("Not"), dict):
        return _rule(rule["Not"], not holds)
    for word in ("And", "Or"):
        parts = rule.get(word)
        if isinstance(parts, list):
            texts = [_rule(part, True) for part in _without_guards(parts, word)]
            text = f" {word.lower()} ".join(texts)
            if holds:
                return text
            return (
                _rule(_without_guards(parts, word)[0], False)
                if len(texts) == 1
                else f"not ({text})"
            )
    operator = next((key for key in rule if key in OPERATORS), None)
    if operator is None:
        return "?"
    return _comparison(_variable(str(rule.get("Variable"))), operator, rule[operator], holds)


def _without_guards(parts: list[Any], word: str) -> list[dict[str, Any]]:
    """The parts without the question whether what another one compares is there at all."""
    rules = [part for part in parts if isinstance(part, dict)]
    if word == "Or":
        return rules
    compared = {rule.get("Variable") for rule in rules if "IsPresent" not in rule}
    kept = [
        rule
        for rule in rules
        if not (rule.get("IsPresent") is True and rule.get("Variable") in compared)
    ]
    return kept or rules


def _comparison(name: str, operator: str, operand: Any, holds: bool) -> str:
    if operator == "BooleanEquals":
        return name if operand is holds else f"not {name}"
    if operator == "IsPresent":
        return f"{name} is there" if operand is holds else f"no {name}"
    if operator in _TESTS:
        return f"{name} is {'' if operand is holds else 'not '}{_TESTS[operator]}"
    value = _variable(str(operand)) if operator.endswith("Path") else _value(operand)
    base = operator.removesuffix("Path")
    if base == "StringMatches":
        text = f"{name} like {value}"
        return text if holds else f"not {text}"
    order = re.sub("^(Boolean|Numeric|String|Timestamp)", "", base)
    if not holds:
        opposite = {"=": "≠", "<": "≥", "≤": ">", ">": "≤", "≥": "<"}
        return f"{name} {opposite[_SIGNS[order]]} {value}"
    return f"{name} {_SIGNS[order]} {value}"


def _value(operand: Any) -> str:
    return json.dumps(operand, ensure_ascii=False)


def _variable(path: str) -> str:
    """The last names of a path; the whole one is in the definition."""
    names = _OUTPUT.sub("", path).removeprefix("$.").split(".")
    return ".".join(names[-2:]) if len(names) > 1 else names[0]


def errors_caught(catcher: Mapping[str, Any]) -> str:
    """The errors that a catcher takes, where they are fewer than what can happen to any action."""
    names = catcher.get("ErrorEquals")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return ""
    if len(names) > 2 or {"States.ALL", "States.All"} & set(names):
        return ""
    return ", ".join(names)
