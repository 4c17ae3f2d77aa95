"""The linter reads files: lines, YAML, and what cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cib_flows.errors import UsageError
from cib_flows.flow import lint

HERE = Path(__file__).parent / "definitions"


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
