"""What the linter says about flows: nothing about sound ones, and the right thing about each
fault."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cib_flows
from cib_flows.errors import UsageError
from cib_flows.flow import CODES, lint, lint_definition
from tests.flow.states import ENDPOINT, TRANSFER, action

HERE = Path(__file__).parent / "definitions"
OURS = Path(cib_flows.__file__).parent / "flows" / "build_container" / "definition.json"
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
SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["x", "endpoint"],
    "properties": {
        "x": {"type": "string"},
        "endpoint": {"type": "string", "format": "globus-compute-endpoint"},
        "note": {"type": "string", "default": ""},
    },
}

Flow = dict[str, Any]
States = dict[str, Any]


def test_a_sound_flow() -> None:
    assert lint_definition(SOUND, SCHEMA) == ([], [])


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


def more_choice(rule: dict[str, Any]) -> Callable[[States], None]:
    return lambda states: states["HasNote"]["Choices"].insert(0, {**rule, "Next": "Done"})


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
    found, _ = lint_definition(flow, SCHEMA)
    matching = [said for said in found if said.code == code and said.place == ("States", *place)]
    assert matching, found
    assert any(words in said.message for said in matching), matching
    assert all(said.severity == CODES[code][0] and said.advice for said in matching)


SCHEMA_FAULTS: list[tuple[str, dict[str, Any], tuple[Any, ...]]] = [
    ("invalid-schema", {"type": "objekt"}, ("type",)),
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


def test_an_input_that_the_schema_leaves_out() -> None:
    open_schema = copy.deepcopy(SCHEMA)
    del open_schema["additionalProperties"], open_schema["properties"]["x"]
    open_schema["required"] = ["endpoint"]
    found, _ = lint_definition(SOUND, open_schema)
    assert {said.code for said in found} == {"input-not-described"}
    assert any(said.place[:2] == ("States", "Work") for said in found)


def test_every_code_is_provoked_by_a_test() -> None:
    elsewhere = {"syntax", "duplicate-key", "input-not-described"}
    provoked = {code for code, *_ in FAULTS} | {code for code, *_ in SCHEMA_FAULTS} | elsewhere
    assert provoked == set(CODES)


# --- ways through a flow --------------------------------------------------------------------------


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
    assert inputs == ["x", "$.endpoint", "$.x"]
    flow = copy.deepcopy(SOUND)
    flow["States"]["Work"]["ResultPath"] = "$.work"
    found, _ = lint_definition(flow)
    assert [(said.code, said.place[1]) for said in found] == [("path-never-written", "Done")]


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
    found, _ = lint_definition(flow, SCHEMA)
    assert ("path-maybe-unwritten" not in {said.code for said in found}) is guarded


def test_an_earlier_rule_guards_the_later_ones() -> None:
    flow = copy.deepcopy(SOUND)
    more_choice({"Variable": "$.note", "StringEquals": "x"})(flow["States"])
    more_choice({"Not": {"Variable": "$.note", "IsPresent": True}})(flow["States"])
    assert lint_definition(flow, SCHEMA)[0] == []


def test_what_is_lost_once_is_told_once_for_each_state() -> None:
    flow = copy.deepcopy(SOUND)
    flow["States"]["Plan"]["ResultPath"] = "$"
    flow["States"]["Work"]["Parameters"]["tasks"][0]["kwargs"]["again.$"] = "$.x"
    found, _ = lint_definition(flow, SCHEMA)
    lost = [said.place[-1] for said in found if said.place[1] == "Work"]
    assert lost == ["endpoint_id.$", "x.$"]


def test_a_loop_keeps_what_every_round_writes_and_doubts_what_only_some_write() -> None:
    flow: Flow = {
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
    found, _ = lint_definition({"StartAt": "S0", "States": states}, SCHEMA)
    assert {said.code for said in found} == {"state-may-grow"}


# --- files ----------------------------------------------------------------------------------------


def test_lines_are_those_of_the_file() -> None:
    path = HERE / "old_habits_definition.json"
    report = lint(path)
    lines = path.read_text().splitlines()
    by_code = {item.remark.code: item for item in report.findings}
    assert (
        "transfer/transfer" in lines[by_code["retired-url"].line - 1]
        or "fxap" in (lines[by_code["retired-url"].line - 1])
    )
    assert lines[by_code["undocumented-error-name"].line - 1].strip() == '"States.ALL"'
    assert '"Check": {' in lines[by_code["choice-without-default"].line - 1]
    assert by_code["deprecated-format"].file == str(HERE / "old_habits_schema.json")
    assert report.errors == 0
    assert report.warnings > 20


YAML = """\
definition:
  StartAt: Only
  States:
    Only:
      Type: Wait
      Timestamp: 2026-01-01T00:00:00Z   # a time in YAML, text in JSON
      Next: &next Nowhere
