"""The flow this project deploys, run as it is against scripted functions."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from flow_testing import (
    FlowsServer,
    ScriptedProvider,
    identity,
    refused,
)

import cib_flows

FLOW = Path(cib_flows.__file__).parent / "flows" / "build_container"
ENDPOINT = "7a2b8f0e-0000-4000-8000-000000000001"
COLLECTION = "7a2b8f0e-0000-4000-8000-000000000002"
SPEC = {"name": "pandas", "base": {"image": "python:3.11-slim"}, "pip": ["pandas"]}
TRACEBACK = "Traceback (most recent call last):\n  File ...\nValueError: no such thing"


def deployed() -> dict[str, Any]:
    """The definition with its placeholders filled; every function's id is its name."""

    def fill(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: fill(item) for key, item in value.items()}
        if isinstance(value, str) and value.startswith("<endpoint:"):
            return ENDPOINT
        if isinstance(value, str) and value.startswith("<function:"):
            return value[len("<function:") : -1]
        return value

    definition = json.loads((FLOW / "definition.json").read_text())
    definition["States"]["Settings"] = fill(definition["States"]["Settings"])
    return dict(definition)


OUTPUTS: dict[str, dict[str, Any]] = {
    "render_recipe": {
        "recipe_sha256": "r" * 64,
        "payload_kind": "none",
        "cached": False,
        "container_id": None,
        "staging": None,
    },
    "fetch_payload": {"cached": False, "container_id": None},
    "build_image": {"sif_sha256": "s" * 64},
    "verify_image": {"sif_sha256": "s" * 64, "verification_sha256": "v" * 64},
    "register_container": {
        "container_id": "c1",
        "name": "pandas",
        "tag": "latest",
        "path": "/images/x.sif",
        "sha256": "s" * 64,
        "bytes": 1,
        "record_path": "/images/x.json",
        "cached": False,
        "executor": {"endpoint_id": ENDPOINT, "user_endpoint_config": {}},
    },
    "report_failure": {"sentence": "It went wrong.", "cause": "It went wrong. Do this."},
}


class Functions:
    """The Compute provider: functions by name, each answering with its output, a status, or an exception."""

    def __init__(self, provider: ScriptedProvider) -> None:
        self.answers: dict[str, Any] = {}
        self.calls: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
        self.provider = provider
        provider.script = self._call

    def says(self, name: str, **fields: Any) -> None:
        self.answers[name] = {**OUTPUTS[name], **fields}

    def fails(self, name: str, code: str) -> None:
        self.answers[name] = {"ok": False, "error": {"code": code, "message": "no"}}

    def _call(self, body: dict[str, Any]) -> Any:
        (task,) = body["tasks"]
        name = task["function_id"]
        self.calls.append((name, task["kwargs"], body))
        answer = self.answers[name] if name in self.answers else OUTPUTS[name]
        if not isinstance(answer, dict):
            return answer
        output = {"ok": True, "step": name, "elapsed_s": 0.1, **answer}
        return {"result": [output], "results": [{"task_id": "t", "output": output}]}

    def arguments(self, name: str) -> dict[str, Any]:
        return next(kwargs for called, kwargs, _ in self.calls if called == name)

    @property
    def called(self) -> list[str]:
        return [name for name, _, _ in self.calls]


@pytest.fixture
def functions(compute: ScriptedProvider) -> Functions:
    return Functions(compute)


@pytest.fixture
def globus(server: FlowsServer, functions: Functions) -> FlowsServer:
    return server


def build(globus: FlowsServer, spec: dict[str, Any]) -> dict[str, Any]:
    schema = json.loads((FLOW / "input_schema.json").read_text())
    flow_id = globus.flow(deployed(), schema)
    return globus.settled(globus.flow_client(flow_id).run_flow(spec)["run_id"])


def states(globus: FlowsServer, run: dict[str, Any]) -> list[str]:
    return globus.states(run["run_id"])[2:]


