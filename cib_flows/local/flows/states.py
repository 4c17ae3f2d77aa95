"""What each state does with a run's document. Nothing here waits, stores or logs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from cib_flows.flow.timestamps import timestamp
from cib_flows.local.actions import ActionStatus, Identity

from . import choice, parameters, paths
from .errors import StateError

__all__ = [
    "MAX_DOCUMENT_BYTES",
    "Finished",
    "action_body",
    "action_result",
    "catcher_for",
    "document_size",
    "document_text",
    "error_warnings",
    "failure",
    "finish_action",
    "finish_caught",
    "finish_web_input",
    "run_at_once",
    "sentence",
    "shown",
    "wait_end",
]

MAX_DOCUMENT_BYTES = 200_000
MAX_WAIT_SECONDS = 31_536_000
UNCATCHABLE = frozenset({"States.DataLimitExceeded"})
CATCH_ALL = frozenset({"States.ALL", "States.All"})

Document = Any
Context = Mapping[str, Any]
State = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Finished:
    """A state that is done. ``next`` is None at the end of the flow; ``input`` and ``output`` are
    for the log."""

    document: Document
    next: str | None
    input: Any
    output: Any
    warnings: list[str] = dataclasses.field(default_factory=list)


def document_size(document: Document) -> int:
    """How many bytes count against the limit: UTF-8, without blanks."""
    plain = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    return len(plain.encode("utf-8", "surrogatepass"))


def document_text(document: Document) -> str:
    """The document as stored.

    :raises StateError: ``States.DataLimitExceeded`` above the service's limit
    """
    text = json.dumps(document, separators=(",", ":"))
    # The limit is about UTF-8, which is never longer than the escapes that are stored.
    size = document_size(document) if len(text) > MAX_DOCUMENT_BYTES else len(text)
    if size > MAX_DOCUMENT_BYTES:
        raise StateError(
            "States.DataLimitExceeded",
            f"The run's document has {size} bytes; {MAX_DOCUMENT_BYTES} are allowed. Return paths"
            " instead of data, and"
            " give states a ResultPath that replaces what is no longer needed.",
        )
    return text


# --- states that neither wait nor call anyone -----------------------------------------------------


def run_at_once(state: State, document: Document, context: Context) -> Finished | None:
    """Do a Pass, ExpressionEval or Choice state; None for the other types.

    :raises StateError: when it cannot be done
    """
    kind = state["Type"]
    if kind == "Pass":
        return _pass(state, document, context)
    if kind == "ExpressionEval":
        value, shown = parameters.build(state["Parameters"], document, context)
        return _finish(state, document, value, shown, shown, [])
    if kind == "Choice":
        return _choice(state, document, context)
    return None


def _pass(state: State, document: Document, context: Context) -> Finished:
    given = [name for name in ("Result", "Parameters", "InputPath") if name in state]
    warnings = []
    if len(given) > 1:
        warnings.append(
            f"Which of {', '.join(given)} counts is not documented; {given[0]} was taken."
        )
    if given[:1] == ["Result"]:
        value = state["Result"]
        shown = parameters.without_private(value)
    elif given[:1] == ["Parameters"]:
        value, shown = parameters.build(state["Parameters"], document, context)
        warnings += _expression_warnings(state)
    else:
        value = paths.read(state["InputPath"], document, context) if given else document
        shown = parameters.without_private(value)
        if given and state.get("ResultPath", "$") != "$":
            warnings.append(
                f"Whether {state['InputPath']} stays in the document beside the ResultPath is"
                " documented both ways; it stayed."
            )
    return _finish(state, document, value, shown, shown, warnings)


def _choice(state: State, document: Document, context: Context) -> Finished:
    warnings: list[str] = []
    following = choice.choose(state, document, context, warnings)
    if following is None:
        raise StateError("States.NoChoiceMatched", "No rule holds, and the state has no Default.")
    return Finished(document, following, {}, {"next": following}, warnings)


def _finish(
    state: State,
    document: Document,
    value: Any,
    shown_input: Any,
    shown_output: Any,
    warnings: list[str],
) -> Finished:
    written = paths.write(state.get("ResultPath", "$"), document, value)
    return Finished(written, state.get("Next"), shown_input, shown_output, warnings)


def _expression_warnings(state: State) -> list[str]:
    if not parameters.uses_expressions(state.get("Parameters")):
        return []
    return [
        f"Whether '.=' works in the Parameters of a state of type {state['Type']} is documented"
        " both ways; it was"
        " evaluated. ExpressionEval is the safe place for it."
    ]


# --- Wait and Fail --------------------------------------------------------------------------------


def wait_end(state: State, document: Document, context: Context, now: float) -> float:
    """When a Wait state that begins at ``now`` ends; both in seconds since 1970.

    :raises StateError: when a path leads to no usable number or time
    """
    field = next(
        name for name in ("Seconds", "SecondsPath", "Timestamp", "TimestampPath") if name in state
    )
    value = state[field]
    if field.endswith("Path"):
        value = paths.read(value, document, context)
    if field.startswith("Seconds"):
        if (
            not isinstance(value, (int, float))
            or isinstance(value, bool)
            or not 0 <= value <= MAX_WAIT_SECONDS
        ):
            raise StateError(
                "States.ParameterPathFailure",
                f"{field} must give a number of seconds from 0 to {MAX_WAIT_SECONDS}, not"
                f" {value!r}.",
            )
        return now + value
    moment = timestamp(value)
    if moment is None:
        raise StateError(
            "States.ParameterPathFailure",
            f"{field} must give an RFC 3339 time with a time zone, not {value!r}.",
        )
    return moment.timestamp()


def failure(state: State, document: Document, context: Context) -> StateError:
    """The error and cause that a Fail state ends the run with."""

    def text(name: str, default: str) -> str:
        if f"{name}Path" not in state:
            return str(state.get(name, default))
        path = state[f"{name}Path"]
        value = paths.find(path, document, context)
        if value is paths.MISSING:
            return f"The path {path} matches nothing in the run's document."
        return value if isinstance(value, str) else json.dumps(value)

    return StateError(
        text("Error", "States.Failed"), text("Cause", "The flow ended in a Fail state.")
    )


# --- Action ---------------------------------------------------------------------------------------


def action_body(state: State, document: Document, context: Context) -> tuple[Any, Any, list[str]]:
    """The body for the provider, the same as logs may see it, and warnings.

    :raises StateError: when a path or an expression fails, or the body is not an object
    """
    if "Parameters" in state:
        body, shown = parameters.build(state["Parameters"], document, context)
    else:
        body = paths.read(state["InputPath"], document, context)
        shown = parameters.without_private(body)
    if not isinstance(body, dict):
        raise StateError(
            "States.ParameterPathFailure",
            f"An action's input must be an object; {state['InputPath']} gives"
            f" {type(body).__name__}.",
        )
    # The official examples evaluate expressions in web inputs.
    warnings = _expression_warnings(state) if state["Type"] == "Action" else []
    return body, shown, warnings


def shown(value: Any) -> Any:
    """``value`` as logs and viewers may see it."""
    return parameters.without_private(value)


def action_result(name: str, status: ActionStatus, identity: Identity) -> dict[str, Any]:
    """The status document as a flow stores it."""
    result = dataclasses.asdict(status)
    result["creator_id"] = status.creator_id or identity.urn
    result["state_name"] = name
    return result


def finish_action(
    state: State, document: Document, result: dict[str, Any], shown_input: Any
) -> Finished:
    """Store the result of an action that is over.

    :raises StateError: ``ActionFailedException`` when it failed and the state does not accept that
    """
    if result["status"] == "FAILED" and state.get("ExceptionOnActionFailure", True):
        raise StateError("ActionFailedException", result)
    return _finish(state, document, result, shown_input, parameters.without_private(result), [])


def finish_web_input(
    state: State, document: Document, result: dict[str, Any], shown_input: Any, warnings: list[str]
) -> Finished:
    """Store what a web input state has found."""
    return _finish(state, document, result, shown_input, result, warnings)


def catcher_for(state: State, error: StateError) -> Mapping[str, Any] | None:
    """The first catcher of ``state`` that takes ``error``."""
    if error.error in UNCATCHABLE:
        return None
    for catcher in state.get("Catch", ()):
        names = set(catcher["ErrorEquals"])
        if error.error in names or names & CATCH_ALL:
            found: Mapping[str, Any] = catcher
            return found
    return None


def error_warnings(state: State, error: StateError) -> list[str]:
    """Which undocumented behaviour, if any, made an error of what happened."""
    if error.error == "ActionFailedException" and "ExceptionOnActionFailure" not in state:
        return [
            "The default of ExceptionOnActionFailure is documented both as true and as false; true"
            " was taken. Write"
            " it into the state."
        ]
    if error.error == "Flows.WebInputExpired":
        return ["How long a web input stays open is not documented; 30 days are taken by default."]
    return []


def finish_caught(catcher: Mapping[str, Any], document: Document, error: StateError) -> Finished:
    """Go on in a catcher's state with the error in the document."""
    caught = {"Error": error.error, "Cause": error.cause}
    written = paths.write(catcher.get("ResultPath", "$"), document, caught)
    warnings = ["The keys of a caught error are not documented; Error and Cause were taken."]
    return Finished(written, catcher["Next"], None, parameters.without_private(caught), warnings)


def sentence(cause: Any) -> str:
    """One readable line for a cause, which may be an action's status document."""
    if isinstance(cause, str):
        return cause
    if isinstance(cause, dict):
        details = cause.get("details", cause)
        if isinstance(details, dict):
            for key in ("description", "message", "nice_status_details"):
                if isinstance(details.get(key), str):
                    return str(details[key])
            results = details.get("result")
            if isinstance(results, list) and results and isinstance(results[0], str):
                return str(results[0]).strip().rpartition("\n")[2][:500]
    return json.dumps(cause, ensure_ascii=False)[:500]
