"""Images without a Globus worker: commands, scripts and functions run in them all the same."""

from __future__ import annotations

import shutil
from importlib import metadata
from typing import Any

import pytest

from cib_flows import Container
from cib_flows.errors import ServiceError
from cib_flows.profiles import connect

from .calling import called_in
from .conftest import PLAIN, LocalGlobus

# Its workers register with today's endpoints, and every result of theirs is dropped as unreadable.
OLDER = "2026.9.7"


@pytest.fixture(scope="module")
def plain(globus: LocalGlobus) -> dict[str, Any]:
    return globus.built({"name": "plain", **PLAIN})


def test_exec_needs_no_worker_in_the_image(globus: LocalGlobus, plain: dict[str, Any]) -> None:
    answer = globus.cli(
        "containers", "exec", "plain", "--", "sh", "-c", 'echo "$1"; exit 5', "-", "a  b"
    )
    assert (answer.code, answer.output) == (5, "a  b\n")


def test_run_sends_a_script_of_this_computer(globus: LocalGlobus, plain: dict[str, Any]) -> None:
    script = globus.folder / "where.py"
    script.write_text(
        "import os, sys\nprint(os.environ['APPTAINER_CONTAINER'], sys.argv[1:])\nsys.exit(4)\n"
    )
    answer = globus.cli("containers", "run", "plain", str(script), "--", "--one", "two words")
    assert answer.code == 4
    assert answer.output == f"{plain['path']} ['--one', 'two words']\n"


def test_a_function_takes_and_returns_json(globus: LocalGlobus, plain: dict[str, Any]) -> None:
    container = Container.get("plain", connect("local", str(globus.home)))
    source = "def area(width, height=1):\n    return {'area': width * height}\n"
    assert container.call(source, "area", 3, height=4) == {"area": 12}
    with pytest.raises(ServiceError, match="TypeError: can't multiply sequence by non-int"):
        container.call(source, "area", "x", height="y")


def test_an_executor_without_a_worker_is_refused_at_once(
    globus: LocalGlobus, plain: dict[str, Any]
) -> None:
    container = Container.get("plain", connect("local", str(globus.home)))
    with pytest.raises(ServiceError, match="was built without a Globus Compute worker"):
        container.executor()


@pytest.fixture(scope="module")
def older(globus: LocalGlobus) -> str:
    """An image with an older parsl, as one that was built for another endpoint, brought here without its record."""
    here = metadata.version("globus-compute-endpoint")
    spec = {"name": "older", "base": {"image": "python:3.11-slim"}, "worker": "none"}
    made = globus.built({**spec, "pip": [f"globus-compute-endpoint=={here}", f"parsl=={OLDER}"]})
    brought = globus.home / "staging" / "older.sif"
    shutil.copy(made["path"], brought)
    answer = globus.cli("containers", "register", str(brought), "brought:v1", "--json", timeout=300)
    assert answer.code == 0, answer.output + answer.errors
    return str(answer.document["path"])


def test_an_image_with_an_older_parsl_is_one_clear_error_and_no_endless_wait(
    globus: LocalGlobus, older: str
) -> None:
    container = Container.get("brought:v1", connect("local", str(globus.home)))
    said = f"holds parsl {OLDER}, .* runs {metadata.version('parsl')}: its workers would never"
    with pytest.raises(ServiceError, match=said) as refused:
        container.executor()
    assert "Build it again on this endpoint" in str(refused.value.hint)
    # a command goes another way
    assert container.run(["echo", "still"]).stdout == "still\n"
    # and where nobody asks before, as in a flow, the node says so instead of a worker that is never heard
    with pytest.raises(ServiceError, match=said):
        called_in(globus, container.endpoint_id, older)


def test_a_gpu_flag_reaches_the_engine(globus: LocalGlobus, plain: dict[str, Any]) -> None:
    answer = globus.cli("containers", "exec", "--gpu", "nvidia", "plain", "--", "echo", "here")
    # without a GPU on this machine Apptainer says so, and goes on
    assert (answer.code, answer.output) == (0, "here\n")
