"""Images without a Globus worker: commands, scripts and functions run in them all the same."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from cib_flows import Container
from cib_flows.errors import ServiceError
from cib_flows.profiles import connect

from .conftest import PLAIN, LocalGlobus


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


def test_workers_that_would_never_answer_are_an_error_before_anything_is_sent(
    globus: LocalGlobus, plain: dict[str, Any]
) -> None:
    """The endpoint that runs here says which parsl it has; the image's record names another."""
    path = Path(plain["path"]).with_suffix(".json")
    whole = path.read_bytes()
    record = json.loads(whole)
    record["worker"] = {"globus-compute-endpoint": metadata.version("globus-compute-endpoint")}
    record["worker"]["parsl"] = "2026.9.7"
    try:
        path.chmod(0o644)
        path.write_text(json.dumps(record))
        container = Container.get("plain", connect("local", str(globus.home)))
        here = metadata.version("parsl")
        with pytest.raises(ServiceError, match=f"holds parsl 2026.9.7, .* runs {here}") as refused:
            container.executor()
        assert "Build it again on this endpoint" in str(refused.value.hint)
        # a command goes another way
        assert container.run(["echo", "still"]).stdout == "still\n"
    finally:
        path.write_bytes(whole)
        path.chmod(0o444)


def test_a_gpu_flag_reaches_the_engine(globus: LocalGlobus, plain: dict[str, Any]) -> None:
    answer = globus.cli("containers", "exec", "--gpu", "nvidia", "plain", "--", "echo", "here")
    # without a GPU on this machine Apptainer says so, and goes on
    assert (answer.code, answer.output) == (0, "here\n")
