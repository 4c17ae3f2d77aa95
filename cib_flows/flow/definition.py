"""What the service refuses about a flow's definition, each problem with the place where it
stands."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from . import expressions, paths
from .choice_rules import choices_problems
from .graph import reachable, targets
from .language import (
    AT_MOST_ONE,
    FIELDS,
    ONE_OF,
    PRIVATE_PARAMETERS,
    REQUIRED,
    a_name,
    an_https_url,
    bare,
)
from .problems import Place, Problem, unknown_fields, wrong_type

__all__ = ["definition_problems"]

# A registered route of a Globus service, for instance urn:globus:flows:handle:globus:GROUPS.CREATE.
HANDLE = re.compile(
    r"urn:globus:flows:handle:globus:[A-Z][A-Z0-9_]*\.[A-Z][A-Z0-9_]*", re.IGNORECASE
)


def definition_problems(definition: Any) -> list[Problem]:
    """Everything that is wrong with ``definition``, in the order of its states; empty when it is
    sound."""
    return list(_definition_problems(definition, ("definition",)))


def _definition_problems(definition: Any, place: Place) -> Iterator[Problem]:
    if not isinstance(definition, dict):
        yield wrong_type(place, "dict")
        return
    yield from unknown_fields(definition, {"StartAt", "States", "Comment"}, place)
    yield from _comment_problems(definition, place)
    states = definition.get("States")
    start = definition.get("StartAt")
    for name in ("StartAt", "States"):
        if definition.get(name) is None:
            yield _missing((*place, name))
    if states is None:
        return
    if not isinstance(states, dict) or not states:
        yield Problem((*place, "States"), "an object with at least one state is expected")
        return
    for name, state in states.items():
        yield from _state_problems(state, (*place, "States", name))
    if start is not None:
        yield from _graph_problems(start, states, place)


def _missing(place: Place) -> Problem:
    return Problem(place, "field required", "value_error.missing", "missing-field")


def _comment_problems(holder: Mapping[str, Any], place: Place) -> Iterator[Problem]:
    if "Comment" in holder and not isinstance(holder["Comment"], str):
        yield Problem((*place, "Comment"), "str type expected", "type_error.str", "wrong-type")


def _state_problems(state: Any, place: Place) -> Iterator[Problem]:
    if not isinstance(state, dict):
        yield wrong_type(place, "dict")
        return
    kind = state.get("Type")
    if kind is None:
        yield _missing((*place, "Type"))
        return
    if not isinstance(kind, str) or kind not in FIELDS:
        known = ", ".join(sorted(FIELDS))
        message = f"{kind!r} is not a state type; known are {known}"
        yield Problem((*place, "Type"), message, code="unknown-state-type")
        return
    yield from unknown_fields(state, {"Type", "Comment", *FIELDS[kind]}, place)
    yield from _comment_problems(state, place)
    yield from _field_problems(state, kind, place)
    if isinstance(state.get("Parameters"), dict):
        yield from _parameter_problems(state["Parameters"], (*place, "Parameters"))
    if "Handler" in state:
        yield from _handler_problems(state["Handler"], (*place, "Handler"))
    if "Catch" in FIELDS[kind]:
        yield from _catch_problems(state, place)
    if kind == "Choice" and "Choices" in state:
        yield from choices_problems(state["Choices"], (*place, "Choices"))


def _field_problems(state: Mapping[str, Any], kind: str, place: Place) -> Iterator[Problem]:
    for name, check in FIELDS[kind].items():
        message = check(state[name]) if name in state else None
        if message is not None:
            yield Problem((*place, name), message)
    for name in REQUIRED.get(kind, ()):
        if name not in state:
            yield _missing((*place, name))
    for group in ONE_OF.get(kind, ()):
        if sum(name in state for name in group) != 1:
            yield Problem(
                place, f"A state of type '{kind}' must have exactly one of {_listed(group)}"
            )
    for group in AT_MOST_ONE.get(kind, ()):
        if all(name in state for name in group):
            yield Problem(place, f"A state of type '{kind}' may have only one of {_listed(group)}")
    if "Next" in FIELDS[kind] and (state.get("End") is True) == ("Next" in state):
        yield Problem(
            place,
            f"A state of type '{kind}' must be defined as either terminal (\"End\": true) or"
            ' transitional ("Next": "NextStateId")',
            code="next-or-end",
        )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _parameter_problems(template: Any, place: Place) -> Iterator[Problem]:
    if isinstance(template, list):
        for number, item in enumerate(template):
            yield from _parameter_problems(item, (*place, number))
    if not isinstance(template, dict):
        return
    seen: set[str] = set()
    for key, item in template.items():
        if key == PRIVATE_PARAMETERS:
            if not isinstance(item, list) or not all(isinstance(name, str) for name in item):
                yield Problem((*place, key), "a list of parameter names is expected")
            continue
        if bare(key) in seen:
            yield Problem((*place, key), f"the parameter {bare(key)!r} is given twice")
        seen.add(bare(key))
        if key.endswith(".$"):
            message = paths.path_problem(item)
        elif key.endswith(".="):
            message = expressions.expression_problem(item)
        else:
            yield from _parameter_problems(item, (*place, key))
            continue
        if message is not None:
            yield Problem((*place, key), message)


def _handler_problems(handler: Any, place: Place) -> Iterator[Problem]:
    if isinstance(handler, str):
        if not HANDLE.fullmatch(handler):
            yield Problem(
                place,
                f"{handler!r} is not a handle; one reads"
                " urn:globus:flows:handle:globus:<SERVICE>.<ROUTE>",
            )
        return
    if not isinstance(handler, dict):
        yield Problem(place, "a handle or an object with a Type is expected", "type_error")
        return
    if handler.get("Type") == "ActionProvider":
        yield from unknown_fields(handler, {"Type", "Url", "Scope"}, place)
        message = an_https_url(handler.get("Url"))
        if message is not None:
            yield Problem((*place, "Url"), message)
        if "Scope" in handler and (message := a_name(handler["Scope"])) is not None:
            yield Problem((*place, "Scope"), message)
    elif handler.get("Type") == "RegisteredAPI":
        yield from unknown_fields(handler, {"Type", "Id"}, place)
        if not _is_uuid(handler.get("Id")):
            yield Problem((*place, "Id"), "value is not a valid uuid", "type_error.uuid")
    else:
        yield Problem((*place, "Type"), "'ActionProvider' or 'RegisteredAPI' is expected")


def _is_uuid(value: Any) -> bool:
    try:
        return isinstance(value, str) and bool(uuid.UUID(value))
    except ValueError:
        return False


def _catch_problems(state: Mapping[str, Any], place: Place) -> Iterator[Problem]:
    if "Catch" not in state:
        return
    catchers = state["Catch"]
    if not isinstance(catchers, list):
        yield wrong_type((*place, "Catch"), "list")
        return
    for number, catcher in enumerate(catchers):
        here: Place = (*place, "Catch", number)
        if not isinstance(catcher, dict):
            yield wrong_type(here, "dict")
            continue
        yield from unknown_fields(catcher, {"ErrorEquals", "Next", "ResultPath"}, here)
        names = catcher.get("ErrorEquals")
        if (
            not isinstance(names, list)
            or not names
            or not all(isinstance(name, str) for name in names)
        ):
            yield Problem((*here, "ErrorEquals"), "a list of at least one error name is expected")
        message = a_name(catcher.get("Next"))
        if message is not None:
            yield Problem((*here, "Next"), message)
        if "ResultPath" in catcher:
            message = paths.reference_path_problem(catcher["ResultPath"])
            if message is not None:
                yield Problem((*here, "ResultPath"), message)


def _graph_problems(start: Any, states: Mapping[str, Any], place: Place) -> Iterator[Problem]:
    for name, state in states.items():
        for transition in targets(state) if isinstance(state, dict) else ():
            if transition.target not in states:
                yield Problem(
                    (*place, "States", name, *transition.place),
                    f"there is no state named {transition.target!r}",
                    code="no-such-state",
                )
    if not isinstance(start, str) or start not in states:
        message = f"there is no state named {start!r}"
        yield Problem((*place, "StartAt"), message, code="no-such-state")
        return
    reached = reachable(start, states)
    for name in states:
        if name not in reached:
            yield Problem(
                (*place, "States", name),
                f"the state {name!r} cannot be reached from {start!r}",
                code="unreachable-state",
            )
