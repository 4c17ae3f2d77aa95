"""The linter follows what every state writes along all ways through a flow."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cib_flows.flow import lint_definition
from tests.flow.states import INPUT, SOUND, more_choice


def test_an_unreachable_state_does_not_hide_what_the_others_do() -> None:
    states = {
        "A": {"Type": "Wait", "SecondsPath": "$.nowhere", "Next": "B"},
        "B": {"Type": "Pass", "Parameters": {"x.$": "$.input"}, "End": True},
        "Island": {"Type": "Pass", "Parameters": {"x.$": "$.more"}, "Next": "B"},
    }
    remarks, _ = lint_definition({"StartAt": "A", "States": states}, {"properties": {"input": {}}})
    assert [said.code for said in remarks if said.severity == "error"] == ["unreachable-state"]
    assert any("$.nowhere" in said.message for said in remarks)
    assert not any("$.more" in said.message for said in remarks)


def test_without_a_schema_the_input_is_told_and_a_state_that_writes_nothing_is_seen() -> None:
    found, inputs = lint_definition(SOUND)
    assert found == []
    assert inputs == ["$.x", "$.endpoint"]
    flow = copy.deepcopy(SOUND)
    flow["States"]["Work"]["ResultPath"] = "$.work"
    found, _ = lint_definition(flow)
    assert [(said.code, said.place[1]) for said in found] == [("path-never-written", "Done")]


def test_what_the_input_brought_is_lost_with_the_document() -> None:
    states = {
        "Keep": {"Type": "Pass", "Parameters": {"a.$": "$.a"}, "Next": "Use"},
        "Use": {"Type": "ExpressionEval", "Parameters": {"c.=": "b"}, "ResultPath": "$.c"},
    }
    states["Use"]["End"] = True
    found, inputs = lint_definition({"StartAt": "Keep", "States": states})
    (lost,) = [said for said in found if said.code == "path-never-written"]
    assert "'Keep' replaces the whole document that the input brought" in lost.message
    assert inputs == ["$.a"]


GUARDS: dict[str, tuple[dict[str, Any], bool]] = {
    "asked first": (
        {
            "And": [
                {"Variable": "$.note", "IsPresent": True},
                {"Variable": "$.note", "IsNull": False},
            ]
        },
        True,
    ),
    "asked too late": (
        {
            "And": [
                {"Variable": "$.note", "IsNull": False},
                {"Variable": "$.note", "IsPresent": True},
            ]
        },
        False,
    ),
    "absent, or else": (
        {
            "Or": [
                {"Variable": "$.note", "IsPresent": False},
                {"Variable": "$.note", "IsNull": True},
            ]
        },
        True,
    ),
    "not absent": (
        {
            "Not": {
                "Or": [
                    {"Variable": "$.note", "IsPresent": False},
                    {"Variable": "$.note", "IsNull": True},
                ]
            }
        },
        True,
    ),
}


@pytest.mark.parametrize(("rule", "guarded"), GUARDS.values(), ids=GUARDS.keys())
def test_a_question_guards_what_follows(rule: dict[str, Any], guarded: bool) -> None:
    flow = copy.deepcopy(SOUND)
    more_choice(rule)(flow["States"])
    found, _ = lint_definition(flow, INPUT)
    assert ("path-maybe-unwritten" not in {said.code for said in found}) is guarded


def test_an_earlier_rule_guards_the_later_ones() -> None:
    flow = copy.deepcopy(SOUND)
    more_choice({"Variable": "$.note", "StringEquals": "x"})(flow["States"])
    more_choice({"Not": {"Variable": "$.note", "IsPresent": True}})(flow["States"])
    assert lint_definition(flow, INPUT)[0] == []


def test_what_is_lost_once_is_told_once_for_each_state() -> None:
    flow = copy.deepcopy(SOUND)
    flow["States"]["Plan"]["ResultPath"] = "$"
    flow["States"]["Work"]["Parameters"]["tasks"][0]["kwargs"]["again.$"] = "$.x"
    found, _ = lint_definition(flow, INPUT)
    lost = [said.place[-1] for said in found if said.place[1] == "Work"]
    assert lost == ["endpoint_id.$", "x.$"]


def test_a_loop_keeps_what_every_round_writes_and_doubts_what_only_some_write() -> None:
    flow: dict[str, Any] = {
        "StartAt": "Begin",
        "States": {
            "Begin": {
                "Type": "Pass",
                "Result": {"n": 0},
                "ResultPath": "$.count",
                "Next": "More",
            },
            "More": {
                "Type": "Choice",
                "Choices": [{"Variable": "$.count.n", "NumericLessThan": 3, "Next": "Step"}],
                "Default": "End",
            },
            "Step": {
                "Type": "ExpressionEval",
                "Parameters": {"n.=": "count.n + 1", "last.=": "count.n"},
                "ResultPath": "$.count",
                "Next": "More",
            },
            "End": {
                "Type": "Pass",
                "Parameters": {"n.$": "$.count.n", "last.$": "$.count.last"},
                "End": True,
            },
        },
    }
    found, _ = lint_definition(flow, {})
    assert [(said.code, said.place[-1]) for said in found] == [("path-maybe-unwritten", "last.$")]


def test_a_flow_that_copies_itself_for_ever_is_still_followed_to_an_end() -> None:
    states = {
        f"S{n}": {"Type": "Pass", "ResultPath": f"$.a{n}.b", "Next": f"S{(n + 1) % 6}"}
        for n in range(6)
    }
    found, _ = lint_definition({"StartAt": "S0", "States": states}, INPUT)
    assert {said.code for said in found} == {"state-may-grow"}
