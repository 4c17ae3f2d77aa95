"""``cib-flows flow``, as a shell sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cib_flows.cli import main

DEFINITIONS = Path(__file__).parents[1] / "flow" / "definitions"
OLD_HABITS = str(DEFINITIONS / "old_habits_definition.json")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["flow", *arguments])


def test_warnings_are_told_with_line_and_remedy_and_end_with_0() -> None:
    result = run("lint", OLD_HABITS)
    assert result.exit_code == 0
    assert f"{OLD_HABITS}:6:7 warning [retired-url]" in result.stdout
    assert "→ Use https://transfer.actions.globus.org/transfer" in result.stdout
    assert "0 errors" in result.stderr


def test_strict_ends_with_1() -> None:
    assert run("lint", "--strict", OLD_HABITS).exit_code == 1


def test_errors_end_with_1(tmp_path: Path) -> None:
    path = tmp_path / "flow.json"
    path.write_text('{"StartAt": "A",\n "States": {"A": {"Type": "Succeed"}}}')
    result = run("lint", str(path))
    assert result.exit_code == 1
    assert f"{path}:2:19 error [unknown-state-type]" in result.stdout


def test_a_clean_flow_says_so_and_names_its_schema() -> None:
    result = run("lint", str(DEFINITIONS / "archive_definition.json"))
    assert (result.exit_code, result.stdout) == (0, "")
    assert "archive_schema.json" in result.stderr
    assert "nothing to remark" in result.stderr


def test_json() -> None:
    result = run("lint", "--json", OLD_HABITS)
    document = json.loads(result.stdout)
    assert document["ok"] is True
    assert document["warnings"] == len(document["findings"]) > 20
    assert set(document["findings"][0]) == {
        *("file", "line", "column", "severity", "code", "place", "message", "advice")
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lint", "nothing.json"], "nothing.json cannot be read"),
        (["lint", "--ignore", "retired", OLD_HABITS], "no lint code 'retired'"),
        (["lint"], "Missing argument"),
    ],
)
def test_bad_usage_ends_with_2(arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_every_code_is_explained() -> None:
    result = run("lint", "--list-codes")
    assert result.exit_code == 0
    assert "warning  retired-url" in result.stdout


def test_graph_is_written_whole_in_the_format_of_its_name(tmp_path: Path) -> None:
    out = tmp_path / "flow.svg"
    result = run("graph", OLD_HABITS, "-o", str(out))
    assert (result.exit_code, result.stdout) == (0, "")
    assert out.read_text().rstrip().endswith("</svg>")
    assert run("graph", OLD_HABITS, "--format", "dot").stdout.startswith("digraph")
    assert run("graph", OLD_HABITS).stdout == out.read_text()
    told = json.loads(run("graph", OLD_HABITS, "--json").stdout)
    assert told == {"ok": True, "format": "svg", "drawing": out.read_text()}


def test_graph_of_an_unknown_kind_ends_with_2(tmp_path: Path) -> None:
    result = run("graph", OLD_HABITS, "-o", str(tmp_path / "flow.png"))
    assert result.exit_code == 2
    assert ".svg" in result.stderr
    assert not (tmp_path / "flow.png").exists()
