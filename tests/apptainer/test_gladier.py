"""The unmodified Gladier builds a container with our tool and runs its own function in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from cib_flows.bundle import function_names
from cib_flows.flow import lint_definition
from tests.clients.environments import environment_with

from .conftest import REPOSITORY, LocalGlobus

pytestmark = [pytest.mark.clients, pytest.mark.compute_port]

PROGRAM = Path(__file__).parent / "gladier_program.py"
# What our package needs beside Gladier's own; as here, so that one environment is made once.
NEEDED = ("click", "jsonschema", "python-jsonpath", "PyYAML")
ENDPOINT = "7a2b8f0e-0000-4000-8000-000000000001"
SPEC = {"name": "gladier", "base": {"image": "python:3.11-slim"}}


@pytest.fixture(scope="module")
def python() -> str:
    wanted = [f"{name}=={version(name)}" for name in NEEDED]
    return str(environment_with("gladier==0.11.0", *wanted) / "bin" / "python")


def run(python: str, globus: LocalGlobus, spec: dict[str, Any], **more: str) -> Any:
    shown = globus.cli("local", "env", "--json").document
    environment = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(globus.folder),
        "PYTHONPATH": str(REPOSITORY),
        **shown,
        "GLADIER_CLIENT_ID": shown["GLOBUS_COMPUTE_CLIENT_ID"],
        "GLADIER_CLIENT_SECRET": shown["GLOBUS_COMPUTE_CLIENT_SECRET"],
        **more,
    }
    done = subprocess.run(
        [python, str(PROGRAM), json.dumps(spec)],
        env=environment,
        cwd=globus.folder,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


def test_without_a_deployment_the_tool_says_what_to_do(
    python: str, globus: LocalGlobus, tmp_path: Path
) -> None:
    nowhere = str(tmp_path / "nowhere.json")
    assert "Nothing is deployed there" in run(python, globus, {}, CIB_FLOWS_DEPLOYMENT=nowhere)


def test_a_tool_runs_in_the_image_that_the_tool_before_it_built(
    python: str, globus: LocalGlobus
) -> None:
    if not globus.has_compute_port:
        pytest.skip("port 5000, the only one that the Compute SDK knows, is another program's")
    assert globus.cli("deploy", "--json").code == 0
    first, second = run(python, globus, SPEC)
    assert first["status"] == "SUCCEEDED", first
    assert first["container"]["cached"] is False
    assert first["result"]["image"] == first["container"]["path"]
    assert first["result"]["word"] == "hello"
    # again: the same flow, the same container, nothing built
    assert second["flow_id"] == first["flow_id"]
    assert second["container"]["cached"] is True
    assert second["container"]["container_id"] == first["container"]["container_id"]
    assert second["result"] == first["result"]
    assert "requires flow input value" in run(python, globus, {})
    # a build that fails is the run's failure, in its own sentence
    failed, _ = run(python, globus, {**SPEC, "name": "broken", "pip": ["no-such-package-cib-zz"]})
    assert failed["status"] == "FAILED"
    assert "no-such-package-cib-zz" in failed["cause"]


TWO_BUILDS = """
import json
from gladier import GladierBaseClient
from gladier.utils.tool_chain import ToolChain

class Two(GladierBaseClient):
    gladier_tools = ["cib_flows.gladier.BuildContainer", "cib_flows.gladier.BuildContainer:Second"]

tools = Two().tools
chained = ToolChain().chain(tools).flow_definition
print(json.dumps([chained, [tool.get_required_input() for tool in tools]]))
"""


def test_two_builds_under_an_alias_are_one_sound_flow(python: str, tmp_path: Path) -> None:
    record = {
        **dict.fromkeys(("flow_id", "build_endpoint", "run_endpoint"), ENDPOINT),
        "format": 1,
        "flow_sha256": "",
        "functions": {name: {"id": ENDPOINT, "sha256": ""} for name in function_names()},
    }
    (tmp_path / "record.json").write_text(json.dumps(record))
    done = subprocess.run(
        [python, "-c", TWO_BUILDS],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": str(REPOSITORY),
            "CIB_FLOWS_DEPLOYMENT": str(tmp_path / "record.json"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    definition, required = json.loads(done.stdout)
    assert required == [["container_spec"], ["second_container_spec"]]
    remarks, _ = lint_definition(definition)
    assert remarks == []
    states = definition["States"]
    assert states["BuildTidy"]["Next"] == "BuildSecondInput"
    assert states["BuildSecondTidy"]["End"] is True
    assert states["BuildSecondDone"]["ResultPath"] == "$.second_container"


def test_without_gladier_the_module_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import cib_flows.gladier"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        pytest.skip("Gladier is installed beside cib-flows here")
    assert 'pip install "cib-flows[gladier]" does it.' in done.stderr.splitlines()[-1]
