"""The command line as a user meets it: help, wrong usage, exit codes, and how quickly it starts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize(
    "name", [name for name in COMMANDS if name not in ("containers", "flow", "local")]
)
def test_every_command_takes_the_common_options(name: str) -> None:
    shown = CliRunner().invoke(main, [name, "--help"]).output
    assert all(option in shown for option in ("--json", "--profile", "--home"))


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
