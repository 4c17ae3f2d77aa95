"""Putting two flows together: what comes out, and what is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from cib_flows.errors import UsageError
from cib_flows.flow import Part, compose, lint_definition
from cib_flows.flow.rules_schema import schema_remarks
from cib_flows.flow_files import read_flow
from cib_flows.flow_source import FlowSource

from .states import ENDPOINT, action

PACKAGED = FlowSource.packaged()
PART = Part(PACKAGED.definition, PACKAGED.input_schema, "container")
CATCH = [
    {
        "ErrorEquals": ["ActionUnableToRun", "ActionFailedException", "ActionTimeout"],
        "ResultPath": "$.caught",
        "Next": "Failed",
    }
]


def step(name: str, **fields: Any) -> dict[str, Any]:
    parameters = {"endpoint_id": ENDPOINT, "tasks": [{"function_id": ENDPOINT}]}
    return action(**{"Parameters": parameters, "ResultPath": f"$.{name}", "Catch": CATCH, **fields})


HOST: dict[str, Any] = {
    "Comment": "A host.",
    "StartAt": "Fetch",
    "States": {
        "Fetch": step("Fetch", Next="Ready"),
        "Ready": {
            "Type": "Choice",
            "Choices": [{"Variable": "$.fast", "BooleanEquals": True, "Next": "Analyse"}],
            "Default": "Wait",
        },
        "Wait": {"Type": "Wait", "Seconds": 5, "Next": "Analyse"},
        "Analyse": step("Analyse"),
        "Failed": {"Type": "Fail", "Cause": "It failed."},
    },
}
SCHEMA = {"type": "object", "properties": {"fast": {"type": "boolean"}}, "required": ["fast"]}


def test_what_is_composed_is_sound_and_leaves_the_linter_nothing_to_say() -> None:
    larger = compose(HOST, PART, before="Analyse", schema=SCHEMA, on_failure="Failed")
    assert larger.remarks == []
    assert lint_definition(larger.definition, larger.input_schema) == ([], [])


def test_every_way_to_a_state_leads_through_the_build() -> None:
    states = compose(HOST, PART, before="Analyse", schema=SCHEMA).definition["States"]
    assert states["Ready"]["Choices"][0]["Next"] == "BuildInput"
    assert states["Wait"]["Next"] == "BuildInput"
    assert states["BuildTidy"]["Next"] == "Analyse"
    assert states["Fetch"] == HOST["States"]["Fetch"]


def test_a_catcher_that_leads_there_leads_through_the_build_too() -> None:
    host = copy.deepcopy(HOST)
    host["States"]["Fetch"]["Catch"] = [{**CATCH[0], "Next": "Wait"}]
    states = compose(host, PART, before="Wait", schema=SCHEMA).definition["States"]
    assert states["Fetch"]["Catch"][0]["Next"] == "BuildInput"


def test_the_first_state_may_be_the_build() -> None:
    assert compose(HOST, PART, before="Fetch").definition["StartAt"] == "BuildInput"


@pytest.mark.parametrize(
    ("after", "rest"), [("Fetch", {"Next": "Ready"}), ("Analyse", {"End": True})]
)
def test_after_a_state_only_its_own_way_on_changes(after: str, rest: dict[str, Any]) -> None:
    states = compose(HOST, PART, after=after, schema=SCHEMA).definition["States"]
    assert (states[after]["Next"], "End" in states[after]) == ("BuildInput", False)
    end = states["BuildTidy"]
    assert {key: end[key] for key in ("Next", "End") if key in end} == rest
    assert states["Ready"] == HOST["States"]["Ready"]


def test_the_states_stand_where_a_reader_meets_them() -> None:
    names = list(compose(HOST, PART, before="Analyse").definition["States"])
    first, last = names.index("BuildInput"), names.index("BuildTidy")
    assert names[:first] == ["Fetch", "Ready", "Wait"]
    assert names[last + 1 :] == ["Analyse", "Failed"]
    assert all(name.startswith("Build") for name in names[first:last])


def test_the_same_arguments_give_the_same_text_and_change_neither_flow() -> None:
    host, definition = copy.deepcopy(HOST), copy.deepcopy(PART.definition)
    texts = {json.dumps(compose(HOST, PART, before="Analyse").definition) for _ in range(3)}
    assert len(texts) == 1
    assert (host, definition) == (HOST, PART.definition)


def test_the_spec_is_one_property_whose_form_asks_for_no_widget_that_would_not_show() -> None:
    schema = {**SCHEMA, "propertyOrder": ["fast"], "additionalProperties": False}
    merged = compose(HOST, PART, before="Analyse", schema=schema).input_schema
    assert merged["required"] == ["fast", "container_spec"]
    assert merged["propertyOrder"] == ["fast", "container_spec"]
    nested = merged["properties"]["container_spec"]
    assert nested["properties"]["pip"] == PACKAGED.input_schema["properties"]["pip"]
    assert nested["additionalProperties"] is False
    assert list(schema_remarks(merged)) == []
    assert schema["required"] == ["fast"], "what was given stays as it was"


def test_references_inside_the_parts_schema_lead_to_their_new_place() -> None:
    given = {
        "definitions": {"word": {"type": "string"}},
        "properties": {"name": {"$ref": "#/definitions/word"}},
    }
    part = Part({"StartAt": "A", "States": {"A": {"Type": "Pass", "End": True}}}, given)
    merged = compose(HOST, part, before="Analyse").input_schema
    import jsonschema

    checker = jsonschema.Draft7Validator(merged)
    assert checker.is_valid({"container_spec": {"name": "x"}})
    assert not checker.is_valid({"container_spec": {"name": 1}})


def test_building_and_publishing_in_one_flow() -> None:
    publish = FlowSource.packaged("publish_container")
    built = compose(HOST, PART, before="Analyse", schema=SCHEMA, on_failure="Failed")
    both = compose(
        built.definition,
        Part(publish.definition, publish.input_schema, "published"),
        after="Analyse",
        schema=built.input_schema,
        prefix="Publish",
        inputs={"container.$": "$.container.container_id", "destination_endpoint": ENDPOINT},
        output="$.published",
        on_failure="Failed",
        failure="$.publish_failure",
    )
    assert both.remarks == []
    states = both.definition["States"]
    assert states["Analyse"]["Next"] == "PublishInput"
    assert states["PublishDone"]["ResultPath"] == "$.published"
    assert states["PublishTidy"]["End"] is True


DEFINITIONS = sorted((Path(__file__).parent / "definitions").glob("*_definition.json"))


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.stem)
def test_the_build_fits_before_and_after_every_state_of_other_peoples_flows(path: Path) -> None:
    host, schema = read_flow(path)
    for name, state in host["States"].items():
        places = ["before", *(["after"] if {"Next", "End"} & set(state) else [])]
        for place in places:
            options: dict[str, Any] = {place: name}
            larger = compose(host, PART, schema=schema, **options)
            for other, unchanged in host["States"].items():
                ways = {"Next", "End", "Choices", "Default", "Catch"}
                now = larger.definition["States"][other]
                assert {k: v for k, v in now.items() if k not in ways} == {
                    k: v for k, v in unchanged.items() if k not in ways
                }
            # nothing of ours reads what is not there, except where the host lets go of everything
            if "old_habits" not in path.name:
                assert larger.remarks == []


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.stem)
def test_other_peoples_flows_may_be_inserted_too(path: Path) -> None:
    definition, schema = read_flow(path)
    own = {remark.code for remark in lint_definition(definition, schema)[0]}
    own |= {remark.code for remark in schema_remarks(schema)}
    larger = compose(HOST, Part(definition, schema or {}), before="Analyse", schema=SCHEMA)
    assert {remark.code for remark in larger.remarks} <= own


def host_with(**states: Any) -> dict[str, Any]:
    return {**HOST, "States": {**HOST["States"], **states}}


PASS = {"Type": "Pass", "Parameters": {}, "Next": "Failed"}
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no such state": (HOST, {"before": "Analyze"}, "The host has no state 'Analyze'; it has"),
    "no place": (HOST, {}, "Say where to insert"),
    "two places": (HOST, {"before": "Wait", "after": "Wait"}, "Say where to insert"),
    "after a choice": (HOST, {"after": "Ready"}, "'Ready' has no single way on"),
    "after the end": (HOST, {"after": "Failed"}, "'Failed' has no single way on"),
    "state name taken": (
        host_with(BuildSettings={**PASS, "ResultPath": "$.x"}),
        {"before": "Wait"},
        "The host has a state 'BuildSettings' already; choose another prefix than 'Build'.",
    ),
    "written by both": (
        host_with(Analyse=step("container")),
        {"before": "Wait"},
        "The host's state 'Analyse' writes to the output $.container too.",
    ),
    "within the output": (
        host_with(Analyse=step("container.path")),
        {"before": "Wait"},
        "The host's state 'Analyse' writes to the output $.container too.",
    ),
    "the build's own field": (
        host_with(Analyse=step("Build")),
        {"before": "Wait"},
        "The host's state 'Analyse' uses $.Build, which the inserted flow needs for itself",
    ),
    "the build's own field read": (
        host_with(Ready={**HOST["States"]["Ready"], "Choices": [
            {"Variable": "$.Build.done", "IsPresent": True, "Next": "Analyse"}]}),
        {"before": "Wait"},
        "The host's state 'Ready' uses $.Build",
    ),
    "output in the build": (HOST, {"before": "Wait", "output": "$.Build.x"}, "lies in $.Build"),
    "output no path": (HOST, {"before": "Wait", "output": "container"}, "must be a path of names"),
    "output everything": (HOST, {"before": "Wait", "output": "$"}, "must be a path of names"),
    "output and failure": (
        HOST,
        {"before": "Wait", "on_failure": "Failed", "failure": "$.container"},
        "are the same place",
    ),
    "no such failure state": (HOST, {"before": "Wait", "on_failure": "X"}, "has no state 'X'"),
    "prefix": (HOST, {"before": "Wait", "prefix": "a b"}, "The prefix 'a b' must begin with"),
    "property taken": (
        HOST,
        {"before": "Wait", "input_property": "fast"},
        "The host's input has a property 'fast' already",
    ),
    "inputs": (HOST, {"before": "Wait", "inputs": "spec"}, "The inputs are no path"),
    "unsound host": (
        {"StartAt": "A", "States": {"A": {"Type": "Succeed"}}},
        {"before": "A"},
        "The host flow is not sound: States.A.Type: 'Succeed' is not a state type",
    ),
    "no flow": ({}, {"before": "A"}, "The host flow is not sound"),
    "host too large": (
        host_with(Fetch=step("Fetch", Comment="x" * 200_001, Next="Ready")),
        {"before": "Wait"},
        "The host flow has 2",
    ),
    "unreachable": (
        host_with(Lost={**PASS, "ResultPath": "$.x"}),
        {"before": "Wait"},
        "The larger flow would not be sound: States.Lost",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_with_one_sentence(case: str) -> None:
    host, options, said = REFUSED[case]
    with pytest.raises(UsageError) as refusal:
        compose(host, PART, **{"schema": SCHEMA, **options})
    assert said in refusal.value.message
    assert "\n" not in refusal.value.message


def part_of(**states: Any) -> Part:
    return Part({"StartAt": "A", "States": states}, {"properties": {"x": {}}})


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (
            part_of(A={"Type": "Pass", "Parameters": {"all.$": "$"}, "ResultPath": "$.a", "End": True}),
            "its state 'A' reads the whole document",
        ),
        (
            part_of(
                A={"Type": "Pass", "Parameters": {"y.$": "$.y"}, "ResultPath": "$", "Next": "B"},
                B={"Type": "Wait", "Seconds": 1, "Next": "A"},
            ),
            "runs both before and after its document is replaced",
        ),
        (
            part_of(A={"Type": "Pass", "Parameters": {}, "ResultPath": "$.x", "End": True}),
            "its input and its states both write 'x'",
        ),
        (
            part_of(A={"Type": "ExpressionEval", "Parameters": {"v.=": "getattr(p)"},
                       "ResultPath": "$.v", "End": True}),
            "asks for a path that is computed",
        ),
        (part_of(A={"Type": "Nonsense"}), "The flow to insert is not sound"),
    ],
)  # fmt: skip
def test_a_part_that_cannot_be_moved_is_refused(part: Part, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        compose(HOST, part, before="Analyse")
