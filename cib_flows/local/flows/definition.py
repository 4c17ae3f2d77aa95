"""What the service refuses about a flow's definition, each problem with the place where it
stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from . import choice, expressions, parameters, paths

__all__ = ["Problem", "definition_problems", "targets"]

Problem = dict[str, Any]
Place = tuple[str | int, ...]

MAX_WAIT_SECONDS = 31_536_000
Check = Callable[[Any], "str | None"]


def _problem(place: Place, message: str, kind: str = "value_error") -> Problem:
    return {"loc": list(place), "msg": message, "type": kind}


# --- fields ---------------------------------------------------------------------------------------


def _a_string(value: Any) -> str | None:
    return None if isinstance(value, str) else "str type expected"


def _a_name(value: Any) -> str | None:
    return None if isinstance(value, str) and value else "a non-empty string is expected"


def _a_boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else "value could not be parsed to a boolean"


def _an_object(value: Any) -> str | None:
    return None if isinstance(value, dict) else "value is not a valid dict"


def _seconds(value: Any) -> str | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return "value is not a valid integer"
    if not 1 <= value <= MAX_WAIT_SECONDS:
        return f"ensure this value lies between 1 and {MAX_WAIT_SECONDS} seconds"
    return None


def _wait_seconds(value: Any) -> str | None:
    return None if value == 0 and not isinstance(value, bool) else _seconds(value)


def _a_timestamp(value: Any) -> str | None:
    return None if choice.timestamp(value) else "an RFC 3339 timestamp with a time zone is expected"


def _an_https_url(value: Any) -> str | None:
    if isinstance(value, str):
        parts = urlsplit(value)
        if parts.scheme == "https" and parts.netloc:
            return None
    return 'string does not match regex "^https://.+$"'


_ANYTHING: Check = lambda value: None  # noqa: E731 - a field whose content is checked elsewhere
_ENDING: dict[str, Check] = {"Next": _a_name, "End": _a_boolean}

# Every state is closed: a field that is not here is refused.
FIELDS: dict[str, dict[str, Check]] = {
    "Action": {
        "ActionUrl": _an_https_url,
        "Handler": _ANYTHING,
        "ActionScope": _a_name,
        "Parameters": _an_object,
        "InputPath": paths.path_problem,
        "ResultPath": paths.reference_path_problem,
        "WaitTime": _seconds,
        "ExceptionOnActionFailure": _a_boolean,
        "RunAs": _a_name,
        "Catch": _ANYTHING,
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
    "Choice": {"Choices": _ANYTHING, "Default": _a_name},
    "Wait": {
        "Seconds": _wait_seconds,
        "Timestamp": _a_timestamp,
        "SecondsPath": paths.path_problem,
        "TimestampPath": paths.path_problem,
        **_ENDING,
    },
    "Fail": {
        "Error": _a_string,
        "ErrorPath": paths.path_problem,
        "Cause": _a_string,
        "CausePath": paths.path_problem,
    },
}
REQUIRED: dict[str, tuple[str, ...]] = {
    "ExpressionEval": ("Parameters", "ResultPath"),
    "Choice": ("Choices",),
}
# Exactly one of each group must be there.
ONE_OF: dict[str, tuple[tuple[str, ...], ...]] = {
    "Action": (("ActionUrl", "Handler"), ("Parameters", "InputPath")),
    "Wait": (("Seconds", "Timestamp", "SecondsPath", "TimestampPath"),),
}
# At most one of each group may be there.
AT_MOST_ONE: dict[str, tuple[tuple[str, ...], ...]] = {
    "Fail": (("Error", "ErrorPath"), ("Cause", "CausePath")),
}
WEB_INPUTS = frozenset({"CreateWebInput", "AwaitWebInput"})


# --- the whole definition -------------------------------------------------------------------------


def definition_problems(definition: Any) -> list[Problem]:
    """Everything that is wrong with ``definition``, in the order of its states; empty when it is
    sound."""
    return list(_definition_problems(definition, ("definition",)))


def _definition_problems(definition: Any, place: Place) -> Iterator[Problem]:
    if not isinstance(definition, dict):
        yield _problem(place, "value is not a valid dict", "type_error.dict")
        return
    yield from _unknown_fields(definition, {"StartAt", "States", "Comment"}, place)
    if "Comment" in definition and not isinstance(definition["Comment"], str):
        yield _problem((*place, "Comment"), "str type expected", "type_error.str")
    states = definition.get("States")
    start = definition.get("StartAt")
    if start is None:
        yield _problem((*place, "StartAt"), "field required", "value_error.missing")
    if states is None:
        yield _problem((*place, "States"), "field required", "value_error.missing")
        return
    if not isinstance(states, dict) or not states:
        yield _problem((*place, "States"), "an object with at least one state is expected")
        return
    for name, state in states.items():
        yield from _state_problems(state, (*place, "States", name))
    if start is not None:
        yield from _graph_problems(start, states, place)


def _unknown_fields(holder: Mapping[str, Any], known: set[str], place: Place) -> Iterator[Problem]:
    for key in holder:
        if key not in known:
            yield _problem((*place, key), "extra fields not permitted", "value_error.extra")


def _state_problems(state: Any, place: Place) -> Iterator[Problem]:
    if not isinstance(state, dict):
        yield _problem(place, "value is not a valid dict", "type_error.dict")
        return
    kind = state.get("Type")
    if kind is None:
        yield _problem((*place, "Type"), "field required", "value_error.missing")
        return
    if not isinstance(kind, str) or kind not in {*FIELDS, *WEB_INPUTS}:
        known = ", ".join(sorted(FIELDS))
        yield _problem((*place, "Type"), f"{kind!r} is not a state type; known are {known}")
        return
    if kind in WEB_INPUTS:
        yield _problem(
            (*place, "Type"), f"states of type {kind!r} are not supported by the local Globus yet"
        )
        return
    fields = FIELDS[kind]
    yield from _unknown_fields(state, {"Type", "Comment", *fields}, place)
    if "Comment" in state and not isinstance(state["Comment"], str):
        yield _problem((*place, "Comment"), "str type expected", "type_error.str")
    for name, check in fields.items():
        message = check(state[name]) if name in state else None
        if message is not None:
            yield _problem((*place, name), message)
    for name in REQUIRED.get(kind, ()):
        if name not in state:
            yield _problem((*place, name), "field required", "value_error.missing")
    for group in ONE_OF.get(kind, ()):
        if sum(name in state for name in group) != 1:
            yield _problem(
                place, f"A state of type '{kind}' must have exactly one of {_listed(group)}"
            )
    for group in AT_MOST_ONE.get(kind, ()):
        if all(name in state for name in group):
            yield _problem(place, f"A state of type '{kind}' may have only one of {_listed(group)}")
    if "Next" in fields:
        yield from _ending_problems(state, kind, place)
    if isinstance(state.get("Parameters"), dict):
        yield from _parameter_problems(state["Parameters"], (*place, "Parameters"))
    if kind == "Action":
        yield from _handler_problems(state, place)
        yield from _catch_problems(state, place)
    if kind == "Choice" and "Choices" in state:
        yield from _choices_problems(state["Choices"], (*place, "Choices"))


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _ending_problems(state: Mapping[str, Any], kind: str, place: Place) -> Iterator[Problem]:
    ends = state.get("End") is True
    if ends == ("Next" in state):
        yield _problem(
            place,
            f"A state of type '{kind}' must be defined as either terminal (\"End\": true) or"
            " transitional"
            ' ("Next": "NextStateId")',
        )


def _parameter_problems(template: Any, place: Place) -> Iterator[Problem]:
    if isinstance(template, list):
        for number, item in enumerate(template):
            yield from _parameter_problems(item, (*place, number))
    if not isinstance(template, dict):
        return
    seen: set[str] = set()
    for key, item in template.items():
        if key == parameters.PRIVATE_PARAMETERS:
            if not isinstance(item, list) or not all(isinstance(name, str) for name in item):
                yield _problem((*place, key), "a list of parameter names is expected")
            continue
        bare = key[:-2] if key.endswith((".$", ".=")) else key
        if bare in seen:
            yield _problem((*place, key), f"the parameter {bare!r} is given twice")
        seen.add(bare)
        if key.endswith(".$"):
            message = paths.path_problem(item)
        elif key.endswith(".="):
            message = expressions.expression_problem(item)
        else:
            yield from _parameter_problems(item, (*place, key))
            continue
        if message is not None:
            yield _problem((*place, key), message)


def _handler_problems(state: Mapping[str, Any], place: Place) -> Iterator[Problem]:
    handler = state.get("Handler")
    if handler is None:
        return
    if not isinstance(handler, dict) or handler.get("Type") != "ActionProvider":
        yield _problem(
            (*place, "Handler"), "the local Globus supports handlers of type 'ActionProvider' only"
        )
        return
    yield from _unknown_fields(handler, {"Type", "Url", "Scope"}, (*place, "Handler"))
    message = _an_https_url(handler.get("Url"))
    if message is not None:
        yield _problem((*place, "Handler", "Url"), message)


def _catch_problems(state: Mapping[str, Any], place: Place) -> Iterator[Problem]:
    if "Catch" not in state:
        return
    catchers = state["Catch"]
    if not isinstance(catchers, list):
        yield _problem((*place, "Catch"), "value is not a valid list", "type_error.list")
        return
    for number, catcher in enumerate(catchers):
        here: Place = (*place, "Catch", number)
        if not isinstance(catcher, dict):
            yield _problem(here, "value is not a valid dict", "type_error.dict")
            continue
        yield from _unknown_fields(catcher, {"ErrorEquals", "Next", "ResultPath"}, here)
        names = catcher.get("ErrorEquals")
        if (
            not isinstance(names, list)
            or not names
            or not all(isinstance(name, str) for name in names)
        ):
            yield _problem((*here, "ErrorEquals"), "a list of at least one error name is expected")
        message = _a_name(catcher.get("Next"))
        if message is not None:
            yield _problem((*here, "Next"), message)
        if "ResultPath" in catcher:
            message = paths.reference_path_problem(catcher["ResultPath"])
            if message is not None:
                yield _problem((*here, "ResultPath"), message)


# --- choices --------------------------------------------------------------------------------------


def _choices_problems(rules: Any, place: Place) -> Iterator[Problem]:
    if not isinstance(rules, list) or not rules:
        yield _problem(place, "a list of at least one rule is expected")
        return
    for number, rule in enumerate(rules):
        yield from _rule_problems(rule, (*place, number), top=True)


def _rule_problems(rule: Any, place: Place, *, top: bool) -> Iterator[Problem]:
    if not isinstance(rule, dict):
        yield _problem(place, "value is not a valid dict", "type_error.dict")
        return
    if top:
        message = _a_name(rule.get("Next"))
        if message is not None:
            yield _problem((*place, "Next"), message)
    body = {key: value for key, value in rule.items() if not (top and key == "Next")}
    combinators = [key for key in body if key in choice.COMBINATORS]
    operators = [key for key in body if key in choice.OPERATORS]
    yield from _unknown_fields(body, {"Variable", *choice.COMBINATORS, *choice.OPERATORS}, place)
    if len(combinators) + len(operators) != 1 or (operators and "Variable" not in body):
        yield _problem(
            place, 'a rule holds one of "And", "Or", "Not", or a "Variable" and one operator'
        )
        return
    if operators:
        message = paths.path_problem(body["Variable"])
        if message is not None:
            yield _problem((*place, "Variable"), message)
        message = _operand_problem(choice.OPERATORS[operators[0]], body[operators[0]])
        if message is not None:
            yield _problem((*place, operators[0]), message)
        return
    (combinator,) = combinators
    if combinator == "Not":
        yield from _rule_problems(body["Not"], (*place, "Not"), top=False)
        return
    parts = body[combinator]
    if not isinstance(parts, list) or not parts:
        yield _problem((*place, combinator), "a list of at least one rule is expected")
        return
    for number, part in enumerate(parts):
        yield from _rule_problems(part, (*place, combinator, number), top=False)


def _operand_problem(kind: str, operand: Any) -> str | None:
    if kind == "path":
        return paths.path_problem(operand)
    if kind == "boolean":
        return _a_boolean(operand)
    if kind == "number":
        is_number = isinstance(operand, (int, float)) and not isinstance(operand, bool)
        return None if is_number else "value is not a number"
    return _a_timestamp(operand) if kind == "timestamp" else _a_string(operand)


# --- the graph ------------------------------------------------------------------------------------


def targets(state: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    """Where a run may go from ``state``: the field that says so, and the next state's name."""
    for name in ("Next", "Default"):
        if isinstance(state.get(name), str):
            yield (name,), state[name]
    for field in ("Choices", "Catch"):
        entries = state.get(field)
        for number, entry in enumerate(entries if isinstance(entries, list) else ()):
            if isinstance(entry, dict) and isinstance(entry.get("Next"), str):
                yield (field, number, "Next"), entry["Next"]


def _graph_problems(start: Any, states: Mapping[str, Any], place: Place) -> Iterator[Problem]:
    graph: dict[str, list[str]] = {}
    for name, state in states.items():
        graph[name] = []
        for field, target in targets(state) if isinstance(state, dict) else ():
            if target in states:
                graph[name].append(target)
            else:
                yield _problem(
                    (*place, "States", name, *field), f"there is no state named {target!r}"
                )
    if not isinstance(start, str) or start not in states:
        yield _problem((*place, "StartAt"), f"there is no state named {start!r}")
        return
    reached = {start}
    waiting = [start]
    while waiting:
        new = set(graph[waiting.pop()]) - reached
        reached |= new
        waiting.extend(new)
    for name in states:
        if name not in reached:
            yield _problem(
                (*place, "States", name), f"the state {name!r} cannot be reached from {start!r}"
            )
