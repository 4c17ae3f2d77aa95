"""The unmodified Gladier against the local Globus. Its Compute SDK knows port 5000 only, so both
live in a network of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.namespace import Namespace, own_network
from tests.local.recording import claimed

from .environments import environment_with

pytestmark = pytest.mark.clients

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).parent / "gladier_program.py"
GLADIER = "gladier==0.11.0"


@pytest.fixture(scope="module")
def namespace() -> Iterator[Namespace]:
    yield from own_network()


@pytest.mark.parametrize(
    ("words", "url"),
    [
        ([], "https://compute.actions.globus.org"),
        (["https://compute.actions.globus.org/v3"], "https://compute.actions.globus.org/v3"),
    ],
    ids=["v2", "v3"],
)
def test_a_client_with_a_compute_tool_deploys_and_runs(
    namespace: Namespace, tmp_path: Path, words: list[str], url: str
) -> None:
    python = environment_with(GLADIER) / "bin" / "python"
    environment = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(tmp_path),
        "PYTHONPATH": str(REPOSITORY),
    }

    def run(*command: str, **more: str) -> str:
        done = subprocess.run(
            namespace.inside(list(command)),
            env={**environment, **more},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def local(*more: str) -> str:
        program = "from cib_flows.cli import main; main()"
        home = str(tmp_path / "home")
        return run(sys.executable, "-c", program, "local", *more, "--home", home, "--json")

    local("start")
    try:
        shown = json.loads(local("env"))
        shown["GLADIER_CLIENT_ID"] = shown["GLOBUS_COMPUTE_CLIENT_ID"]
        shown["GLADIER_CLIENT_SECRET"] = shown["GLOBUS_COMPUTE_CLIENT_SECRET"]
        shown["PYTHONPATH"] = ""
        said = run(str(python), str(PROGRAM), *words, **shown)
        first, second, made = json.loads(said.splitlines()[-1])
    finally:
        local("stop")
    assert first["url"] == url
    assert (first["status"], first["result"]) == ("SUCCEEDED", [{"sum": 5}])
    assert second == first
    (calls,) = claimed("gladier 0.11").values()
    assert set(calls) <= set(made)