def test_definition_and_schema_are_accepted_as_they_are_shipped(globus: FlowsServer) -> None:
    definition = json.loads((FLOW / "definition.json").read_text())
    schema = json.loads((FLOW / "input_schema.json").read_text())
    answer = globus.client().validate_flow(definition, schema)
    assert len(answer["scopes"]["User"]) == 2


def test_success_runs_every_step_and_ends_with_the_container(
    globus: FlowsServer, functions: Functions
) -> None:
    run = build(globus, SPEC)
    assert run["status"] == "SUCCEEDED", run["details"]
    assert functions.called == [
        "render_recipe",
        "build_image",
        "verify_image",
        "register_container",
    ]
    assert run["details"]["output"]["container"]["container_id"] == "c1"
    rendered = functions.arguments("render_recipe")
    assert rendered["run_id"] == run["run_id"]
    assert rendered["spec"]["tag"] == "latest"
    assert rendered["spec"]["run_endpoint"] == ENDPOINT
    assert functions.arguments("build_image")["recipe_sha256"] == "r" * 64
    assert functions.arguments("register_container")["verification_sha256"] == "v" * 64
    profiles = {name: body["user_endpoint_config"]["profile"] for name, _, body in functions.calls}
    assert profiles == {
        "render_recipe": "control",
        "build_image": "build",
        "verify_image": "build",
        "register_container": "control",
    }
    assert all(request.identity == identity("alice") for request in functions.provider.requests)


def test_no_state_depends_on_anything_undocumented(
    globus: FlowsServer, functions: Functions
) -> None:
    run = build(globus, SPEC)
    warned = {
        entry["details"]["state_name"]
        for entry in globus.log(run["run_id"])
        if "warnings" in entry["details"]
    }
    assert warned == set()


def test_endpoint_from_the_form_is_used_and_recorded(
    globus: FlowsServer, functions: Functions
) -> None:
    other = "7a2b8f0e-0000-4000-8000-000000000009"
    build(globus, {**SPEC, "build_endpoint": other})
    assert {body["endpoint_id"] for _, _, body in functions.calls} == {other}
    assert functions.arguments("render_recipe")["spec"]["run_endpoint"] == other


def test_an_image_that_exists_is_only_registered(globus: FlowsServer, functions: Functions) -> None:
    functions.says("render_recipe", cached=True, container_id="known")
    run = build(globus, SPEC)
    assert run["status"] == "SUCCEEDED"
    assert functions.called == ["render_recipe", "register_container"]
    assert functions.arguments("register_container")["container_id"] == "known"


def test_an_image_that_turns_out_to_exist_after_fetching(
    globus: FlowsServer, functions: Functions
) -> None:
    functions.says("render_recipe", payload_kind="https")
    functions.says("fetch_payload", cached=True, container_id="known")
    run = build(globus, {**SPEC, "payload": {"url": "https://example.org/a.zip"}})
    assert run["status"] == "SUCCEEDED"
    assert functions.called == ["render_recipe", "fetch_payload", "register_container"]


def test_a_payload_on_a_collection_is_transferred_to_staging(
    globus: FlowsServer, functions: Functions, transfer: ScriptedProvider
) -> None:
    staging = {"collection_id": COLLECTION, "collection_path": "/runs/1/", "path": "/data/runs/1"}
    functions.says("render_recipe", payload_kind="collection", staging=staging)
    source = {"id": ENDPOINT, "path": "/home/me/code/"}
    run = build(globus, {**SPEC, "payload_collection": source})
    assert run["status"] == "SUCCEEDED"
    assert states(globus, run)[2:6] == [
        "TransferPayload",
        "PayloadTransferred",
        "FetchPayload",
        "PayloadFetched",
    ]
    (request,) = transfer.requests
    assert request.body["destination_endpoint"] == COLLECTION
    assert request.body["DATA"] == [
        {"source_path": "/home/me/code/", "destination_path": "/runs/1/"}
    ]


