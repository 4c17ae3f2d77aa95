"""Which names a transfer takes (filter rules), and which items a listing shows, in what order
(parameters filter and orderby)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from typing import Any

from cib_flows.local.transfer.errors import TransferError

__all__ = ["check_rules", "event_filter", "included", "listing_filter", "ordered", "task_filter"]

_ATTRIBUTES = ("name", "type", "size", "user", "group", "permissions")
_TASK_ATTRIBUTES = ("task_id", "type", "status", "label", "request_time", "completion_time")
_TIMES = ("request_time", "completion_time")
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


Test = Callable[[Mapping[str, Any]], bool]


def listing_filter(text: str) -> Test:
    """The test of a listing's ``filter`` parameter, such as ``name:~*.sif/type:file``.

    Raises :class:`TransferError` for a text that makes no sense.
    """
    return _all_of(text, _ATTRIBUTES)


def task_filter(text: str) -> Test:
    """As :func:`listing_filter`, for tasks: ``status:ACTIVE,FAILED/request_time:FROM,UNTIL``."""
    return _all_of(text, _TASK_ATTRIBUTES)


def event_filter(text: str) -> Test:
    """As :func:`listing_filter`, for a task's events: ``is_error:1``."""
    shows = _all_of(text, ("code", "is_error"))
    return lambda event: shows({**event, "is_error": int(event["is_error"])})


def _all_of(text: str, attributes: Sequence[str]) -> Test:
    tests: list[tuple[str, Callable[[Any], bool]]] = []
    for clause in filter(None, text.split("/")):
        attribute, colon, wanted = clause.partition(":")
        if not colon or attribute not in attributes:
            raise TransferError.bad_request(
                f"The filter {clause!r} is not ATTRIBUTE:VALUE with an attribute of "
                f"{', '.join(attributes)}."
            )
        tests.append((attribute, _range(wanted) if attribute in _TIMES else _any_of(wanted)))
    return lambda item: all(test(item.get(attribute)) for attribute, test in tests)


def _any_of(wanted: str) -> Callable[[Any], bool]:
    """What is asked for and what is not: one of the former, and none of the latter."""
    words = wanted.split(",")
    negated = [_term(word) for word in words if word.startswith("!")]
    asked = [_term(word) for word in words if not word.startswith("!")]
    return lambda value: (
        all(test(value) for test in negated) and (not asked or any(test(value) for test in asked))
    )


def _range(wanted: str) -> Callable[[Any], bool]:
    begin, _, end = wanted.partition(",")
    first, last = _moment(begin), _moment(end)

    def lies(value: Any) -> bool:
        moment = _moment(value) if isinstance(value, str) else None
        return (
            moment is not None
            and (first is None or first <= moment)
            and (last is None or moment <= last)
        )

    return lies


def _moment(text: str) -> datetime | None:
    if not text.strip():
        return None
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise TransferError.bad_request(
            f"The filter's {text!r} is not a date and time such as 2030-01-31 12:00:00."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def ordered(items: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """``items``, tasks as documents, by an ``orderby`` parameter such as
    ``label ASC,request_time DESC``.

    Raises :class:`TransferError` for a text that makes no sense.
    """
    for criterion in reversed([part.strip() for part in text.split(",") if part.strip()]):
        attribute, _, direction = criterion.partition(" ")
        if attribute not in _TASK_ATTRIBUTES or direction.upper() not in ("", "ASC", "DESC"):
            raise TransferError.bad_request(
                f"orderby {criterion!r} is not a field and ASC or DESC; fields are "
                f"{', '.join(_TASK_ATTRIBUTES)}."
            )
        items = sorted(
            items,
            key=lambda item, name=attribute: str(item[name] or ""),  # type: ignore[misc]
            reverse=direction.upper() == "DESC",
        )
    return items


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
