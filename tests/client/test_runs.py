"""A run seen through the wire: starting it once, following it, its container, its failure, cancelling."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import requests
import responses
from globus_sdk import FlowsClient, SpecificFlowClient
from globus_sdk.testing import get_response_set, load_response

from cib_flows.deployment_record import (
    Deployment,
    RegisteredFunction,
    load_deployment,
    save_deployment,
)
from cib_flows.errors import NotFoundError, RunFailedError, ServiceError
from cib_flows.profiles import Globus
from cib_flows.progress import LogFollower, Progress, pause_after
from cib_flows.runs import BuildRun

from .conftest import BUILD_ENDPOINT

FLOWS = "https://flows.automate.globus.org"
COMPUTE = "https://compute.api.globus.org"
FLOW_ID = str(uuid.UUID(int=1))
RUN_ID = str(uuid.UUID(int=2))
WATCH = str(uuid.UUID(int=3))
ABORT = str(uuid.UUID(int=4))
TASK = str(uuid.UUID(int=5))
DEPLOYMENT = Deployment(
    flow_id=FLOW_ID,
    flow_sha256="",
    build_endpoint=BUILD_ENDPOINT,
    run_endpoint=BUILD_ENDPOINT,
    functions={
        "watch_build": RegisteredFunction(WATCH, ""),
        "abort_build": RegisteredFunction(ABORT, ""),
    },
)
CONTAINER = {
    "ok": True,
    "container_id": str(uuid.UUID(int=9)),
    "name": "pandas",
    "tag": "latest",
    "path": "/images/pandas/aa.sif",
    "sha256": "aa",
    "bytes": 12,
    "cached": False,
    "executor": {
        "endpoint_id": BUILD_ENDPOINT,
        "user_endpoint_config": {"container_uri": "/images/pandas/aa.sif"},
    },
}


@dataclass
class Spec:
    """As much of a ContainerSpec as starting a run needs."""

    name: str = "pandas"
    tag: str = "latest"

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "tag": self.tag, "base": {"image": "python:3.11-slim"}}


def run_document(status: str, **details: Any) -> dict[str, Any]:
    return {
        "run_id": RUN_ID,
        "action_id": RUN_ID,
        "flow_id": FLOW_ID,
        "status": status,
        "label": "pandas:latest",
        "start_time": "2026-01-01T00:00:00+00:00",
        "details": details,
    }


def completed(state: str, output: dict[str, Any]) -> dict[str, Any]:
    return {
        "time": "2026-01-01T00:00:00+00:00",
        "code": "ActionCompleted",
        "description": f"State {state} of type Action completed",
        "details": {
            "state_name": state,
            "state_type": "Action",
            "output": {
                "status": "SUCCEEDED",
                "state_name": state,
                "details": {"result": [output], "results": [{"task_id": TASK, "output": output}]},
            },
        },
    }


def started(state: str) -> dict[str, Any]:
    return {
        "time": "2026-01-01T00:00:00+00:00",
        "code": "ActionStarted",
        "description": f"State {state} of type Action started",
        "details": {
            "state_name": state,
            "state_type": "Action",
            "input": {"endpoint_id": BUILD_ENDPOINT, "tasks": []},
        },
    }


@pytest.fixture
def run(globus: Globus) -> BuildRun:
    return BuildRun(globus, RUN_ID, DEPLOYMENT)


@pytest.fixture
def statuses(cloud: responses.RequestsMock) -> Callable[..., None]:
    """Declares the run's documents, one per look; the last one stays."""

    def declare(*documents: dict[str, Any]) -> None:
        for document in documents:
            cloud.get(f"{FLOWS}/runs/{RUN_ID}", json=document)

    return declare


@pytest.fixture
def log(cloud: responses.RequestsMock) -> Callable[..., None]:
    def declare(*entries: dict[str, Any]) -> None:
        def page(request: Any) -> tuple[int, dict[str, str], str]:
            newest_first = "reverse_order=True" in request.url
            shown = list(reversed(entries)) if newest_first else list(entries)
            return 200, {}, json.dumps({"limit": 100, "has_next_page": False, "entries": shown})

        cloud.add_callback("GET", f"{FLOWS}/runs/{RUN_ID}/log", page)

    return declare


def no_watch(cloud: responses.RequestsMock) -> None:
    cloud.post(
        f"{COMPUTE}/v3/endpoints/{BUILD_ENDPOINT}/submit",
        status=403,
        json={"code": "FUNCTION_NOT_PERMITTED", "message": "not allowed here"},
    )