def assert_reported(
    globus: FlowsServer, functions: Functions, run: dict[str, Any]
) -> dict[str, Any]:
    """The run failed with the reported sentence; what report_failure was given."""
    assert run["status"] == "FAILED"
    assert run["details"]["code"] == "FlowFailed"
    assert run["details"]["error"] == "ContainerBuildFailed"
    assert run["details"]["cause"] == run["details"]["description"] == "It went wrong. Do this."
    assert states(globus, run)[-3:] == ["CollectFailure", "ReportFailure", "Failed"]
    reported = [
        entry["details"]["output"]["details"]["result"][0]["sentence"]
        for entry in globus.log(run["run_id"])
        if entry["code"] == "ActionCompleted" and entry["details"]["state_name"] == "ReportFailure"
    ]
    assert reported == ["It went wrong."]
    return functions.arguments("report_failure")


@pytest.mark.parametrize(
    "step", ["render_recipe", "build_image", "verify_image", "register_container"]
)
def test_a_step_that_says_no_is_reported(
    globus: FlowsServer, functions: Functions, step: str
) -> None:
    functions.fails(step, "no_such_thing")
    run = build(globus, SPEC)
    given = assert_reported(globus, functions, run)
    outputs = {entry["step"]: entry["output"] for entry in given["outputs"]}
    assert outputs[step]["error"]["code"] == "no_such_thing"
    assert given["caught"] is None
    assert functions.called[-2:] == [step, "report_failure"]


@pytest.mark.parametrize(
    "step", ["render_recipe", "build_image", "verify_image", "register_container"]
)
def test_a_step_that_raises_is_reported(
    globus: FlowsServer, functions: Functions, step: str
) -> None:
    functions.answers[step] = ("FAILED", {"result": [TRACEBACK], "results": []})
    given = assert_reported(globus, functions, build(globus, SPEC))
    assert "no such thing" in json.dumps(given["caught"])


def test_a_transfer_that_fails_is_reported(
    globus: FlowsServer, functions: Functions, transfer: ScriptedProvider
) -> None:
    functions.says(
        "render_recipe",
        payload_kind="collection",
        staging={"collection_id": "x", "collection_path": "/"},
    )
    transfer.script = lambda body: ("FAILED", {"nice_status": "PERMISSION_DENIED"})
    run = build(globus, {**SPEC, "payload_collection": {"id": ENDPOINT, "path": "/secret"}})
    given = assert_reported(globus, functions, run)
    assert given["transfer"]["details"] == {"nice_status": "PERMISSION_DENIED"}
    assert "fetch_payload" not in functions.called


def test_a_step_whose_endpoint_refuses_is_reported(
    globus: FlowsServer, functions: Functions
) -> None:
    functions.answers["build_image"] = refused("endpoint is not online")
    given = assert_reported(globus, functions, build(globus, SPEC))
    assert "endpoint is not online" in json.dumps(given["caught"])


def test_an_endpoint_that_is_dead_altogether_ends_with_a_fixed_sentence(
    globus: FlowsServer, functions: Functions
) -> None:
    functions.answers = {name: refused("endpoint is not online") for name in OUTPUTS}
    run = build(globus, SPEC)
    assert run["status"] == "FAILED"
    assert run["details"]["state_name"] == "FailedUnreported"
    assert run["details"]["error"] == "ContainerBuildFailed"
    assert "build endpoint did not answer" in run["details"]["cause"]


def test_an_input_outside_the_schema_is_refused_before_anything_runs(
    globus: FlowsServer, functions: Functions
) -> None:
    import globus_sdk

    with pytest.raises(globus_sdk.FlowsAPIError) as refusal:
        build(globus, {**SPEC, "settings": {"functions": {"build_image": "mine"}}})
    assert refusal.value.http_status == 400
    assert functions.calls == []


def test_a_run_cannot_set_the_functions(globus: FlowsServer, functions: Functions) -> None:
    """Even with a schema that lets everything through."""
    flow_id = globus.flow(deployed(), {})
    body = {**copy.deepcopy(SPEC), "settings": {"functions": {"render_recipe": "mine"}}}
    run = globus.settled(globus.flow_client(flow_id).run_flow(body)["run_id"])
    assert run["status"] == "SUCCEEDED"
    assert functions.called[0] == "render_recipe"
