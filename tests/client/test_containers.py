"""Containers as the catalogue gives them, and what runs functions in them."""

from __future__ import annotations

import inspect
import json
import sys
import textwrap
import uuid
from typing import Any

import pytest
import responses

from cib_flows.containers import Container, list_containers, run_argv
from cib_flows.deployment_record import Deployment, RegisteredFunction, save_deployment
from cib_flows.errors import NotDeployedError, NotFoundError, ServiceError, UsageError
from cib_flows.profiles import Globus

from .conftest import BUILD_ENDPOINT

COMPUTE = "https://compute.api.globus.org"
LIST = str(uuid.UUID(int=3))
TASK = str(uuid.UUID(int=5))
RECORD = {
    "container_id": str(uuid.UUID(int=9)),
    "name": "pandas",
    "tags": ["latest", "v1"],
    "path": "/images/pandas/aa.sif",
    "sha256": "aa",
    "bytes": 12,
    "executor": {
        "endpoint_id": BUILD_ENDPOINT,
        "user_endpoint_config": {"container_uri": "/images/pandas/aa.sif"},
    },
}


@pytest.fixture
def deployed(globus: Globus) -> Globus:
    save_deployment(
        globus,
        Deployment(
            flow_id="f",
            flow_sha256="",
            build_endpoint=BUILD_ENDPOINT,
            run_endpoint=BUILD_ENDPOINT,
            functions={"list_containers": RegisteredFunction(LIST, "")},
        ),
    )
    return globus


def catalogue(cloud: responses.RequestsMock, *answers: dict[str, Any]) -> list[dict[str, Any]]:
    """The endpoint answers these in turn; returns what it was asked."""
    asked: list[dict[str, Any]] = []
    remaining = iter(answers)

    def accept(request: Any) -> tuple[int, dict[str, str], str]:
        packed = json.loads(request.body)["tasks"][LIST][0]
        asked.append(json.loads(packed[packed.index("{") :]))
        return 200, {}, json.dumps({"tasks": {LIST: [TASK]}})

    def answer(request: Any) -> tuple[int, dict[str, str], str]:
        return 200, {}, json.dumps({"result": "11\n" + json.dumps(next(remaining))})

    cloud.add_callback("POST", f"{COMPUTE}/v3/endpoints/{BUILD_ENDPOINT}/submit", accept)
    cloud.add_callback("GET", f"{COMPUTE}/v2/tasks/{TASK}", answer)
    return asked


def test_a_container_is_found_by_its_name(deployed: Globus, cloud: responses.RequestsMock) -> None:
    asked = catalogue(cloud, {"ok": True, "container": RECORD})
    container = Container.get("pandas", deployed)
    assert asked == [{"reference": "pandas"}]
    assert (container.tag, container.size) == ("latest", 12)
    assert container.as_dict()["executor"] == RECORD["executor"]
    assert container.record == RECORD


def test_a_container_that_is_not_there_is_not_found_in_the_catalogues_words(
    deployed: Globus, cloud: responses.RequestsMock
) -> None:
    error = {"code": "container_not_found", "message": "There is no pandsa.", "hint": "List them."}
    catalogue(cloud, {"ok": False, "error": error})
    with pytest.raises(NotFoundError, match="There is no pandsa") as missing:
        Container.get("pandsa", deployed)
    assert missing.value.hint == "List them."


def test_an_answer_without_the_fields_of_a_container_is_refused(
    deployed: Globus, cloud: responses.RequestsMock
) -> None:
    catalogue(cloud, {"ok": True, "container": {"name": "pandas"}})
    with pytest.raises(ServiceError, match="does not describe a container"):
        Container.get("pandas", deployed)


def test_a_long_catalogue_is_read_page_by_page(
    deployed: Globus, cloud: responses.RequestsMock
) -> None:
    rows = [{**RECORD, "container_id": str(number)} for number in range(25)]
    asked = catalogue(
        cloud,
        {"ok": True, "containers": rows[:20], "total": 25},
        {"ok": True, "containers": rows[20:], "total": 25},
    )
    assert list_containers(deployed) == rows
    assert [question["offset"] for question in asked] == [0, 20]


def test_a_limit_is_what_the_endpoint_is_asked_for(
    deployed: Globus, cloud: responses.RequestsMock
) -> None:
    asked = catalogue(cloud, {"ok": True, "containers": [RECORD] * 3, "total": 25})
    assert len(list_containers(deployed, limit=3)) == 3
    assert asked == [{"limit": 3, "offset": 0}]


def test_before_a_deployment_the_command_to_run_is_named(globus: Globus) -> None:
    with pytest.raises(NotDeployedError, match="cib-flows deploy"):
        list_containers(globus)


def test_an_executor_runs_in_the_image_and_sends_functions_as_text(
    deployed: Globus, cloud: responses.RequestsMock
) -> None:
    cloud.get(
        f"{COMPUTE}/v2/version",
        json={"api": "1.0", "min_sdk_version": "4.0.0", "min_ep_version": "4.0.0"},
    )
    container = Container.from_output(deployed, RECORD)
    with container.executor(label="mine") as executor:
        assert str(executor.endpoint_id) == BUILD_ENDPOINT
        assert executor.user_endpoint_config == {"container_uri": "/images/pandas/aa.sif"}
        assert executor.label == "mine"
        packed = executor.serializer.serialize(run_argv)
    assert "def run_argv(argv" in packed


@pytest.mark.parametrize("argv", [[], "echo hello"])
def test_a_command_is_a_list_of_words(deployed: Globus, argv: Any) -> None:
    with pytest.raises(UsageError, match="list of at least one word"):
        Container.from_output(deployed, RECORD).run(argv)


def sent_function() -> Any:
    """``run_argv`` as a worker gets it: from its text alone."""
    space: dict[str, Any] = {}
    exec(textwrap.dedent(inspect.getsource(run_argv)), space)
    return space["run_argv"]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([sys.executable, "-c", "print('a; b', end='')"], [0, "a; b", ""]),
        ([sys.executable, "-c", "import sys; sys.exit('no')"], [1, "", "no\n"]),
        (["/no/such/command"], [127, "", "/no/such/command: command not found\n"]),
        (["/"], [126, "", "/: permission denied\n"]),
        ([sys.executable, "-c", "print('x' * 100, end='')"], [0, "x" * 10, ""]),
    ],
)
def test_a_command_runs_without_a_shell_and_returns_the_end_of_what_it_said(
    argv: list[str], expected: list[Any]
) -> None:
    assert sent_function()(argv, 10 if "x" in expected[1] else 1000, None) == expected


def test_a_command_out_of_time_returns_124() -> None:
    argv = [sys.executable, "-c", "import signal; signal.pause()"]
    assert sent_function()(argv, 1000, 0.2)[0] == 124
