"""Workers that would never answer are noticed before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cib_flows import containers, host_runs
from cib_flows.containers import Container
from cib_flows.errors import ServiceError

THERE = {"parsl": "2026.10.26", "globus-compute-endpoint": "4.19.0", "python": "3.11.2"}


class FakeGlobus:
    record_path = Path("no such record")


def container(worker: Any) -> Container:
    record = {
        "container_id": "c",
        "name": "demo",
        "path": "/images/demo.sif",
        "sha256": "0",
        "bytes": 1,
        "executor": {
            "endpoint_id": "e",
            "user_endpoint_config": {"container_uri": "/x", "account": "a"},
        },
    }
    if worker is not None:
        record["worker"] = worker
    globus: Any = FakeGlobus()
    return Container.from_output(globus, record)


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    versions = dict(THERE)
    monkeypatch.setattr(host_runs, "endpoint_versions", lambda globus, endpoint: versions)
    return versions


@pytest.mark.parametrize(
    ("worker", "said"),
    [
        (
            {"parsl": "2026.9.7", "globus-compute-endpoint": "4.19.0"},
            "holds parsl 2026.9.7, and the endpoint e runs 2026.10.26",
        ),
        (
            {"parsl": "2026.10.26", "globus-compute-endpoint": "4.10.2"},
            "holds globus-compute-endpoint 4.10.2, and the endpoint e runs 4.19.0",
        ),
        ({}, "was built without a Globus Compute worker"),
    ],
)
def test_an_executor_that_would_hang_is_an_error(
    worker: dict[str, str], said: str, there: dict[str, str]
) -> None:
    with pytest.raises(ServiceError, match=said) as raised:
        container(worker).executor()
    assert raised.value.hint is not None
    assert "Container.call" in raised.value.hint


@pytest.mark.parametrize(
    "worker",
    [
        {"parsl": "2026.10.26", "globus-compute-endpoint": "4.19.2"},
        {"parsl": "2026.10.26"},
        None,
    ],
)
def test_workers_that_talk_are_left_alone(worker: Any, there: dict[str, str]) -> None:
    container(worker)._require_worker()


@pytest.mark.parametrize(
    ("worker", "said"),
    [({}, "built without a Globus Compute worker"), ({"parsl": "2026.9.7"}, "would never answer")],
)
def test_of_what_a_run_returned_the_catalogue_knows_the_worker(
    worker: dict[str, str], said: str, there: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Known:
        def __init__(self, globus: Any, endpoint: str | None) -> None:
            asked.append(str(endpoint))

        def show(self, reference: str) -> dict[str, Any]:
            return {"record_version": 1, "worker": worker, "container_id": reference}

    monkeypatch.setattr(containers, "Catalogue", Known)
    returned = container(None)
    returned.record["endpoint_id"] = "where it was built"
    for _ in range(2):
        with pytest.raises(ServiceError, match=said):
            returned.executor()
    assert asked == ["where it was built"], "once is enough"


def test_an_endpoint_that_cannot_be_asked_is_not_suspected(there: dict[str, str]) -> None:
    there.clear()
    container({"parsl": "2020.1.1"})._require_worker()


Sent = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def sent(there: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Sent:
    """What was asked of the endpoint's node."""
    found: Sent = []

    class Deployed:
        def function_id(self, name: str) -> str:
            return f"id-of-{name}"

    def call(
        globus: Any, name: str, function: str, endpoint: str, config: Any, given: Any, **_: Any
    ) -> Any:
        found.append((name, {"config": config, "endpoint": endpoint, **given}))
        return {"ok": True, "returncode": 7, "stdout": "out", "stderr": ""}

    monkeypatch.setattr(host_runs, "ensure_deployed", lambda globus: Deployed())
    monkeypatch.setattr(host_runs, "call_function", call)
    return found


def test_a_command_goes_around_a_worker_that_would_hang(sent: Sent) -> None:
    done = container({"parsl": "2026.9.7"}).run(["true"])
    assert (done.returncode, done.stdout) == (7, "out")
    ((name, given),) = sent
    assert name == "run_in_container"
    # the node starts the image itself, and what else the template takes is kept
    assert given["config"] == {"account": "a"}
    assert given["container"] == "/images/demo.sif"
    assert given["command"] == ["true"]


@pytest.mark.parametrize(("gpu", "ranks"), [("nvidia", None), (None, 4)])
def test_a_gpu_or_ranks_are_given_to_the_command_on_the_node(
    sent: Sent, gpu: str | None, ranks: int | None
) -> None:
    container({"parsl": "2026.10.26"}).run(["true"], gpu=gpu, ranks=ranks)
    ((_, given),) = sent
    assert (given["gpu"], given["ranks"]) == (gpu, ranks)


def test_no_worker_is_started_in_an_image_of_which_nothing_is_known(sent: Sent) -> None:
    brought = container(None)
    brought.record["record_version"] = 1
    assert brought.run(["true"]).returncode == 7
