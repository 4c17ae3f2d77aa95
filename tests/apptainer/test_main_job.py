"""The main job: a spec becomes a proven, registered image, and a function runs in it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import REPOSITORY, LocalGlobus


def test_the_example_is_registered_under_its_own_digest(
    globus: LocalGlobus, pandas_container: dict[str, Any]
) -> None:
    image = Path(pandas_container["path"])
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    assert image.name == f"{digest}.sif"
    assert pandas_container["sha256"] == digest
    assert pandas_container["bytes"] == image.stat().st_size
    assert stat.S_IMODE(image.stat().st_mode) == 0o444
    record = json.loads(image.with_suffix(".json").read_text())
    assert record["container_id"] == pandas_container["container_id"]
    assert "pandas" in record["verification"]["imports"]
    assert globus.leftovers() == []


def test_the_image_holds_what_the_endpoint_runs(
    globus: LocalGlobus, pandas_container: dict[str, Any]
) -> None:
    shown = globus.inside(
        pandas_container,
        "python3",
        "-c",
        "import importlib.metadata as m; "
        "print(m.version('globus-compute-endpoint'), m.version('parsl'))",
    )
    assert shown.split() == [
        importlib.metadata.version("globus-compute-endpoint"),
        importlib.metadata.version("parsl"),
    ]


def test_run_passes_every_argument_on(
    globus: LocalGlobus, pandas_container: dict[str, Any]
) -> None:
    words = ["two words", "it's", "$HOME", ""]
    shown = globus.inside(pandas_container, "/bin/sh", "-c", 'printf "<%s>\\n" "$@"', "sh", *words)
    assert shown.splitlines() == [f"<{word}>" for word in words]


def test_the_same_spec_again_is_answered_without_building(
    globus: LocalGlobus, pandas_container: dict[str, Any]
) -> None:
    again = globus.built(str(REPOSITORY / "examples" / "pandas.yaml"))
    assert again["cached"] is True
    assert again["container_id"] == pandas_container["container_id"]


def test_the_older_tools_spec_is_accepted_as_it_is(
    globus: LocalGlobus, pandas_container: dict[str, Any]
) -> None:
    older = globus.built(_write_older(globus, pandas_container["name"]))
    assert older["container_id"] == pandas_container["container_id"]


def _write_older(globus: LocalGlobus, name: str) -> str:
    path = globus.folder / "older.json"
    path.write_text(
        json.dumps(
            {
                "image_file_name": name,
                "base_image_type": "docker",
                "base_image": "python:3.11-slim",
                "pip_packages": ["pandas"],
            }
        )
    )
    return str(path)


def test_containers_are_listed_and_shown(
    globus: LocalGlobus, pandas_container: dict[str, Any]
) -> None:
    listed = globus.cli("containers", "list", "--json").document
    assert pandas_container["container_id"] in [c["container_id"] for c in listed["containers"]]
    shown = globus.cli("containers", "show", pandas_container["name"], "--json").document
    assert pandas_container["sha256"] in json.dumps(shown)
    missing = globus.cli("containers", "show", "no-such-image")
    assert missing.code == 1
    assert "no-such-image" in missing.errors


def _needs_compute_port(globus: LocalGlobus) -> None:
    if not globus.has_compute_port:
        pytest.skip(
            "port 5000 is held by another program, and globus_compute_sdk knows no other address"
        )


@pytest.mark.compute_port
def test_a_command_runs_in_the_image_through_globus_compute(
    globus: LocalGlobus, pandas_container: dict[str, Any]
) -> None:
    _needs_compute_port(globus)
    answer = globus.cli(
        "containers", "exec", pandas_container["name"], "--",
        "python3", "-c", "import os, pandas; print(os.environ['APPTAINER_CONTAINER'])",
    )  # fmt: skip
    assert answer.code == 0, answer.errors
    assert answer.output.strip() == pandas_container["path"]
    failing = globus.cli(
        "containers", "exec", pandas_container["name"], "--", "sh", "-c", "echo no >&2; exit 3"
    )
    assert failing.code != 0
    assert "no" in failing.errors


def _example(globus: LocalGlobus, name: str, settings: dict[str, str]) -> str:
    """What a program of ``examples/`` prints."""
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "examples" / name)],
        env={**os.environ, **settings},
        cwd=globus.folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.compute_port
def test_the_older_tools_readme_program_runs(
    globus: LocalGlobus, pandas_container: dict[str, Any]
) -> None:
    _needs_compute_port(globus)
    exports = globus.cli("local", "env", "--json").document
    printed = _example(globus, "prior_system_readme.py", exports.get("environment", exports))
    assert "Successfully created df" in printed
    assert pandas_container["container_id"] in printed


@pytest.mark.compute_port
def test_the_readmes_own_program_runs(globus: LocalGlobus) -> None:
    _needs_compute_port(globus)
    printed = _example(globus, "python_api.py", {"CIB_FLOWS_HOME": str(globus.home)})
    assert "\nregistered " in printed
    assert printed.endswith("mean: 3.0\n")