def test_a_run_is_started_with_the_spec_as_its_whole_input(
    globus: Globus, cloud: responses.RequestsMock
) -> None:
    fixture = get_response_set(SpecificFlowClient.run_flow).metadata
    answer = load_response(SpecificFlowClient.run_flow, requests_mock=cloud)
    deployment = Deployment(**{**DEPLOYMENT.__dict__, "flow_id": fixture["flow_id"]})
    started_run = BuildRun.start(globus, deployment, Spec(), tags=["mine"])  # type: ignore[arg-type]
    assert started_run.run_id == answer.json["run_id"]
    sent = json.loads(cloud.calls[-1].request.body or b"")
    assert sent["body"] == Spec().to_dict()
    assert sent["label"] == "pandas:latest"
    assert sent["tags"][0] == "mine"


def test_a_label_is_cut_to_what_the_service_takes(
    globus: Globus, cloud: responses.RequestsMock
) -> None:
    cloud.post(f"{FLOWS}/flows/{FLOW_ID}/run", json=run_document("ACTIVE"))
    BuildRun.start(globus, DEPLOYMENT, Spec("n" * 64, "t" * 64))  # type: ignore[arg-type]
    assert len(json.loads(cloud.calls[-1].request.body or b"")["label"]) == 64


def test_a_lost_answer_does_not_start_a_second_run(
    globus: Globus, cloud: responses.RequestsMock
) -> None:
    starts: list[dict[str, Any]] = []

    def lose(request: Any) -> tuple[int, dict[str, str], str]:
        starts.append(json.loads(request.body))
        raise requests.ConnectionError("reset by peer")

    def runs(request: Any) -> tuple[int, dict[str, str], str]:
        known = [{"run_id": RUN_ID, "tags": starts[0]["tags"]}]
        return 200, {}, json.dumps({"runs": known, "limit": 25, "has_next_page": False})

    cloud.add_callback("POST", f"{FLOWS}/flows/{FLOW_ID}/run", lose)
    cloud.add_callback("GET", f"{FLOWS}/runs", runs)
    assert BuildRun.start(globus, DEPLOYMENT, Spec()).run_id == RUN_ID  # type: ignore[arg-type]
    assert len(starts) == 1


def test_a_service_that_is_busy_is_asked_again_until_it_is_not(
    globus: Globus, cloud: responses.RequestsMock
) -> None:
    url = f"{FLOWS}/flows/{FLOW_ID}/run"
    cloud.post(url, status=429)
    cloud.post(url, status=503)
    cloud.post(url, json=run_document("ACTIVE"))
    cloud.get(f"{FLOWS}/runs", json={"runs": [], "limit": 25, "has_next_page": False})
    assert BuildRun.start(globus, DEPLOYMENT, Spec()).run_id == RUN_ID  # type: ignore[arg-type]


def test_an_input_that_the_flow_refuses_is_named_by_its_field(
    globus: Globus, cloud: responses.RequestsMock
) -> None:
    cloud.post(
        f"{FLOWS}/flows/{FLOW_ID}/run",
        status=400,
        json={
            "error": {
                "code": "FLOW_INPUT_ERROR",
                "detail": [
                    {"loc": ["$.name"], "type": "InvalidActionInput", "msg": "'X' does not match"}
                ],
                "message": "Flow input validation failed",
            },
            "debug_id": RUN_ID,
        },
    )
    with pytest.raises(
        ServiceError, match=r"Could not start the run: \$\.name: 'X' does not match"
    ):
        BuildRun.start(globus, DEPLOYMENT, Spec())  # type: ignore[arg-type]


def test_a_successful_run_is_followed_to_its_container(
    run: BuildRun, cloud: responses.RequestsMock, statuses: Callable[..., None], log: Any
) -> None:
    tails = iter(["Collecting pandas\n", ""])

    def accept(request: Any) -> tuple[int, dict[str, str], str]:
        return 200, {}, json.dumps({"tasks": {WATCH: [TASK]}})

    def answer(request: Any) -> tuple[int, dict[str, str], str]:
        text = next(tails)
        result = {"ok": True, "log": text, "next_offset": 18, "log_path": "/r/build.log"}
        packed = "11\n" + json.dumps({**result, "phase": "pip", "percent": 40})
        return 200, {}, json.dumps({"task_id": TASK, "status": "success", "result": packed})

    cloud.add_callback("POST", f"{COMPUTE}/v3/endpoints/{BUILD_ENDPOINT}/submit", accept)
    cloud.add_callback("GET", f"{COMPUTE}/v2/tasks/{TASK}", answer)
    log(started("RenderRecipe"), started("BuildImage"))
    success = run_document("SUCCEEDED", code="FlowSucceeded", output={"container": CONTAINER})
    statuses(*[run_document("ACTIVE")] * 4, success)
    events = list(run.watch())
    assert [event.status for event in events] == ["ACTIVE"] * 4 + ["SUCCEEDED"]
    assert {event.step for event in events} == {"BuildImage"}
    assert "".join(event.log for event in events) == "Collecting pandas\n"
    assert events[-1].log_path == "/r/build.log"
    assert (events[2].phase, events[2].percent) == ("pip", 40)
    container = run.result()
    assert container.container_id == CONTAINER["container_id"]
    assert container.executor_arguments() == CONTAINER["executor"]


