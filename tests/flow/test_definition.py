"""What the service refuses about a definition, and where the fault stands."""

from __future__ import annotations

from typing import Any

import pytest

from cib_flows.flow.definition import definition_problems
from tests.flow.states import COMPUTE, ENDPOINT, action, one_state

PASS = {"Type": "Pass", "End": True}


def documents_of(definition: Any) -> list[dict[str, Any]]:
    return [problem.document() for problem in definition_problems(definition)]


RULE = {"Variable": "$.x", "IsPresent": True}


def choice(*rules: Any, **fields: Any) -> dict[str, Any]:
    return one_state({"Type": "Choice", "Choices": list(rules), **fields}, Next=PASS)


def without(state: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key not in names}


SOUND: dict[str, dict[str, Any]] = {
    "pass": one_state(
        {"Type": "Pass", "Result": {"a": 1}, "ResultPath": "$.b", "Comment": "x", "End": True}
    ),
    "fail": one_state({"Type": "Fail", "Error": "E", "CausePath": "$.x"}),
    "bare fail": one_state({"Type": "Fail"}),
    "wait": one_state({"Type": "Wait", "Seconds": 0, "Next": "Then"}, Then=PASS),
    "wait until": one_state({"Type": "Wait", "Timestamp": "2026-01-02T03:04:05Z", "End": True}),
    "choice": choice({**RULE, "Next": "Next"}),
    "nested choice": choice(
        {"Not": {"And": [RULE, {"Or": [RULE]}]}, "Next": "Next"}, Default="Only"
    ),
    "action by handler": one_state(
        without(action(Handler={"Type": "ActionProvider", "Url": COMPUTE}), "ActionUrl")
    ),
    "registered API": one_state(
        without(action(Handler={"Type": "RegisteredAPI", "Id": ENDPOINT}), "ActionUrl")
    ),
    "action by handle": one_state(
        without(action(Handler="urn:globus:flows:handle:globus:GROUPS.CREATE_GROUP"), "ActionUrl")
    ),
    "web input": one_state(
        {"Type": "CreateWebInput", "Parameters": {"Options": []}, "Next": "Then"},
        Then={"Type": "AwaitWebInput", "InputPath": "$.w", "ResultPath": "$.a", "End": True},
    ),
    "action with an input path": one_state(without(action(InputPath="$.a.b[0]"), "Parameters")),
    "catch": one_state(
        action(Catch=[{"ErrorEquals": ["States.ALL"], "Next": "Then", "ResultPath": "$.e"}]),
        Then=PASS,
    ),
}


@pytest.mark.parametrize("definition", SOUND.values(), ids=SOUND.keys())
def test_sound(definition: dict[str, Any]) -> None:
    assert definition_problems(definition) == []


