"""The words of the definition language: state types, their fields, choice operators, suffixes.

Data for the checks of a definition, for the interpreter of the embedded Globus and for drawings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from . import paths
from .timestamps import timestamp

__all__ = [
    "AT_MOST_ONE",
    "COMBINATORS",
    "DOCUMENTED_ERRORS",
    "FIELDS",
    "ONE_OF",
    "OPERATORS",
    "PRIVATE_PARAMETERS",
    "REQUIRED",
    "WEB_INPUTS",
    "Check",
    "a_boolean",
    "a_name",
    "a_string",
    "a_timestamp",
    "an_https_url",
    "bare",
]

MAX_WAIT_SECONDS = 31_536_000
PRIVATE_PARAMETERS = "__Private_Parameters"
DOCUMENTED_ERRORS = ("ActionUnableToRun", "ActionFailedException", "ActionTimeout")
WEB_INPUT_EXPIRED = "Flows.WebInputExpired"

Check = Callable[[Any], "str | None"]


def bare(key: str) -> str:
    """A parameter's name without the suffix ``.$`` or ``.=``."""
    return key[:-2] if key.endswith((".$", ".=")) else key


# --- checks of one value: a sentence, or None when it is right ------------------------------------


def a_string(value: Any) -> str | None:
    return None if isinstance(value, str) else "str type expected"


def a_name(value: Any) -> str | None:
    return None if isinstance(value, str) and value else "a non-empty string is expected"


def a_boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else "value could not be parsed to a boolean"


def a_timestamp(value: Any) -> str | None:
    return None if timestamp(value) else "an RFC 3339 timestamp with a time zone is expected"


def an_https_url(value: Any) -> str | None:
    if isinstance(value, str):
        try:
            parts = urlsplit(value)
        except ValueError:
            return f"{value!r} is not a URL"
        if parts.scheme == "https" and parts.netloc:
            return None
    return 'string does not match regex "^https://.+$"'


def _an_object(value: Any) -> str | None:
    return None if isinstance(value, dict) else "value is not a valid dict"


def _seconds(least: int) -> Check:
    def check(value: Any) -> str | None:
        if not isinstance(value, int) or isinstance(value, bool):
            return "value is not a valid integer"
        if not least <= value <= MAX_WAIT_SECONDS:
            return f"ensure this value lies between {least} and {MAX_WAIT_SECONDS} seconds"
        return None

    return check


def _anything(value: Any) -> str | None:
    """A field whose content is checked elsewhere."""
    return None


# --- states ---------------------------------------------------------------------------------------

_ENDING: dict[str, Check] = {"Next": a_name, "End": a_boolean}
_WEB_INPUT: dict[str, Check] = {
    "Parameters": _an_object,
    "InputPath": paths.path_problem,
    "ResultPath": paths.reference_path_problem,
    "Catch": _anything,
    **_ENDING,
}
# Every state is closed: a field that is not here is refused.
FIELDS: dict[str, dict[str, Check]] = {
    "Action": {
        "ActionUrl": an_https_url,
        "Handler": _anything,
        "ActionScope": a_name,
        "Parameters": _an_object,
        "InputPath": paths.path_problem,
        "ResultPath": paths.reference_path_problem,
        "WaitTime": _seconds(1),
        "ExceptionOnActionFailure": a_boolean,
        "RunAs": a_name,
        "Catch": _anything,
        **_ENDING,
    },
    "Pass": {
        "Parameters": _an_object,
        "InputPath": paths.path_problem,
        "Result": _an_object,
        "ResultPath": paths.reference_path_problem,
        **_ENDING,
    },
    "ExpressionEval": {
        "Parameters": _an_object,
        "ResultPath": paths.reference_path_problem,
        **_ENDING,
    },
    "Choice": {"Choices": _anything, "Default": a_name},
    "Wait": {
        "Seconds": _seconds(0),
        "Timestamp": a_timestamp,
        "SecondsPath": paths.path_problem,
        "TimestampPath": paths.path_problem,
        **_ENDING,
    },
    "Fail": {
        "Error": a_string,
        "ErrorPath": paths.path_problem,
        "Cause": a_string,
        "CausePath": paths.path_problem,
    },
    "CreateWebInput": _WEB_INPUT,
    "AwaitWebInput": _WEB_INPUT,
}
WEB_INPUTS = frozenset({"CreateWebInput", "AwaitWebInput"})
REQUIRED: dict[str, tuple[str, ...]] = {
    "ExpressionEval": ("Parameters", "ResultPath"),
    "Choice": ("Choices",),
}
# Exactly one of each group must be there.
ONE_OF: dict[str, tuple[tuple[str, ...], ...]] = {
    "Action": (("ActionUrl", "Handler"), ("Parameters", "InputPath")),
    "Wait": (("Seconds", "Timestamp", "SecondsPath", "TimestampPath"),),
    "CreateWebInput": (("Parameters", "InputPath"),),
    "AwaitWebInput": (("Parameters", "InputPath"),),
}
# At most one of each group may be there.
AT_MOST_ONE: dict[str, tuple[tuple[str, ...], ...]] = {
    "Fail": (("Error", "ErrorPath"), ("Cause", "CausePath")),
}

# --- choices --------------------------------------------------------------------------------------

COMBINATORS = frozenset({"And", "Or", "Not"})
_ORDERS = ("Equals", "LessThan", "LessThanEquals", "GreaterThan", "GreaterThanEquals")
_TYPED = {"Numeric": "number", "String": "string", "Timestamp": "timestamp"}
_COMPARING = {
    "BooleanEquals": "boolean",
    **{f"{prefix}{order}": kind for prefix, kind in _TYPED.items() for order in _ORDERS},
}
_TESTING = ("IsPresent", "IsNull", "IsNumeric", "IsString", "IsBoolean", "IsTimestamp")
# What the operand of each operator must be. Those that compare have a twin that ends in Path and
# takes the value from the document.
OPERATORS: dict[str, str] = {
    **_COMPARING,
    "StringMatches": "string",
    **dict.fromkeys(_TESTING, "boolean"),
    **dict.fromkeys((f"{name}Path" for name in _COMPARING), "path"),
}