def test_the_worker_versions_of_a_built_image_are_remembered(
    run: BuildRun, globus: Globus, statuses: Callable[..., None], log: Any
) -> None:
    save_deployment(globus, DEPLOYMENT)
    packages = {"globus-compute-endpoint": "4.19.0", "parsl": "2026.10.26", "pandas": "2.2"}
    log(completed("VerifyImage", {"ok": True, "packages": packages}))
    statuses(run_document("SUCCEEDED", output={"container": CONTAINER}))
    run.result()
    remembered = load_deployment(globus)
    assert remembered is not None
    assert remembered.worker == {"globus-compute-endpoint": "4.19.0", "parsl": "2026.10.26"}


def test_a_container_is_found_in_the_log_when_the_run_shows_no_output(
    run: BuildRun, statuses: Callable[..., None], log: Any
) -> None:
    log(completed("ReuseContainer", {**CONTAINER, "cached": True}))
    statuses(run_document("SUCCEEDED", code="FlowSucceeded"))
    assert run.result().cached


def test_a_watcher_that_is_not_permitted_still_sees_the_steps(
    run: BuildRun, cloud: responses.RequestsMock, statuses: Callable[..., None], log: Any
) -> None:
    no_watch(cloud)
    log(started("VerifyImage"))
    statuses(*[run_document("ACTIVE")] * 8, run_document("SUCCEEDED"))
    assert [event.step for event in run.watch()][-1] == "VerifyImage"
    submits = [call for call in cloud.calls if call.request.url.endswith("/submit")]
    assert len(submits) == 3


def test_an_outage_of_the_service_is_sat_out(
    run: BuildRun, cloud: responses.RequestsMock, log: Any
) -> None:
    log(started("BuildImage"))
    failed = [requests.ConnectionError("reset")] * 14
    answers = iter([run_document("ACTIVE"), *failed, run_document("ENDED")])

    def answer(request: Any) -> tuple[int, dict[str, str], str]:
        document = next(answers)
        if isinstance(document, Exception):
            raise document
        return 200, {}, json.dumps(document)

    cloud.add_callback("GET", f"{FLOWS}/runs/{RUN_ID}", answer)
    events = list(run.watch(follow_log=False))
    assert [(event.status, event.step) for event in events] == [
        ("ACTIVE", "BuildImage"),
        ("ENDED", "BuildImage"),
    ]


def test_an_outage_without_end_is_reported_and_a_refusal_at_once(
    run: BuildRun, cloud: responses.RequestsMock
) -> None:
    down = cloud.get(f"{FLOWS}/runs/{RUN_ID}", body=requests.ConnectionError("reset"))
    with pytest.raises(ServiceError):
        list(run.watch())
    assert down.call_count > 6
    cloud.remove(down)
    refused = cloud.get(f"{FLOWS}/runs/{RUN_ID}", status=403, json={"error": {"code": "X"}})
    with pytest.raises(ServiceError):
        list(run.watch())
    assert refused.call_count == 1


def failing_report(**error: Any) -> dict[str, Any]:
    return {
        "ok": True,
        "sentence": "The package pandsa does not exist.",
        "failed_step": "build_image",
        "error": {"code": "pip_package_not_found", "hint": "Check its name.", **error},
        "log_path": "/r/build.log",
        "log_tail": "ERROR: No matching distribution found for pandsa",
    }


