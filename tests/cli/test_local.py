"""``cib-flows local …`` as a person types it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cib_flows.cli import main
from cib_flows.local import control
from cib_flows.local.home import Home

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Runs a command on a home of the test's own; whatever it starts is stopped."""
    home = tmp_path / "home"

    def run_command(*words: str) -> Result:
        return CliRunner().invoke(main, ["local", *words, "--home", str(home)])

    yield run_command
    control.stop(Home(home))


def test_from_start_to_stop(run: Run, tmp_path: Path) -> None:
    started = run("start", "--no-compute-port", "--json")
    assert started.exit_code == 0, started.output
    document = json.loads(started.stdout)
    assert document["running"]
    assert not document["already_running"]
    assert document["compute_url"] is None
    assert "globus_compute_sdk" in document["note"], "who cannot reach it is said"
    again = run("start")
    assert again.exit_code == 0
    assert "already runs" in again.stdout
    status = run("status")
    assert status.exit_code == 0
    assert document["url"] in status.stdout
    assert run("stop").exit_code == 0
    gone = run("status", "--json")
    assert gone.exit_code == 1
    assert json.loads(gone.stdout) == {"running": False, "home": str(tmp_path / "home")}
    assert "was not running" in run("stop").stdout


def test_env_is_what_a_shell_takes_over(run: Run, tmp_path: Path) -> None:
    run("start", "--no-compute-port")
    as_json = json.loads(run("env", "--json").stdout)
    script = (
        run("env").stdout
        + f"\n{sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    )
    seen = json.loads(subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout)
    assert as_json.items() <= seen.items()
    assert seen["GLOBUS_SDK_ENVIRONMENT"] == "local"
    assert (
        len({seen[f"GLOBUS_SDK_SERVICE_URL_{name}"] for name in ("AUTH", "FLOWS", "TIMERS")}) == 1
    )
    client = Home(tmp_path / "home").client()
    assert seen["CIB_FLOWS_CLIENT_SECRET"] == client.client_secret
    assert seen["CIB_FLOWS_BUILD_ENDPOINT"] == client.endpoint_id


def test_env_of_nothing_that_runs_is_refused(run: Run) -> None:
    refused = run("env")
    assert refused.exit_code == 2
    assert refused.stdout == ""
    assert "cib-flows local start" in refused.stderr


def test_collections_are_declared_and_listed(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    assert run("collection", "add", "data", str(folder)).exit_code == 2, "there is no home yet"
    run("start", "--no-compute-port")
    added = run("collection", "add", "data", str(folder)).stdout.strip()
    listed = json.loads(run("collection", "list", "--json").stdout)["collections"]
    assert [found["name"] for found in listed] == ["staging", "data"]
    assert {"id": added, "name": "data", "path": str(folder)} in listed
    assert run("collection", "add", "data", str(tmp_path)).exit_code == 2


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_a_site_profile_that_is_none_is_named(run: Run, tmp_path: Path, text: str) -> None:
    site = tmp_path / "site.json"
    site.write_text(text)
    refused = run("start", "--site", str(site))
    assert refused.exit_code == 2
    assert str(site) in refused.stderr


def test_a_site_profile_is_merged(run: Run, tmp_path: Path) -> None:
    site = tmp_path / "site.json"
    site.write_text(json.dumps({"ca_bundle": "/ca.pem", "root": str(tmp_path / "images")}))
    assert run("start", "--no-compute-port", "--site", str(site)).exit_code == 0
    found = Home(tmp_path / "home").site()
    assert (found["ca_bundle"], found["root"]) == ("/ca.pem", str(tmp_path / "images"))
    assert found["staging"]["path"] == str(tmp_path / "home" / "staging")


def test_a_root_that_a_launch_line_cannot_carry_is_refused(run: Run, tmp_path: Path) -> None:
    site = tmp_path / "site.json"
    site.write_text(json.dumps({"root": str(tmp_path / "a b")}))
    refused = run("start", "--site", str(site))
    assert refused.exit_code == 2
    assert "root" in refused.stderr


def test_asking_costs_no_heavy_import() -> None:
    program = (
        "import sys, cib_flows.cli.local\n"
        "heavy = {'globus_sdk', 'globus_compute_sdk', 'parsl', 'starlette', 'uvicorn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_server_imports_no_engine() -> None:
    program = (
        "import sys, cib_flows.local.server\n"
        "heavy = {'parsl', 'globus_compute_endpoint', 'globus_compute_sdk', 'globus_sdk', 'dill',\n"
        "         'lark'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
