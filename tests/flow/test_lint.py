"""What the linter says about flows: nothing about sound ones, and the right thing about each
fault."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cib_flows
from cib_flows.flow import CODES, lint, lint_definition
from tests.flow.states import ENDPOINT, INPUT, SOUND, TASK, TRANSFER, more_choice

HERE = Path(__file__).parent / "definitions"
OURS = Path(cib_flows.__file__).parent / "flows" / "build_container" / "definition.json"


Flow = dict[str, Any]
States = dict[str, Any]


def test_a_sound_flow() -> None:
    assert lint_definition(SOUND, INPUT) == ([], [])


@pytest.mark.parametrize("name", ["archive", "review", "batches"])
def test_flows_in_the_usual_idioms_are_clean(name: str) -> None:
    report = lint(HERE / f"{name}_definition.json")
    assert report.schema == str(HERE / f"{name}_schema.json")
    assert report.findings == []


def test_our_own_flow_is_clean() -> None:
    report = lint(OURS)
    assert report.schema is not None
    assert report.findings == []


# --- one fault at a time --------------------------------------------------------------------------


def at(*names: str) -> Callable[[States], Any]:
    def find(states: States) -> Any:
        found: Any = states
        for name in names:
            found = found[name]
        return found

    return find


def set_to(*path: Any) -> Callable[[States], None]:
    """Sets what the path of names leads to; the last one is the value."""
    *names, key, value = path
    return lambda states: at(*names)(states).__setitem__(key, value)


def drop(*path: Any) -> Callable[[States], None]:
    *names, key = path
    return lambda states: at(*names)(states).__delitem__(key)


def also(*changes: Callable[[States], None]) -> Callable[[States], None]:
    def change(states: States) -> None:
        for one in changes:
            one(states)

    return change


def ls(states: States) -> None:
    url = "https://transfer.actions.globus.org/ls"
    states["Work"].update(ActionUrl=url, Parameters={"endpoint_id.$": "$.x", "path": "/"})


PARAMETERS = ("Work", "Parameters")
A_FLOW = f"https://flows.globus.org/flows/{ENDPOINT}"
FAULTS: list[tuple[str, Callable[[States], None], tuple[Any, ...], str]] = [
    ("missing-field", drop("Plan", "ResultPath"), ("Plan", "ResultPath"), "required"),
    ("unknown-field", set_to("Work", "Retry", []), ("Work", "Retry"), "not permitted"),
    ("wrong-type", set_to("Work", "Catch", {}), ("Work", "Catch"), "list"),
    ("invalid-value", set_to("Work", "ActionUrl", "http://a"), ("Work", "ActionUrl"), "https"),
    ("next-or-end", set_to("Done", "Next", "Plan"), ("Done",), "terminal"),
    ("no-such-state", set_to("Plan", "Next", "Wrok"), ("Plan", "Next"), "'Wrok'"),
    ("unreachable-state", set_to("Plan", "Next", "Done"), ("Work",), "cannot be reached"),
    ("unknown-state-type", set_to("Done", "Type", "Succeed"), ("Done", "Type"), "Succeed"),
    # paths
    (
        "path-never-written",
        set_to("Done", "Parameters", "output.$", "$.Wrok.details"),
        ("Done", "Parameters", "output.$"),
        "(but 'Work')",
    ),
    (
        "path-never-written",
        set_to("Done", "Parameters", "output.$", "$.Work.detail"),
        ("Done", "Parameters", "output.$"),
        "action's status document, which has no 'detail' (but 'details')",
    ),
    (
        "path-never-written",
        set_to("Plan", "Parameters", "folder.=", "kept.note"),
        ("Plan", "Parameters", "folder.="),
        "'Keep' writes it, but not before this state",
    ),
    (
        "path-never-written",
        set_to("Work", "ResultPath", "$"),
        ("HasNote", "Choices", 0, "Variable"),
        "'Plan' writes it, but 'Work' replaces the whole document",
    ),
    (
        "path-never-written",
        also(drop("Work", "ResultPath"), set_to("Done", "Parameters", {"x.$": "$.x"})),
        ("Done", "Parameters", "x.$"),
        "the input has it, but 'Work' replaces the whole document",
    ),
    (
        "path-never-written",
        set_to("Done", "Parameters", "output.$", "$.plan.has_note.name"),
        ("Done", "Parameters", "output.$"),
        "$.plan.has_note is a single value",
    ),
    (
        "path-maybe-unwritten",
        set_to("Done", "Parameters", "output.$", "$.kept.note"),
        ("Done", "Parameters", "output.$"),
        "without passing 'Keep'",
    ),
    (
        "path-maybe-unwritten",
        set_to("Plan", "Parameters", "folder.=", "note + 'x'"),
        ("Plan", "Parameters", "folder.="),
        "the input schema does not require $.note",
    ),
    (
        "path-maybe-unwritten",
        more_choice({"Variable": "$.note", "StringEquals": "x"}),
        ("HasNote", "Choices", 0, "Variable"),
        "does not require $.note",
    ),
    (
        "always-absent",
        set_to("Plan", "Parameters", "folder.=", "getattr('xx', default='')"),
        ("Plan", "Parameters", "folder.="),
        "no state writes it",
    ),
    # what is left to defaults
    ("default-result-path", drop("Work", "ResultPath"), ("Work",), "replaces the whole document"),
    ("default-wait-time", drop("Work", "WaitTime"), ("Work",), "300 seconds"),
    ("failure-flag-missing", drop("Work", "ExceptionOnActionFailure"), ("Work",), "both ways"),
    (
        "failure-ignored",
        also(
            set_to("Work", "ExceptionOnActionFailure", False),
            set_to("Done", "Parameters", {"a": 1}),
        ),
        ("Work", "ExceptionOnActionFailure"),
        "no state looks at its status",
    ),
    ("missing-catch", also(drop("Work", "Catch"), drop("Failed")), ("Work",), "Nothing catches"),
    (
        "catch-incomplete",
        lambda states: states["Work"]["Catch"][0]["ErrorEquals"].remove("ActionTimeout"),
        ("Work", "Catch"),
        "ActionTimeout is not caught",
    ),
    (
        "catcher-without-result-path",
        lambda states: states["Work"]["Catch"][0].pop("ResultPath"),
        ("Work", "Catch", 0),
        "error replaces",
    ),
    (
        "catcher-never-reached",
        lambda states: states["Work"]["Catch"].append(
            {"ErrorEquals": ["ActionTimeout"], "ResultPath": "$.late", "Next": "Failed"}
        ),
        ("Work", "Catch", 1),
        "takes ActionTimeout",
    ),
    (
        "undocumented-error-name",
        lambda states: states["Work"]["Catch"][0]["ErrorEquals"].append("States.Timeout"),
        ("Work", "Catch", 0, "ErrorEquals", 3),
        "'States.Timeout'",
    ),
    ("choice-without-default", drop("HasNote", "Default"), ("HasNote",), "no rule holds"),
    ("ambiguous-input", set_to("Done", "Result", {}), ("Done",), "Parameters and Result"),
    (
        "input-path-may-vanish",
        also(drop("Keep", "Parameters"), set_to("Keep", "InputPath", "$.note")),
        ("Keep", "InputPath"),
        "both ways",
    ),
    # expressions and roles
    (
        "expression-outside-eval",
        also(drop(*PARAMETERS, "endpoint_id.$"), set_to(*PARAMETERS, "endpoint_id.=", "endpoint")),
        (*PARAMETERS, "endpoint_id.="),
        "'endpoint_id'",
    ),
    (
        "unknown-name-in-expression",
        set_to("Plan", "Parameters", "folder.=", "x == null"),
        ("Plan", "Parameters", "folder.="),
        "'null'",
    ),
    (
        "unknown-name-in-expression",
        set_to("Plan", "Parameters", "folder.=", "upper(x)"),
        ("Plan", "Parameters", "folder.="),
        "'upper()'",
    ),
    ("run-as-role", set_to("Work", "RunAs", "Curator"), ("Work", "RunAs"), "'Curator'"),
    # providers
    (
        "retired-url",
        set_to("Work", "ActionUrl", "https://actions.globus.org/transfer/set_permission"),
        ("Work", "ActionUrl"),
        "retired",
    ),
    (
        "renamed-input",
        also(set_to("Work", "ActionUrl", TRANSFER), set_to(*PARAMETERS, "transfer_items.$", "$.x")),
        (*PARAMETERS, "transfer_items.$"),
        "retired provider's input",
    ),
    (
        "renamed-input",
        set_to("Work", "Parameters", {"endpoint": "a", "tasks": [TASK]}),
        (*PARAMETERS, "endpoint"),
        "version 2",
    ),
    ("missing-input", drop(*PARAMETERS, "tasks"), PARAMETERS, "'tasks'"),
    (
        "missing-input",
        set_to(*PARAMETERS, "tasks", [{"function": "f"}]),
        (*PARAMETERS, "tasks", 0),
        "'function_id'",
    ),
    (
        "compute-v2",
        set_to("Work", "ActionUrl", "https://compute.actions.globus.org/"),
        ("Work", "ActionUrl"),
        "version 2",
    ),
    ("flow-as-action", set_to("Work", "ActionUrl", A_FLOW), ("Work", "ActionUrl"), "its input"),
    (
        "flow-as-action",
        set_to("Work", "ActionUrl", "https://flows.globus.org/build"),
        ("Work", "ActionUrl"),
        "not the address of a flow",
    ),
    (
        "flow-as-action",
        also(set_to("Work", "ActionUrl", A_FLOW), set_to("Work", "Parameters", {"body": {}})),
        ("Work", "ActionUrl"),
        "below 'body'",
    ),
    ("several-tasks", set_to(*PARAMETERS, "tasks", [TASK, TASK]), (*PARAMETERS, "tasks"), "all of"),
    # size
    ("state-may-grow", ls, PARAMETERS, "listing"),
    ("state-may-grow", drop("Keep", "Parameters"), ("Keep",), "copied into itself"),
    (
        "state-may-grow",
        set_to("Done", "Parameters", "text", "x" * 60_000),
        ("Done", "Parameters"),
        "60 KB",
    ),
]


@pytest.mark.parametrize(("code", "fault", "place", "words"), FAULTS)
def test_a_fault_is_named_at_its_place(
    code: str, fault: Callable[[States], None], place: tuple[Any, ...], words: str
) -> None:
    flow = copy.deepcopy(SOUND)
    fault(flow["States"])
    found, _ = lint_definition(flow, INPUT)
    matching = [said for said in found if said.code == code and said.place == ("States", *place)]
    assert matching, found
    assert any(words in said.message for said in matching), matching
    assert all(said.severity == CODES[code][0] and said.advice for said in matching)


SCHEMA_FAULTS: list[tuple[str, dict[str, Any], tuple[Any, ...]]] = [
    ("invalid-schema", {"type": "objekt"}, ("type",)),
    (
        "invalid-schema",
        {"properties": {"a": {"pattern": "("}}},
        ("properties", "a", "pattern"),
    ),
    (
        "nested-format",
        {"properties": {"a": {"properties": {"b": {"format": "globus-compute-endpoint"}}}}},
        ("properties", "a", "properties", "b", "format"),
    ),
    (
        "incomplete-format",
        {"properties": {"a": {"format": "globus-collection", "properties": {"id": {}}}}},
        ("properties", "a"),
    ),
    (
        "deprecated-format",
        {"properties": {"a": {"format": "globus-collection-id"}}},
        ("properties", "a", "format"),
    ),
    (
        "keyword-among-properties",
        {"properties": {"additionalProperties": False}},
        ("properties", "additionalProperties"),
    ),
    ("unknown-property", {"properties": {"a": {}}, "required": ["b"]}, ("required", 0)),
]


@pytest.mark.parametrize(("code", "schema", "place"), SCHEMA_FAULTS)
def test_a_fault_of_the_schema(
    tmp_path: Path, code: str, schema: dict[str, Any], place: tuple[Any, ...]
) -> None:
    (tmp_path / "definition.json").write_text(json.dumps(SOUND))
    (tmp_path / "input_schema.json").write_text(json.dumps(schema))
    report = lint(tmp_path / "definition.json")
    found = [(item.remark.code, item.remark.place) for item in report.findings]
    assert (code, place) in found


@pytest.mark.parametrize("bound", [{"limit": 100}, {"filter": "name:~*.h5"}])
def test_a_bounded_listing_is_nothing_to_remark(bound: dict[str, Any]) -> None:
    flow = copy.deepcopy(SOUND)
    ls(flow["States"])
    flow["States"]["Work"]["Parameters"] |= bound
    found, _ = lint_definition(flow, INPUT)
    assert "state-may-grow" not in {said.code for said in found}


def test_an_input_that_the_schema_leaves_out() -> None:
    open_schema = copy.deepcopy(INPUT)
    del open_schema["additionalProperties"], open_schema["properties"]["x"]
    open_schema["required"] = ["endpoint"]
    found, _ = lint_definition(SOUND, open_schema)
    assert {said.code for said in found} == {"input-not-described"}
    assert any(said.place[:2] == ("States", "Work") for said in found)


def test_every_code_is_provoked_by_a_test() -> None:
    elsewhere = {"syntax", "duplicate-key", "input-not-described"}
    provoked = {code for code, *_ in FAULTS} | {code for code, *_ in SCHEMA_FAULTS} | elsewhere
    assert provoked == set(CODES)