@pytest.mark.parametrize("prefix", ["", "Build"], ids=["alone", "in a larger flow"])
def test_a_failed_run_says_what_its_report_says(
    run: BuildRun, statuses: Callable[..., None], log: Any, prefix: str
) -> None:
    log(started(f"{prefix}BuildImage"), completed(f"{prefix}ReportFailure", failing_report()))
    statuses(run_document("FAILED", code="FlowFailed", description="The flow failed"))
    with pytest.raises(RunFailedError) as failed:
        run.result()
    assert failed.value.message == "The package pandsa does not exist."
    assert failed.value.hint == "Check its name."
    assert failed.value.failure["code"] == "pip_package_not_found"
    assert failed.value.failure["failed_step"] == "build_image"
    assert failed.value.failure["log_path"] == "/r/build.log"
    assert failed.value.failure["log_tail"].startswith("ERROR: No matching")


@pytest.mark.parametrize(
    "document",
    [
        run_document("FAILED", code="FlowFailed", cause="The endpoint did not answer."),
        run_document("FAILED", code="FlowFailed", description="The endpoint did not answer."),
    ],
)
def test_without_a_report_the_service_is_quoted(
    run: BuildRun, statuses: Callable[..., None], log: Any, document: dict[str, Any]
) -> None:
    log(started("RenderRecipe"))
    statuses(document)
    assert run.failure().sentence == "The endpoint did not answer."


def test_a_log_of_several_pages_is_read_to_its_end(
    run: BuildRun, cloud: responses.RequestsMock
) -> None:
    pages = get_response_set(FlowsClient.get_run_logs)
    run.run_id = pages.metadata["run_id"]
    load_response(FlowsClient.get_run_logs, case="paginated", requests_mock=_lenient(cloud))
    assert [entry["code"] for entry in run.logs()][-1] == "FlowSucceeded"


def _lenient(cloud: responses.RequestsMock) -> responses.RequestsMock:
    """The SDK's pages match on exact query parameters; this client also names a limit."""
    original = cloud.add

    def add(*args: Any, **kwargs: Any) -> Any:
        from responses.matchers import query_param_matcher

        matched = kwargs.get("match") or []
        if matched:
            params = {"marker": "fake_run_logs_marker"} if len(added) else {}
            kwargs["match"] = [query_param_matcher({**params, "limit": "100"})]
        added.append(1)
        return original(*args, **kwargs)

    added: list[int] = []
    cloud.add = add  # type: ignore[method-assign]
    return cloud


def test_a_run_that_waits_for_a_consent_says_so_and_can_be_resumed(
    run: BuildRun, cloud: responses.RequestsMock, statuses: Callable[..., None], log: Any
) -> None:
    log(started("TransferPayload"))
    no_watch(cloud)
    statuses(
        run_document("INACTIVE", code="ConsentRequired", description="Missing data_access consent.")
    )
    assert [event.status for event in run.watch()] == ["INACTIVE"]
    with pytest.raises(RunFailedError) as paused:
        run.result()
    assert paused.value.message == (
        "The run waits for your consent (Missing data_access consent); "
        f"give it and go on with 'cib-flows resume {RUN_ID}'."
    )
    resumed = cloud.post(f"{FLOWS}/runs/{RUN_ID}/resume", json=run_document("ACTIVE"))
    run.resume()
    assert resumed.call_count == 1


@pytest.mark.parametrize("larger", [False, True], ids=["alone", "in a larger flow"])
def test_cancelling_stops_the_run_and_then_its_build(
    run: BuildRun,
    cloud: responses.RequestsMock,
    statuses: Callable[..., None],
    log: Any,
    larger: bool,
) -> None:
    before = started("Measure")
    before["details"]["input"]["endpoint_id"] = RUN_ID
    log(*([before, started("BuildBuildImage")] if larger else [started("BuildImage")]))
    statuses(run_document("ACTIVE"))
    cloud.post(f"{FLOWS}/runs/{RUN_ID}/cancel", json=run_document("FAILED"))
    cloud.post(f"{COMPUTE}/v3/endpoints/{BUILD_ENDPOINT}/submit", json={"tasks": {ABORT: [TASK]}})
    cloud.get(
        f"{COMPUTE}/v2/tasks/{TASK}",
        json={"task_id": TASK, "status": "success", "result": '11\n{"ok": true}'},
    )
    assert run.cancel()
    posts = [call.request for call in cloud.calls if call.request.method == "POST"]
    words = [str(request.url).rsplit("/", 1)[-1] for request in posts]
    assert [word for word in words if word != "token"] == ["cancel", "submit"]
    body = json.loads(posts[-1].body or b"")
    assert RUN_ID in body["tasks"][ABORT][0]


