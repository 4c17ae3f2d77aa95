"""The command line as a user meets it: help, wrong usage, exit codes, and how quickly it starts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cib_flows._version import __version__
from cib_flows.cli import main
from cib_flows.cli.root import COMMANDS
from cib_flows.errors import UsageError

GOOD = "name: pandas\nbase: {image: 'python:3.11-slim'}\npip: [pandas]\n"
RUN = "00000000-0000-0000-0000-000000000002"


@pytest.fixture
def spec(tmp_path: Path) -> str:
    path = tmp_path / "spec.yaml"
    path.write_text(GOOD)
    return str(path)


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No Globus runs, and none is named by the environment."""
    import os

    for name in list(os.environ):
        if name.startswith(("GLOBUS_", "CIB_FLOWS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CIB_FLOWS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(main, ["--version"]).output.strip().endswith(__version__)


def test_help_lists_every_command() -> None:
    shown = CliRunner().invoke(main, ["--help"]).output
    assert all(f"  {name} " in shown for name in COMMANDS)


def commands(group: click.Group = main, *path: str) -> Iterator[tuple[str, ...]]:
    """The words of every command that is no group."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield (*path, name)


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_takes_the_common_options(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(main, [*words, "--help"]).output
    wanted = {"--json", "--profile", "--home"}
    if words[0] == "local":
        wanted.remove("--profile")
    if words in (("flow", "lint"), ("flow", "graph")):
        wanted = {"--json"}
    assert {option for option in wanted if option in shown} == wanted


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_with_json_wrong_usage_is_a_document_too(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(main, [*words, "--json", "--no-such-option"])
    told = json.loads(done.stdout)
    assert done.exit_code in (1, 2)
    assert told["ok"] is False
    assert told["error"]["message"] in done.stderr


@pytest.mark.parametrize(
    "arguments", [["fly", "--json"], ["--fly", "--json"], ["containers", "fly", "--json"]]
)
def test_with_json_a_command_that_is_none_is_a_document_too(arguments: list[str]) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert "fly" in json.loads(done.stdout)["error"]["message"]


def test_a_word_behind_two_dashes_is_no_option() -> None:
    done = CliRunner().invoke(main, ["containers", "exec", "pandas", "--", "list", "--json"])
    assert (done.exit_code, done.stdout) == (2, "")


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_ctrl_c_ends_every_command_with_130(
    as_json: list[str], spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cib_flows.profiles.connect", interrupted)
    done = CliRunner().invoke(main, ["start", spec, *as_json])
    assert (done.exit_code, done.stderr) == (130, "Error: Interrupted.\n")
    assert (json.loads(done.stdout)["ok"] is False) if as_json else (done.stdout == "")


@pytest.mark.parametrize("arguments", [["local", "start"], ["deploy"]])
def test_a_place_that_cannot_be_written_is_named(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CIB_FLOWS_HOME", str(tmp_path / "file" / "home"))
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert done.exit_code in (1, 2)
    (sentence,) = done.stderr.splitlines()
    assert str(tmp_path / "file") in sentence
    assert json.loads(done.stdout)["error"]["message"] in sentence


def test_a_script_that_is_no_text_is_named(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_bytes(b"\xff\xfe")
    done = CliRunner().invoke(main, ["containers", "run", "pandas", str(script)])
    assert (done.exit_code, done.stderr) == (2, f"Error: {script} is not a text file in UTF-8.\n")


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_no_color_is_obeyed(
    no_color: str, coloured: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    flow = tmp_path / "definition.json"
    flow.write_text('{"StartAt": "A", "States": {"A": {"Type": "Pass"}}}')
    # with color, the runner is a terminal
    done = CliRunner().invoke(main, ["flow", "lint", str(flow)], color=True)
    assert ("\x1b[" in done.stdout) is coloured


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fly"], "No such command 'fly'"),
        (["build"], "Give either SPEC or --locked LOCK"),
        (["status"], "Missing argument 'RUN'"),
        (["containers", "exec", "name"], "Missing argument 'CMD"),
        (["containers", "list", "--limit", "0"], "--limit"),
        (["deploy", "--build-endpoint", "delta"], "'delta' is not an endpoint's UUID"),
        (["deploy", "--profile", "mars"], "mars"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_was_wrong(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "SPEC"],
        ["start", "SPEC"],
        ["deploy"],
        ["status", RUN],
        ["logs", RUN],
        ["wait", RUN],
        ["cancel", RUN],
        ["resume", RUN],
        ["containers", "list"],
        ["containers", "show", "pandas"],
        ["containers", "exec", "pandas", "--", "true"],
    ],
)
def test_without_a_globus_the_command_to_start_one_is_named(
    arguments: list[str], spec: str
) -> None:
    done = CliRunner().invoke(main, [spec if word == "SPEC" else word for word in arguments])
    assert done.exit_code == 2
    assert done.stdout == ""
    sentence, *rest = done.stderr.strip().splitlines()
    assert sentence.startswith("Error: ")
    assert "cib-flows local start" in sentence
    assert rest == []


@pytest.mark.parametrize("command", ["build", "start", "validate", "render"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: Pandas\nbase: {image: a}\n", "'name'"),
        ("base: {image: a}\n", "name"),
        ("- a\n", "name"),
        ("name: [\n", "YAML"),
    ],
)
def test_a_refused_spec_exits_with_2_and_one_sentence(
    command: str, text: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    done = CliRunner().invoke(main, [command, str(path)])
    assert done.exit_code == 2
    assert done.stdout == ""
    (sentence,) = done.stderr.strip().splitlines()
    assert sentence.startswith("Error: ")
    assert said in sentence


def test_a_spec_that_is_not_there_is_named() -> None:
    done = CliRunner().invoke(main, ["build", "/no/such/spec.yaml"])
    assert done.exit_code == 2
    assert "/no/such/spec.yaml" in done.stderr


def test_with_json_a_refusal_is_a_document_too(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("name: Pandas\nbase: {image: a}\n")
    done = CliRunner().invoke(main, ["validate", "--json", str(path)])
    document = json.loads(done.stdout)
    assert document["ok"] is False
    assert document["error"]["field"] == "name"
    assert document["error"]["message"] in done.stderr


def test_validate_takes_standard_input_and_both_formats(spec: str) -> None:
    as_json = json.dumps(
        {"name": "pandas", "base": {"image": "python:3.11-slim"}, "pip": ["pandas"]}
    )
    answers = [
        CliRunner().invoke(main, ["validate", "--json", spec]),
        CliRunner().invoke(main, ["validate", "--json", "-"], input=GOOD),
        CliRunner().invoke(main, ["validate", "--json", "-"], input=as_json),
    ]
    documents = [json.loads(answer.stdout) for answer in answers]
    assert documents[0]["name"] == "pandas"
    assert documents[0] == documents[1] == documents[2]


def test_validate_takes_the_older_field_names(tmp_path: Path) -> None:
    path = tmp_path / "older.yaml"
    path.write_text(
        "image_file_name: pandas\nbase_image: python:3.11-slim\npip_packages: [pandas]\n"
    )
    done = CliRunner().invoke(main, ["validate", str(path)])
    assert done.exit_code == 0
    assert done.stdout.startswith("pandas:latest is valid")


def test_starting_up_imports_no_sdk() -> None:
    program = (
        "import sys, cib_flows.cli, cib_flows.cli.build, cib_flows.cli.runs, cib_flows.cli.specs, "
        "cib_flows.cli.deploy, cib_flows.cli.containers, cib_flows.cli.local; "
        "print([name for name in ('globus_sdk', 'globus_compute_sdk', 'requests', 'rich', 'parsl', "
        "'starlette', 'yaml', 'jsonschema') if name in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=root
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_local_start_says_which_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from cib_flows.cli import local

    monkeypatch.setattr(local, "find_spec", lambda name: None if name == "uvicorn" else object())
    done = CliRunner().invoke(local.local, ["start"])
    assert isinstance(done.exception, UsageError)
    assert "uvicorn" in done.exception.message
    assert "cib-flows[local]" in done.exception.message
