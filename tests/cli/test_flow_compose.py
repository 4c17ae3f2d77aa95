"""``cib-flows flow compose``, as a shell sees it; it asks no service anything."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cib_flows.bundle import function_names
from cib_flows.cli import main
from cib_flows.flow import lint

ENDPOINT = "7a2b8f0e-0000-4000-8000-000000000001"
HOST = {
    "StartAt": "First",
    "States": {
        "First": {"Type": "Wait", "Seconds": 1, "Next": "Last"},
        "Last": {"Type": "Wait", "Seconds": 1, "End": True},
    },
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a host flow, and a home's record of what is deployed there."""
    for name in list(os.environ):
        if name.startswith(("GLOBUS_", "CIB_FLOWS_")):
            monkeypatch.delenv(name)
    record = {
        "format": 1,
        "flow_id": ENDPOINT,
        "flow_sha256": "",
        "build_endpoint": ENDPOINT,
        "run_endpoint": ENDPOINT,
        "functions": {
            name: {"id": f"00000000-0000-4000-8000-{number:012d}", "sha256": ""}
            for number, name in enumerate(function_names())
        },
    }
    (tmp_path / "deployment.json").write_text(json.dumps(record))
    monkeypatch.setenv("CIB_FLOWS_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("definition.json").write_text(json.dumps(HOST))
    Path("schema.json").write_text(json.dumps({"type": "object", "properties": {"n": {}}}))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["flow", "compose", *arguments])


def test_the_whole_flow_is_printed(place: Path) -> None:
    done = run("definition.json", "--before", "Last")
    assert done.exit_code == 0, done.stderr
    whole = json.loads(done.stdout)
    assert whole["definition"]["States"]["First"]["Next"] == "BuildInput"
    assert set(whole["input_schema"]["properties"]) == {"n", "container_spec"}
    functions = whole["definition"]["States"]["BuildSettings"]["Parameters"]["functions"]
    names = sorted(function_names())
    assert functions["build_image"].endswith(f"{names.index('build_image'):012d}")
    # what was printed is composed again, and checked
    Path("whole.json").write_text(done.stdout)
    again = run("whole.json", "--after", "Last", "--prefix", "Second", "--to", "$.second",
                "--property", "second_spec")  # fmt: skip
    assert again.exit_code == 0, again.stderr
    Path("twice.json").write_text(again.stdout)
    assert (lint("twice.json").errors, lint("twice.json").warnings) == (0, 0)


def test_files_are_written_where_the_linter_finds_them(place: Path) -> None:
    done = run("definition.json", "--before", "Last", "-o", "large_definition.json")
    assert (done.exit_code, done.stdout) == (0, "")
    report = lint("large_definition.json")
    assert report.schema == "large_input_schema.json"
    assert report.findings == []


def test_a_spec_that_every_run_builds(place: Path) -> None:
    Path("spec.yaml").write_text("name: numbers\nbase: {image: 'python:3.11-slim'}\n")
    done = run("definition.json", "--before", "Last", "--spec", "spec.yaml")
    whole = json.loads(done.stdout)
    given = whole["definition"]["States"]["BuildInput"]["Parameters"]["input"]
    assert given["name"] == "numbers"
    assert set(whole["input_schema"]["properties"]) == {"n"}


def test_a_template_says_what_is_published(place: Path) -> None:
    assert run("definition.json", "--before", "Last", "-o", "built_definition.json").exit_code == 0
    Path("inputs.yaml").write_text(
        f"container.$: $.container.container_id\ndestination_endpoint: {ENDPOINT}\n"
    )
    done = run("built_definition.json", "--after", "Last", "--flow", "publish_container",
               "--inputs", "inputs.yaml")  # fmt: skip
    assert (done.exit_code, done.stderr) == (0, "")
    whole = json.loads(done.stdout)
    given = whole["definition"]["States"]["PublishInput"]["Parameters"]["input"]
    assert given["container.$"] == "$.container.container_id"
    assert set(whole["input_schema"]["properties"]) == {"n", "container_spec"}


def test_publishing_has_names_of_its_own(place: Path) -> None:
    done = run("definition.json", "--after", "Last", "--flow", "publish_container")
    assert done.exit_code == 0, done.stderr
    whole = json.loads(done.stdout)
    assert whole["definition"]["States"]["Last"]["Next"] == "PublishInput"
    assert set(whole["input_schema"]["properties"]) == {"n", "publication"}


REFUSALS: list[tuple[list[str], str]] = [
    (["definition.json", "--before", "Nowhere"], "The host has no state 'Nowhere'"),
    (["missing.json", "--before", "Last"], "missing.json cannot be read"),
    (["schema.json", "--before", "Last"], "The host flow is not sound"),
    (["definition.json"], "Say where to insert"),
    (["definition.json", "--before", "Last", "--spec", "a", "--spec-path", "$.b"], "Give one of"),
    (["definition.json", "--before", "Last", "--spec", "nowhere.yaml"], "cannot be read"),
    (["broken.json", "--before", "Last"], "broken.json:1:2 is no JSON or YAML"),
    (["definition.json", "--before", "Last", "--inputs", "broken.json"], "broken.json:1:2 is no"),
    (["definition.json", "--before", "Last", "-o", "nowhere.json/x.json"], "cannot be written"),
]


@pytest.mark.parametrize(("arguments", "said"), REFUSALS)
def test_wrong_usage_is_one_sentence(place: Path, arguments: list[str], said: str) -> None:
    Path("broken.json").write_text("{,}")
    Path("nowhere.json").write_text("")
    done = run(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_spec_that_a_flow_would_read_otherwise_is_refused(place: Path) -> None:
    spec: dict[str, Any] = {"name": "x", "base": {"image": "python:3.11-slim"}}
    Path("spec.json").write_text(json.dumps({**spec, "labels": {"a.$": "$.settings"}}))
    done = run("definition.json", "--before", "Last", "--spec", "spec.json")
    assert done.exit_code == 2
    assert "labels" in done.stderr or "'a.$'" in done.stderr


def test_without_a_deployment_it_says_what_to_do(place: Path) -> None:
    (place / "deployment.json").unlink()
    done = run("definition.json", "--before", "Last")
    assert done.exit_code == 2
    assert "Run 'cib-flows deploy' first." in done.stderr
