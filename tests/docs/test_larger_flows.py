"""What the page on larger flows shows can be used as it stands."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cib_flows.bundle import function_names
from cib_flows.flow import Part, compose, lint_definition
from cib_flows.flow_files import read_flow
from cib_flows.flow_parts import NAMES
from cib_flows.flow_source import FlowSource

from .test_pages import ROOT, blocks

PAGE = "docs/larger-flows.md"
ENDPOINT = "7a2b8f0e-0000-4000-8000-000000000001"


def test_the_python_program_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in list(os.environ):
        if name.startswith(("GLOBUS_", "CIB_FLOWS_")):
            monkeypatch.delenv(name)
    record = {
        **dict.fromkeys(("flow_id", "build_endpoint", "run_endpoint"), ENDPOINT),
        "format": 1,
        "flow_sha256": "",
        "functions": {name: {"id": ENDPOINT, "sha256": ""} for name in function_names()},
    }
    (tmp_path / "record.json").write_text(json.dumps(record))
    monkeypatch.setenv("CIB_FLOWS_DEPLOYMENT", str(tmp_path / "record.json"))
    program = next(text for text in blocks(PAGE, "python") if "flow_part(" in text)
    exec(compile(program, PAGE, "exec"), {})
    assert capsys.readouterr().out == "BuildInput []\n"


def test_the_states_shown_are_states() -> None:
    shown = [json.loads(text) for text in blocks(PAGE, "json")]
    assert len(shown) == 2
    for state in shown:
        last = {"Type": "Pass", "Parameters": {}, "ResultPath": "$.last", "End": True}
        states = {"First": state, **({"Analyse": last} if "Next" in state else {})}
        remarks, _ = lint_definition({"StartAt": "First", "States": states})
        assert {remark.code for remark in remarks} <= {"missing-catch", "flow-as-action"}


def test_what_is_said_of_names_is_so() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    for names in NAMES.values():
        for word in (names.prefix, names.input_property, names.output):
            assert f"`{word}" in page


def test_the_example_leaves_the_linter_nothing_to_say() -> None:
    host, schema = read_flow(ROOT / "examples" / "beamline" / "definition.json")
    source = FlowSource.packaged()
    part = Part(source.definition, source.input_schema, "container")
    larger = compose(host, part, before="Reduce", schema=schema, on_failure="Explain")
    assert larger.remarks == []
