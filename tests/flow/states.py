"""States and definitions that the tests of this folder are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

COMPUTE = "https://compute.actions.globus.org/v3"
TRANSFER = "https://transfer.actions.globus.org/transfer"
ENDPOINT = "7a2b8f0e-0000-4000-8000-000000000001"


def action(url: str = COMPUTE, **fields: Any) -> dict[str, Any]:
    """An Action state that says everything which the service leaves open, and catches."""
    return {
        "Type": "Action",
        "ActionUrl": url,
        "Parameters": {},
        "ResultPath": "$.result",
        "WaitTime": 600,
        "ExceptionOnActionFailure": True,
        **({} if "Next" in fields else {"End": True}),
        **fields,
    }


def one_state(state: Mapping[str, Any], **others: Mapping[str, Any]) -> dict[str, Any]:
    """A definition that begins with ``state``, called Only."""
    return {
        "StartAt": "Only",
        "States": {"Only": dict(state), **{name: dict(s) for name, s in others.items()}},
    }


ALL_ERRORS = ["ActionUnableToRun", "ActionFailedException", "ActionTimeout"]
TASK = {"function_id": ENDPOINT, "kwargs": {"x.$": "$.x"}}

# A flow in which nothing is wrong: every test below breaks one thing.
SOUND: dict[str, Any] = {
    "StartAt": "Plan",
    "States": {
        "Plan": {
            "Type": "ExpressionEval",
            "Parameters": {"folder.=": "x + '/'", "has_note.=": "is_present('note')"},
            "ResultPath": "$.plan",
            "Next": "Work",
        },
        "Work": action(
            Parameters={"endpoint_id.$": "$.endpoint", "tasks": [TASK]},
            ResultPath="$.Work",
            Catch=[{"ErrorEquals": ALL_ERRORS, "ResultPath": "$.caught", "Next": "Failed"}],
            Next="HasNote",
        ),
        "HasNote": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.plan.has_note", "BooleanEquals": True, "Next": "Keep"}],
            "Default": "Done",
        },
        "Keep": {
            "Type": "Pass",
            "Parameters": {"note.$": "$.note"},
            "ResultPath": "$.kept",
            "Next": "Done",
        },
        "Done": {
            "Type": "Pass",
            "Parameters": {"output.$": "$.Work.details.results[0].output"},
            "ResultPath": "$.done",
            "End": True,
        },
        "Failed": {"Type": "Fail", "Error": "E", "Cause": "It went wrong."},
    },
}
INPUT: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["x", "endpoint"],
    "properties": {
        "x": {"type": "string"},
        "endpoint": {"type": "string", "format": "globus-compute-endpoint"},
        "note": {"type": "string", "default": ""},
    },
}


def more_choice(rule: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Puts a rule before the others of the Choice in the states of ``SOUND``."""
    return lambda states: states["HasNote"]["Choices"].insert(0, {**rule, "Next": "Done"})