STATE = ["definition", "States", "Only"]
REFUSED: dict[str, tuple[dict[str, Any], list[Any], str]] = {
    "no StartAt": ({"States": {"A": PASS}}, ["definition", "StartAt"], "required"),
    "no States": ({"StartAt": "A"}, ["definition", "States"], "required"),
    "no state at all": ({"StartAt": "A", "States": {}}, ["definition", "States"], "at least one"),
    "start that is not there": (
        {"StartAt": "B", "States": {"A": PASS}},
        ["definition", "StartAt"],
        "no state named 'B'",
    ),
    "TimeoutSeconds": (
        {**one_state(PASS), "TimeoutSeconds": 5},
        ["definition", "TimeoutSeconds"],
        "extra fields",
    ),
    "Succeed": (one_state({"Type": "Succeed"}), [*STATE, "Type"], "'Succeed' is not a state type"),
    "web input": (
        one_state({"Type": "CreateWebInput", "End": True}),
        STATE,
        'exactly one of "Parameters", "InputPath"',
    ),
    "no type": (one_state({"End": True}), [*STATE, "Type"], "required"),
    "Retry": (one_state(action(Retry=[])), [*STATE, "Retry"], "extra fields"),
    "OutputPath": (one_state({**PASS, "OutputPath": "$"}), [*STATE, "OutputPath"], "extra fields"),
    "neither Next nor End": (one_state({"Type": "Pass"}), STATE, "either terminal"),
    "both Next and End": (one_state({**PASS, "Next": "Then"}, Then=PASS), STATE, "either terminal"),
    "End that is false": (one_state({"Type": "Pass", "End": False}), STATE, "either terminal"),
    "Next of a Choice": (
        one_state(
            {"Type": "Choice", "Choices": [{**RULE, "Next": "Then"}], "Next": "Then"}, Then=PASS
        ),
        [*STATE, "Next"],
        "extra fields",
    ),
    "http": (one_state(action("http://127.0.0.1/run")), [*STATE, "ActionUrl"], "https"),
    "no provider": (one_state(without(action(), "ActionUrl")), STATE, '"ActionUrl", "Handler"'),
    "two providers": (
        one_state(action(Handler={"Type": "ActionProvider", "Url": COMPUTE})),
        STATE,
        '"ActionUrl", "Handler"',
    ),
    "registered API": (
        one_state(without(action(Handler={"Type": "RegisteredAPI", "Id": "x"}), "ActionUrl")),
        [*STATE, "Handler", "Id"],
        "uuid",
    ),
    "handler of no known type": (
        one_state(without(action(Handler={"Type": "Lambda"}), "ActionUrl")),
        [*STATE, "Handler", "Type"],
        "RegisteredAPI",
    ),
    "handler that is no handle": (
        one_state(without(action(Handler="compute"), "ActionUrl")),
        [*STATE, "Handler"],
        "urn:globus:flows:handle",
    ),
    "no parameters": (
        one_state(without(action(), "Parameters")),
        STATE,
        '"Parameters", "InputPath"',
    ),
    "parameters twice": (one_state(action(InputPath="$")), STATE, '"Parameters", "InputPath"'),
    "WaitTime as text": (one_state(action(WaitTime="60")), [*STATE, "WaitTime"], "integer"),
    "WaitTime of nothing": (one_state(action(WaitTime=0)), [*STATE, "WaitTime"], "between 1 and"),
    "flag as text": (
        one_state(action(ExceptionOnActionFailure="yes")),
        [*STATE, "ExceptionOnActionFailure"],
        "boolean",
    ),
    "path without $": (
        one_state(action(Parameters={"a": [{"b.$": "c"}]})),
        [*STATE, "Parameters", "a", 0, "b.$"],
        "begins with '$'",
    ),
    "path that is none": (
        one_state(action(Parameters={"b.$": "$.a["})),
        [*STATE, "Parameters", "b.$"],
        "is not a JSONPath",
    ),
    "expression that is none": (
        one_state(
            {"Type": "ExpressionEval", "Parameters": {"b.=": "1 +"}, "ResultPath": "$", "End": True}
        ),
        [*STATE, "Parameters", "b.="],
        "cannot be read",
    ),
    "parameter given twice": (
        one_state(action(Parameters={"b": 1, "b.$": "$.a"})),
        [*STATE, "Parameters", "b.$"],
        "given twice",
    ),
    "wildcard in a ResultPath": (
        one_state({**PASS, "ResultPath": "$.a[*]"}),
        [*STATE, "ResultPath"],
        "names and indices",
    ),
    "result in the context": (
        one_state({**PASS, "ResultPath": "$._context.run_id"}),
        [*STATE, "ResultPath"],
        "read-only",
    ),
    "ExpressionEval without ResultPath": (
        one_state({"Type": "ExpressionEval", "Parameters": {}, "End": True}),
        [*STATE, "ResultPath"],
        "required",
    ),
    "Result that is a list": (one_state({**PASS, "Result": []}), [*STATE, "Result"], "dict"),
    "two times to wait": (
        one_state({"Type": "Wait", "Seconds": 1, "SecondsPath": "$.s", "End": True}),
        STATE,
        "exactly one",
    ),
    "waiting for longer than a year": (
        one_state({"Type": "Wait", "Seconds": 31_536_001, "End": True}),
        [*STATE, "Seconds"],
        "between",
    ),
    "timestamp without a zone": (
        one_state({"Type": "Wait", "Timestamp": "2026-01-02T03:04:05", "End": True}),
        [*STATE, "Timestamp"],
        "time zone",
    ),
    "Error twice": (
        one_state({"Type": "Fail", "Error": "E", "ErrorPath": "$.e"}),
        STATE,
        "only one",
    ),
    "no rule": (choice(Default="Next"), [*STATE, "Choices"], "at least one rule"),
    "rule without Next": (
        choice(RULE, Default="Next"),
        [*STATE, "Choices", 0, "Next"],
        "non-empty",
    ),
    "Next in a nested rule": (
        choice({"Not": {**RULE, "Next": "Next"}, "Next": "Next"}),
        [*STATE, "Choices", 0, "Not", "Next"],
        "extra fields",
    ),
    "Comment in a rule": (
        choice({**RULE, "Next": "Next", "Comment": "x"}),
        [*STATE, "Choices", 0, "Comment"],
        "extra fields",
    ),
    "two operators": (
        choice({**RULE, "IsNull": True, "Next": "Next"}),
        [*STATE, "Choices", 0],
        "one operator",
    ),
    "operand of another type": (
        choice({"Variable": "$.x", "NumericEquals": "1", "Next": "Next"}),
        [*STATE, "Choices", 0, "NumericEquals"],
        "not a number",
    ),
    "catcher without names": (
        one_state(action(Catch=[{"ErrorEquals": [], "Next": "Then"}]), Then=PASS),
        [*STATE, "Catch", 0, "ErrorEquals"],
        "at least one error",
    ),
    "target that is not there": (
        one_state({"Type": "Pass", "Next": "Nowhere"}),
        [*STATE, "Next"],
        "no state named 'Nowhere'",
    ),
    "catcher that leads nowhere": (
        one_state(action(Catch=[{"ErrorEquals": ["ActionTimeout"], "Next": "Nowhere"}])),
        [*STATE, "Catch", 0, "Next"],
        "no state named 'Nowhere'",
    ),
    "island": (
        one_state(PASS, Island=PASS),
        ["definition", "States", "Island"],
        "cannot be reached",
    ),
}


@pytest.mark.parametrize(("definition", "place", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(definition: dict[str, Any], place: list[Any], words: str) -> None:
    found = [problem for problem in documents_of(definition) if problem["loc"] == place]
    assert found, definition_problems(definition)
    assert any(words in problem["msg"] for problem in found)


@pytest.mark.parametrize(
    "nonsense", [None, [], "x", {"StartAt": 1, "States": {"A": None, "B": {"Type": []}}}]
)
def test_nonsense_is_refused_and_never_breaks_the_check(nonsense: Any) -> None:
    assert definition_problems(nonsense)
