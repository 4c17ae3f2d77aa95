"""What the service would silently do wrong with a state: its defaults, and the habits that avoid
them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .effects import replaces_document
from .findings import Remark, remark
from .language import DOCUMENTED_ERRORS, WEB_INPUT_EXPIRED, bare
from .problems import Place
from .reads import unknown_names
from .rules_providers import provider_remarks

__all__ = ["state_remarks"]

CATCH_ALL = frozenset({"States.ALL", "States.All"})
# A definition's own values take part in the run's state of 200 KB.
LARGE_VALUE = 50_000

State = Mapping[str, Any]


def state_remarks(states: Mapping[str, State]) -> Iterator[Remark]:
    """Remarks on every state of a sound definition, in their order."""
    for name, state in states.items():
        place: Place = ("States", name)
        kind = state["Type"]
        if kind == "Action":
            yield from _action_remarks(name, state, states, place)
        if kind in ("Action", "CreateWebInput", "AwaitWebInput"):
            yield from _catch_remarks(kind, state, place)
        if kind in ("Action", "Pass", "CreateWebInput", "AwaitWebInput"):
            yield from _result_remarks(kind, state, place)
        if kind == "Pass":
            yield from _pass_remarks(state, place)
        if kind == "Choice" and "Default" not in state:
            yield remark(
                "choice-without-default",
                place,
                "A run fails here when no rule holds.",
                "Give the Choice a Default, perhaps a Fail state with a sentence.",
            )
        yield from _expression_remarks(kind, state.get("Parameters"), (*place, "Parameters"))
        yield from _size_remarks(state, place)


# --- results --------------------------------------------------------------------------------------


def _result_remarks(kind: str, state: State, place: Place) -> Iterator[Remark]:
    if "ResultPath" in state or not replaces_document(state):
        return
    if kind == "Pass" and state.get("End") is True:
        return
    yield remark(
        "default-result-path",
        place,
        "Without a ResultPath the result replaces the whole document of the run.",
        f'Write "ResultPath": "$.{place[-1]}", or "$" where that is meant.',
    )


def _pass_remarks(state: State, place: Place) -> Iterator[Remark]:
    given = [name for name in ("Parameters", "InputPath", "Result") if name in state]
    if len(given) > 1:
        yield remark(
            "ambiguous-input",
            place,
            f"Which of {' and '.join(given)} counts is not documented.",
            "Keep one of them.",
        )
    result = state.get("ResultPath", "$")
    # What is replaced by the result is gone either way.
    stays = result != "$" and not f"{state.get('InputPath')}.".startswith(f"{result}.")
    if given == ["InputPath"] and stays:
        yield remark(
            "input-path-may-vanish",
            (*place, "InputPath"),
            f"Whether {state['InputPath']} stays beside the ResultPath is documented both ways.",
            'Copy it with Parameters ("name.$": path), and read only the copy.',
        )
    if not given and state.get("ResultPath", "$") != "$":
        yield remark(
            "state-may-grow",
            place,
            f"The whole document is copied into itself at {state['ResultPath']}.",
            "Name what is needed in Parameters; the run's state may have 200 KB.",
        )


def _size_remarks(state: State, place: Place) -> Iterator[Remark]:
    for field in ("Parameters", "Result"):
        size = len(json.dumps(state.get(field)))
        if size > LARGE_VALUE:
            yield remark(
                "state-may-grow",
                (*place, field),
                f"These values alone have {size // 1000} KB of the 200 KB that a run's state may"
                " have.",
                "Keep data in files, and pass their paths.",
            )


# --- actions --------------------------------------------------------------------------------------


def _action_remarks(
    name: str, state: State, states: Mapping[str, State], place: Place
) -> Iterator[Remark]:
    if "WaitTime" not in state:
        yield remark(
            "default-wait-time",
            place,
            "Without a WaitTime the action may take 300 seconds; then it fails with ActionTimeout,"
            " while its work goes on.",
            "Write the longest time it may take, in seconds, with the wait in queues.",
        )
    if "ExceptionOnActionFailure" not in state:
        yield remark(
            "failure-flag-missing",
            place,
            "Whether a failed action fails the state by default is documented both ways.",
            "Write ExceptionOnActionFailure: true with a Catch, or false and check the status.",
        )
    elif state["ExceptionOnActionFailure"] is False and not _status_is_read(name, state, states):
        yield remark(
            "failure-ignored",
            (*place, "ExceptionOnActionFailure"),
            "The run goes on after the action failed, and no state looks at its status.",
            f"Check {state.get('ResultPath', '$')}.status in a Choice, or write true and a Catch.",
        )
    if state.get("RunAs", "User") not in ("User", "Flow"):
        yield remark(
            "run-as-role",
            (*place, "RunAs"),
            f"An action as the role {state['RunAs']!r} needs a token of that role in the input's"
            " '_tokens'.",
            "Use User or Flow unless the runs are started by a program that brings such tokens.",
        )
    yield from provider_remarks(state, place)


def _status_is_read(name: str, state: State, states: Mapping[str, State]) -> bool:
    path = state.get("ResultPath", "$")
    words = {f"{path}.status", f"{path}.details", f"{path.removeprefix('$.')}.status"}
    words.add(path.removeprefix("$."))
    for other, reader in states.items():
        if other == name:
            continue
        text = json.dumps({key: reader[key] for key in ("Choices", "Parameters") if key in reader})
        if any(word in text for word in words):
            return True
    return False


def _catch_remarks(kind: str, state: State, place: Place) -> Iterator[Remark]:
    catchers = state.get("Catch", [])
    for number, catcher in enumerate(catchers):
        if "ResultPath" not in catcher:
            yield remark(
                "catcher-without-result-path",
                (*place, "Catch", number),
                "Without a ResultPath the error replaces the whole document of the run.",
                'Write "ResultPath": "$.caught", or another place of its own.',
            )
    yield from _order_remarks(catchers, place)
    caught = [name for catcher in catchers for name in catcher["ErrorEquals"]]
    known = {*DOCUMENTED_ERRORS, WEB_INPUT_EXPIRED}
    for number, catcher in enumerate(catchers):
        for index, name in enumerate(catcher["ErrorEquals"]):
            if name not in known:
                yield remark(
                    "undocumented-error-name",
                    (*place, "Catch", number, "ErrorEquals", index),
                    f"{name!r} is not among the errors that the service documents.",
                    f"The documented ones are {', '.join(DOCUMENTED_ERRORS)}.",
                )
    if kind != "Action":
        return
    if not catchers:
        yield remark(
            "missing-catch",
            place,
            "Nothing catches what may go wrong here, so the run ends without a word of its own.",
            f"Catch {', '.join(DOCUMENTED_ERRORS)} and go on to a state that reports or cleans up.",
        )
    elif not CATCH_ALL & set(caught):
        raised = [
            name
            for name in DOCUMENTED_ERRORS
            if name != "ActionFailedException" or state.get("ExceptionOnActionFailure") is not False
        ]
        missing = [name for name in raised if name not in caught]
        if missing:
            yield remark(
                "catch-incomplete",
                (*place, "Catch"),
                f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not caught.",
                "Add it to a catcher's ErrorEquals."
                if len(missing) == 1
                else "Add them to a catcher's ErrorEquals.",
            )


def _order_remarks(catchers: list[State], place: Place) -> Iterator[Remark]:
    """The first catcher that takes an error takes it."""
    taken: set[str] = set()
    for number, catcher in enumerate(catchers):
        names = catcher["ErrorEquals"]
        lost = [name for name in names if name in taken or taken & CATCH_ALL]
        if lost:
            yield remark(
                "catcher-never-reached",
                (*place, "Catch", number),
                f"A catcher before this one takes {' and '.join(lost)}.",
                "Put the more special catchers first, or remove what is caught already.",
            )
        taken |= set(names)


# --- expressions ----------------------------------------------------------------------------------


def _expression_remarks(kind: str, template: Any, place: Place) -> Iterator[Remark]:
    if isinstance(template, list):
        for number, item in enumerate(template):
            yield from _expression_remarks(kind, item, (*place, number))
    if not isinstance(template, dict):
        return
    for key, item in template.items():
        here = (*place, key)
        if key.endswith(".="):
            # The official examples evaluate expressions in web inputs too.
            if kind in ("Action", "Pass"):
                yield remark(
                    "expression-outside-eval",
                    here,
                    f"Whether the parameter {bare(key)!r} of a state of type {kind} is evaluated is"
                    " documented both ways.",
                    "Evaluate it in an ExpressionEval state before, and read it with '.$'.",
                )
            for word, advice in unknown_names(item):
                yield remark(
                    "unknown-name-in-expression",
                    here,
                    f"Expressions have no {word!r}.",
                    advice,
                )
        elif not key.endswith(".$"):
            yield from _expression_remarks(kind, item, here)
