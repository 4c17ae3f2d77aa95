"""Deploying to globus.org: what is sent, what is remembered, and that doing it again changes
nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import responses
from globus_sdk import FlowsClient
from globus_sdk.testing import load_response

from cib_flows import deployment_state
from cib_flows.bundle import bundle_function, function_names
from cib_flows.deployment import FlowSource, deploy, ensure_deployed, fill_placeholders
from cib_flows.deployment_record import Deployment, load_deployment
from cib_flows.errors import CibFlowsError, ServiceError, UsageError
from cib_flows.profiles import Globus

from .conftest import BUILD_ENDPOINT

FLOWS = "https://flows.automate.globus.org"
COMPUTE = "https://compute.api.globus.org"
FLOW_ID = "24bc4997-b483-4c25-a19c-64b0afc00743"


def function_uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


@pytest.fixture
def registrations(cloud: responses.RequestsMock) -> list[dict[str, Any]]:
    """Globus Compute registers everything; the list grows by what it was sent."""
    seen: list[dict[str, Any]] = []

    def register(request: Any) -> tuple[int, dict[str, str], str]:
        seen.append(json.loads(request.body))
        return 200, {}, json.dumps({"function_uuid": function_uuid(len(seen))})

    cloud.add_callback("POST", f"{COMPUTE}/v3/functions", register)
    cloud.get(re.compile(f"{COMPUTE}/v2/functions/.*"), json={"function_uuid": "any"})
    return seen


@pytest.fixture
def flows(cloud: responses.RequestsMock) -> dict[str, list[dict[str, Any]]]:
    """Globus Flows keeps one flow; ``created`` and ``updated`` list what it was sent."""
    sent: dict[str, list[dict[str, Any]]] = {"created": [], "updated": []}

    def answer(kind: str) -> Callable[[Any], tuple[int, dict[str, str], str]]:
        def callback(request: Any) -> tuple[int, dict[str, str], str]:
            sent[kind].append(json.loads(request.body))
            return 200, {}, json.dumps({"id": FLOW_ID, "title": sent[kind][-1].get("title")})

        return callback

    cloud.add_callback("POST", f"{FLOWS}/flows", answer("created"))
    cloud.add_callback("PUT", f"{FLOWS}/flows/{FLOW_ID}", answer("updated"))
    cloud.get(f"{FLOWS}/flows/{FLOW_ID}", json={"id": FLOW_ID, "user_role": "flow_owner"})
    return sent


def test_the_first_deployment_registers_every_function_as_text_and_creates_the_flow(
    globus: Globus, registrations: list[dict[str, Any]], flows: dict[str, list[dict[str, Any]]]
) -> None:
    said: list[str] = []
    deployed = deploy(globus, say=said.append)
    assert [sent["function_name"] for sent in registrations] == function_names()
    for sent in registrations:
        bundle = bundle_function(sent["function_name"])
        assert sent["function_code"] == bundle.source
        assert sent["serialized"] is False
        assert bundle.sha256 in sent["description"]
    (created,) = flows["created"]
    settings = created["definition"]["States"]["Settings"]["Parameters"]
    assert settings["build_endpoint"] == BUILD_ENDPOINT
    assert settings["run_endpoint"] == BUILD_ENDPOINT
    for name, identifier in settings["functions"].items():
        assert identifier == deployed.functions[name].id
    assert created["input_schema"]["properties"]["build_endpoint"]["default"] == BUILD_ENDPOINT
    assert "<" not in json.dumps(settings)
    assert said[0] == f"registered {len(registrations)} functions"
    assert len(said) == 2
    assert load_deployment(globus) == deployed


def test_deploying_again_sends_nothing_and_leaves_the_record_as_it_was(
    globus: Globus, registrations: list[dict[str, Any]], flows: dict[str, list[dict[str, Any]]]
) -> None:
    first = deploy(globus)
    registered = len(registrations)
    written = globus.record_path.stat().st_mtime_ns
    said: list[str] = []
    assert deploy(globus, say=said.append) == first
    assert ensure_deployed(globus) == first
    assert said == []
    assert len(registrations) == registered
    assert len(flows["created"]) == 1
    assert flows["updated"] == []
    assert globus.record_path.stat().st_mtime_ns == written


def test_two_first_deployments_at_once_make_one_flow(
    globus: Globus, registrations: list[dict[str, Any]], flows: dict[str, list[dict[str, Any]]]
) -> None:
    import threading

    threads = [threading.Thread(target=deploy, args=(globus,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(flows["created"]) == 1


def change_text(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """As if a release had changed one function."""
    from dataclasses import replace

    def changed(asked: str) -> Any:
        bundle = bundle_function(asked)
        return (
            replace(bundle, source=bundle.source + "#\n", sha256="0" * 64)
            if asked == name
            else bundle
        )

    monkeypatch.setattr(deployment_state, "bundle_function", changed)


def test_only_the_function_whose_text_is_new_is_registered_anew(
    globus: Globus,
    registrations: list[dict[str, Any]],
    flows: dict[str, list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = deploy(globus)
    change_text(monkeypatch, "build_image")
    second = ensure_deployed(globus)
    changed = {name for name in second.functions if second.functions[name] != first.functions[name]}
    assert changed == {"build_image"}
    assert registrations[-1]["function_name"] == "build_image"
    (updated,) = flows["updated"]
    named = updated["definition"]["States"]["Settings"]["Parameters"]["functions"]["build_image"]
    assert named == second.functions["build_image"].id
    # roles that flow.json did not change stay as an administrator may have set them since
    assert "flow_starters" not in updated


def test_a_flow_of_someone_else_is_used_as_it_is(
    globus: Globus,
    cloud: responses.RequestsMock,
    registrations: list[dict[str, Any]],
    flows: dict[str, list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = deploy(globus)
    cloud.replace(
        "GET", f"{FLOWS}/flows/{FLOW_ID}", json={"id": FLOW_ID, "user_role": "flow_starter"}
    )
    change_text(monkeypatch, "build_image")
    registered = len(registrations)
    assert ensure_deployed(globus) == first
    assert len(registrations) == registered


def test_a_flow_that_was_deleted_is_created_anew(
    globus: Globus,
    cloud: responses.RequestsMock,
    registrations: list[dict[str, Any]],
    flows: dict[str, list[dict[str, Any]]],
) -> None:
    first = deploy(globus)
    cloud.replace(
        "GET",
        f"{FLOWS}/flows/{FLOW_ID}",
        status=404,
        json={"error": {"code": "NOT_FOUND", "detail": "gone", "message": "gone"}},
    )
    registered = len(registrations)
    assert ensure_deployed(globus).functions == first.functions
    assert len(flows["created"]) == 2
    assert len(registrations) == registered


def test_a_home_made_anew_is_deployed_to_its_own_endpoint(
    globus: Globus,
    cloud: responses.RequestsMock,
    registrations: list[dict[str, Any]],
    flows: dict[str, list[dict[str, Any]]],
) -> None:
    deploy(globus)
    gone = {"error": {"code": "NOT_FOUND", "detail": "gone", "message": "gone"}}
    cloud.replace("GET", f"{FLOWS}/flows/{FLOW_ID}", status=404, json=gone)
    globus.build_endpoint = function_uuid(99)
    again = ensure_deployed(globus)
    assert (again.build_endpoint, again.run_endpoint) == (function_uuid(99), function_uuid(99))


def test_another_default_endpoint_updates_the_flow(
    globus: Globus, registrations: list[dict[str, Any]], flows: dict[str, list[dict[str, Any]]]
) -> None:
    deploy(globus, run_endpoint=function_uuid(7))
    assert deploy(globus).run_endpoint == function_uuid(7)
    moved = deploy(globus, build_endpoint=function_uuid(8))
    assert (moved.build_endpoint, moved.run_endpoint) == (function_uuid(8), function_uuid(8))
    settings = flows["updated"][-1]["definition"]["States"]["Settings"]["Parameters"]
    assert settings["build_endpoint"] == function_uuid(8)


def test_roles_in_flow_json_are_sent(
    globus: Globus,
    registrations: list[dict[str, Any]],
    flows: dict[str, list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packaged = FlowSource.packaged()
    about = {**packaged.about, "flow_starters": ["all_authenticated_users"]}
    monkeypatch.setattr(
        FlowSource,
        "packaged",
        lambda: FlowSource(packaged.definition, packaged.input_schema, about),
    )
    deploy(globus)
    assert flows["created"][0]["flow_starters"] == ["all_authenticated_users"]
    monkeypatch.setattr(FlowSource, "packaged", lambda: packaged)
    ensure_deployed(globus)
    assert flows["updated"][0]["flow_starters"] == []


def test_a_refusal_by_the_flows_service_is_one_sentence(
    globus: Globus, registrations: list[dict[str, Any]], cloud: responses.RequestsMock
) -> None:
    load_response(FlowsClient.create_flow, case="bad_admin_principal_error", requests_mock=cloud)
    with pytest.raises(ServiceError) as refused:
        deploy(globus)
    assert refused.value.message.startswith(
        "Could not create the flow: flow_administrators.0: Unrecognized principal string"
    )
    assert "\n" not in refused.value.message
    assert load_deployment(globus) is None


def test_without_an_endpoint_there_is_nothing_to_deploy_to(globus: Globus) -> None:
    globus.build_endpoint = None
    with pytest.raises(UsageError, match="--build-endpoint"):
        deploy(globus)


def test_a_placeholder_that_nothing_fills_is_named() -> None:
    with pytest.raises(CibFlowsError, match="<function:unheard_of>"):
        fill_placeholders(
            {"a": ["<function:known>", {"b": "<function:unheard_of>"}]}, {"<function:known>": "x"}
        )


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": 1}', '{"format": 99, "flow_id": "x"}']
)
def test_a_file_that_is_no_record_is_refused_by_its_name(globus: Globus, text: str) -> None:
    globus.record_path.parent.mkdir(parents=True)
    globus.record_path.write_text(text)
    with pytest.raises(UsageError) as refused:
        load_deployment(globus)
    assert str(globus.record_path) in refused.value.message


def test_a_record_can_be_named_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, globus: Globus, tmp_path: Path
) -> None:
    from cib_flows.profiles import connect

    shared = tmp_path / "shared.json"
    monkeypatch.setenv("CIB_FLOWS_DEPLOYMENT", str(shared))
    assert connect("globus").record_path == shared


def test_a_function_that_the_deployment_lacks_is_named() -> None:
    empty = Deployment("f", "s", "b", "r", {})
    with pytest.raises(UsageError, match="watch_build"):
        empty.function_id("watch_build")
