"""``render``: the recipe alone on standard output, without any Globus."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cib_flows.cli import main, specs
from cib_flows.deployment_record import Deployment

WORKER = "globus-compute-endpoint==4.19.0,parsl==2026.10.26"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is installed or deployed, whatever this machine has."""
    monkeypatch.setattr(specs, "_installed", dict)
    monkeypatch.setenv("CIB_FLOWS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CIB_FLOWS_DEPLOYMENT", raising=False)
    monkeypatch.delenv("CIB_FLOWS_PROFILE", raising=False)


def render(tmp_path: Path, *options: str, **fields: object) -> Result:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps({"name": "pandas", "base": {"image": "python:3.11-slim"}, **fields}))
    return CliRunner().invoke(main, ["render", str(path), *options])


def test_the_recipe_is_all_that_standard_output_holds(tmp_path: Path) -> None:
    done = render(tmp_path, "--worker", WORKER, pip=["pandas"])
    assert done.exit_code == 0
    assert done.stdout.startswith("Bootstrap: docker\nFrom: python:3.11-slim\n")
    assert "globus-compute-endpoint==4.19.0" in done.stdout
    assert "parsl==2026.10.26" in done.stdout
    assert done.stdout.endswith("\n")
    assert done.stderr == "Worker versions: from --worker.\n"


def test_without_versions_standard_error_says_what_the_endpoint_fills_in(tmp_path: Path) -> None:
    done = render(tmp_path)
    assert done.exit_code == 0
    assert all("==" not in line for line in done.stdout.splitlines() if "parsl" in line)
    assert "the build endpoint fills in" in done.stderr
    assert "globus-compute-endpoint and parsl" in done.stderr


def test_the_last_images_versions_are_taken_from_the_record(tmp_path: Path) -> None:
    record = tmp_path / "home" / "deployment.json"
    record.parent.mkdir()
    deployment = Deployment(
        "f", "s", "b", "r", {}, worker=dict([part.split("==") for part in WORKER.split(",")])
    )
    record.write_text(json.dumps({"format": 1, **deployment.__dict__}))
    done = render(tmp_path)
    assert "parsl==2026.10.26" in done.stdout
    assert "last image" in done.stderr


def test_installed_versions_win_over_the_record_and_options_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = {"globus-compute-endpoint": "4.18.0", "parsl": "2026.9.7"}
    monkeypatch.setattr(specs, "_installed", lambda: dict(installed))
    assert "parsl==2026.9.7" in render(tmp_path).stdout
    assert "parsl==2026.10.26" in render(tmp_path, "--worker", WORKER).stdout


def test_a_version_in_the_spec_replaces_the_endpoint_packages_and_never_parsls(
    tmp_path: Path,
) -> None:
    done = render(tmp_path, "--worker", WORKER, worker="4.17.0")
    assert "globus-compute-endpoint==4.17.0" in done.stdout
    assert "parsl==2026.10.26" in done.stdout


def test_a_plain_image_has_no_worker(tmp_path: Path) -> None:
    done = render(tmp_path, "--worker", WORKER, worker="none")
    assert "parsl" not in done.stdout
    assert "none, as the spec asks" in done.stderr


def test_json_holds_the_same_recipe(tmp_path: Path) -> None:
    plain = render(tmp_path, "--worker", WORKER)
    document = json.loads(render(tmp_path, "--worker", WORKER, "--json").stdout)
    assert document["recipe"] == plain.stdout
    assert document["worker"]["parsl"] == "2026.10.26"


@pytest.mark.parametrize(
    ("worker", "said"),
    [
        ("parsl==2026.10.26", "which globus-compute-endpoint"),
        ("globus-compute-endpoint==4.19.0", "which parsl"),
        ("parsl", "'parsl'"),
        ("numpy==2", "'numpy==2'"),
        ("globus-compute-endpoint==$(id),parsl==1", "$(id)"),
    ],
)
def test_a_worker_that_is_no_pair_of_versions_is_refused(
    tmp_path: Path, worker: str, said: str
) -> None:
    done = render(tmp_path, "--worker", worker)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""