def test_cancelling_succeeds_even_where_the_endpoint_is_gone(
    run: BuildRun, cloud: responses.RequestsMock, statuses: Callable[..., None], log: Any
) -> None:
    log(started("BuildImage"))
    statuses(run_document("ACTIVE"))
    cloud.post(f"{FLOWS}/runs/{RUN_ID}/cancel", json=run_document("FAILED"))
    no_watch(cloud)
    assert run.cancel()


def test_a_run_that_has_ended_is_not_cancelled(
    run: BuildRun, statuses: Callable[..., None]
) -> None:
    statuses(run_document("SUCCEEDED"))
    assert not run.cancel()


def test_a_cancelled_run_says_so(run: BuildRun, statuses: Callable[..., None], log: Any) -> None:
    log()
    statuses(run_document("FAILED", code="FlowCanceled"))
    failure = run.failure()
    assert failure.canceled
    assert failure.sentence == "The run was cancelled."


def test_a_run_that_does_not_exist_is_not_found(
    globus: Globus, cloud: responses.RequestsMock
) -> None:
    cloud.get(f"{FLOWS}/runs/{RUN_ID}", status=404, json={"error": {"code": "NOT_FOUND"}})
    with pytest.raises(NotFoundError):
        BuildRun.attach(globus, RUN_ID)
    with pytest.raises(NotFoundError, match="UUID"):
        BuildRun.attach(globus, "latest")


def test_waiting_has_a_limit(run: BuildRun, statuses: Callable[..., None], log: Any) -> None:
    log()
    statuses(run_document("ACTIVE"))
    with pytest.raises(ServiceError, match="it goes on"):
        run.wait(timeout_s=-1)


def test_looks_grow_rarer_but_never_rarer_than_ten_seconds() -> None:
    assert pause_after(0) < pause_after(10) <= pause_after(300) <= pause_after(10**6) == 10
    assert pause_after(300, 0.1) < pause_after(300, 10) < pause_after(300)


def test_a_run_that_says_where_it_is_costs_one_request_a_look_and_none_once_it_ended(
    run: BuildRun, cloud: responses.RequestsMock, statuses: Callable[..., None], log: Any
) -> None:
    log(started("RegisterContainer"))
    states = ["RenderRecipe", "IsCached", "BuildImage", "VerifyImage", "RegisterContainer"]
    statuses(
        *[run_document("ACTIVE", **started(state)) for state in states],
        run_document("SUCCEEDED", code="FlowSucceeded", output={"container": CONTAINER}),
    )
    events = list(run.watch(follow_log=False))
    assert [event.step for event in events] == [
        "RenderRecipe", "RenderRecipe", *states[2:], "RegisterContainer"
    ]  # fmt: skip
    asked = [call.request.path_url for call in cloud.calls if FLOWS in call.request.url]
    assert asked == [f"/runs/{RUN_ID}"] * 6
    run.result()
    assert run.status().status == "SUCCEEDED"
    more = [call.request.path_url for call in cloud.calls if FLOWS in call.request.url][6:]
    assert more == [f"/runs/{RUN_ID}/log?limit=100"], "for the worker's versions"


def test_a_follower_takes_up_again_where_the_log_stopped(
    globus: Globus, cloud: responses.RequestsMock
) -> None:
    asked: list[int] = []

    def accept(request: Any) -> tuple[int, dict[str, str], str]:
        packed = json.loads(request.body)["tasks"][WATCH][0]
        asked.append(json.loads(packed[packed.index("{") :])["offset"])
        return 200, {}, json.dumps({"tasks": {WATCH: [TASK]}})

    cloud.add_callback("POST", f"{COMPUTE}/v3/endpoints/{BUILD_ENDPOINT}/submit", accept)
    cloud.get(
        f"{COMPUTE}/v2/tasks/{TASK}",
        json={"task_id": TASK, "result": '11\n{"ok": true, "log": "abc", "next_offset": 3}'},
    )
    follower = LogFollower(globus, RUN_ID, WATCH, BUILD_ENDPOINT, {"profile": "control"})
    looks = [follower.look() for _ in range(4)]
    assert [bool(look) for look in looks] == [False, True, False, True]
    assert asked == [0, 3]


def test_progress_names_steps_in_words() -> None:
    assert Progress("ACTIVE", "BuildImage", 1.0).step_title == "building the image"
    assert Progress("ACTIVE", "BuildBuildImage", 1.0).step_title == "building the image"
    assert Progress("ACTIVE", "Measure", 1.0).step_title == "Measure"
    assert Progress("ACTIVE", "", 1.0).step_title == "starting"