input_schema:
  type: object
  required: [a]
  required: [b]
  properties: {b: {type: string}}
"""


def test_a_whole_flow_in_yaml(tmp_path: Path) -> None:
    path = tmp_path / "flow.yaml"
    path.write_text(YAML)
    report = lint(path)
    assert report.schema == str(path)
    assert [(item.line, item.remark.code) for item in report.findings] == [
        (7, "no-such-state"),
        (11, "duplicate-key"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("a.json", '{\n "StartAt": "A",\n}', 2),
        ("a.json", '{\n "StartAt": "A"\n', 3),
        ("a.json", "StartAt: A\n", 1),
        ("a.yaml", "StartAt: A\nStates: [\n", 3),
        ("a.yaml", "a: &a\n  - *a\n", 1),
        ("a.yaml", "a: 1\nb: .inf\n", 2),
        ("a.yaml", "", 1),
    ],
)
def test_a_text_that_cannot_be_read(tmp_path: Path, name: str, text: str, line: int) -> None:
    (tmp_path / name).write_text(text)
    (finding,) = lint(tmp_path / name).findings
    assert (finding.remark.code, finding.line) == ("syntax", line)


def test_a_yaml_text_that_stands_for_too_much_is_refused(tmp_path: Path) -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (tmp_path / "a.yaml").write_text("\n".join(levels))
    (finding,) = lint(tmp_path / "a.yaml").findings
    assert "too many values" in finding.remark.message


def test_values_are_those_of_the_json_module() -> None:
    from cib_flows.flow.source import parse

    text = json.dumps({"a": [1, -2.5e3, True, None, "é\n\U0001f600", {"": []}], "b/c": {}})
    assert parse(text, as_json=True).value == json.loads(text)
    assert parse(text, as_json=False).value == json.loads(text)


def test_codes_can_be_left_out() -> None:
    path = HERE / "old_habits_definition.json"
    report = lint(path, ignore=["retired-url", "renamed-input"])
    assert not {"retired-url", "renamed-input"} & {item.remark.code for item in report.findings}
    with pytest.raises(UsageError, match="retired-urls"):
        lint(path, ignore=["retired-urls"])


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(UsageError, match=r"nothing\.json cannot be read"):
        lint("nothing.json")


def test_the_checks_of_a_definition_bring_neither_drawings_nor_yaml() -> None:
    """The local Globus imports them at its start."""
    program = (
        "import sys, cib_flows.flow.definition as d\n"
        "assert d.definition_problems({})\n"
        "print(sorted({'yaml', 'jsonschema', 'cib_flows.flow.svg'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    import cib_flows.flow as package

    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError):
        package.nothing  # noqa: B018


def test_lint_and_graph_need_nothing_of_the_local_globus() -> None:
    """Whoever installs the package without the extra ``local`` has neither of these."""
    program = (
        "import sys\n"
        "for name in ('simpleeval', 'starlette', 'uvicorn', 'cib_flows.local'):\n"
        "    sys.modules[name] = None\n"
        "from cib_flows.flow import draw, lint\n"
        f"assert lint({str(OURS)!r}).findings == [] and draw({str(OURS)!r})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
