"""Which names a transfer takes (filter rules) and a listing shows (filter parameter)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from cib_flows.local.transfer.errors import TransferError

__all__ = ["check_rules", "included", "listing_filter"]

_ATTRIBUTES = ("name", "type", "size", "user", "group", "permissions")
_TERM = re.compile(r"(!~|!=|<=|>=|[!~=<>])?(.*)", re.DOTALL)


def check_rules(rules: Any) -> None:
    """Raises :class:`TransferError` for rules that make no sense."""
    if not isinstance(rules, list):
        raise TransferError.bad_request("filter_rules must be a list.")
    for rule in rules:
        if not isinstance(rule, dict) or not isinstance(rule.get("name"), str):
            raise TransferError.bad_request("Each of filter_rules needs a name.")
        if rule.get("method") not in ("include", "exclude"):
            raise TransferError.bad_request(
                "The method of each of filter_rules must be 'include' or 'exclude'."
            )
        if rule.get("type") not in (None, "file", "dir"):
            raise TransferError.bad_request(
                "The type of each of filter_rules must be 'file', 'dir' or null."
            )


def included(rules: Sequence[Mapping[str, Any]], name: str, is_directory: bool) -> bool:
    """What the first rule that matches says; what no rule matches is included."""
    kind = "dir" if is_directory else "file"
    for rule in rules:
        if rule.get("type") in (None, kind) and fnmatchcase(name, rule["name"]):
            return bool(rule["method"] == "include")
    return True


def listing_filter(text: str) -> Callable[[Mapping[str, Any]], bool]:
    """The test of a listing's ``filter`` parameter, such as ``name:~*.sif/type:file``.

    Raises :class:`TransferError` for a text that makes no sense.
    """
    tests = []
    for clause in filter(None, text.split("/")):
        attribute, colon, wanted = clause.partition(":")
        if not colon or attribute not in _ATTRIBUTES:
            raise TransferError.bad_request(
                f"The filter {clause!r} is not ATTRIBUTE:VALUE with an attribute of "
                f"{', '.join(_ATTRIBUTES)}."
            )
        tests.append((attribute, [_term(term) for term in wanted.split(",")]))
    return lambda item: all(
        any(test(item.get(attribute)) for test in terms) for attribute, terms in tests
    )


def _term(term: str) -> Callable[[Any], bool]:
    match = _TERM.fullmatch(term)
    assert match is not None
    operator, wanted = match[1] or "=", match[2]
    if operator in ("~", "!~"):
        return lambda value: fnmatchcase(str(value), wanted) == (operator == "~")
    if operator in ("<", ">", "<=", ">="):
        if not wanted.isdigit():
            raise TransferError.bad_request(f"The filter's {term!r} needs a number.")
        limit = int(wanted)
        compare: dict[str, Callable[[int], bool]] = {
            "<": lambda value: value < limit,
            ">": lambda value: value > limit,
            "<=": lambda value: value <= limit,
            ">=": lambda value: value >= limit,
        }
        return lambda value: isinstance(value, int) and compare[operator](value)
    return lambda value: (str(value) == wanted) == (operator == "=")
