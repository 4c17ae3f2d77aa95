"""Every call that the documentation says passes is made here by the unmodified client, and its answer has what
the SDK's own example of it has."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import globus_sdk
import pytest
import requests
from globus_sdk import (
    AuthClient,
    ComputeClientV2,
    ComputeClientV3,
    ConfidentialAppAuthClient,
    FlowsClient,
    NativeAppAuthClient,
    SearchClient,
    SpecificFlowClient,
    TransferClient,
)

from cib_flows.local.transfer.collections import Collections

from .conftest import LocalGlobus, pack, run_client, until
from .recording import claimed, recording
from .test_login import code

CLAIMED = claimed("globus_sdk")

PASS = {"StartAt": "A", "States": {"A": {"Type": "Pass", "End": True}}}
REST = {"StartAt": "A", "States": {"A": {"Type": "Wait", "Seconds": 86_400, "End": True}}}
QUESTION = {
    "InputType": "Selection",
    "Context": {"PresentationStyle": "Text", "Title": "Go?", "Text": "Go on?"},
    "Options": [{"Value": 1, "Label": "Yes"}],
}
ASK = {
    "StartAt": "Ask",
    "States": {
        "Ask": {
            "Type": "CreateWebInput",
            "Parameters": QUESTION,
            "ResultPath": "$.asked",
            "Next": "Await",
        },
        "Await": {
            "Type": "AwaitWebInput",
            "Parameters": {"web_input_id.$": "$.asked.web_input_id"},
            "ResultPath": "$.answered",
            "End": True,
        },
    },
}


def run_of(globus: LocalGlobus, definition: dict[str, Any]) -> tuple[str, str]:
    flow_id = str(globus.flows.create_flow("Calls", definition, {})["id"])
    return flow_id, str(SpecificFlowClient(flow_id, app=globus.app).run_flow({})["run_id"])


def ended(globus: LocalGlobus, run_id: str) -> None:
    until(lambda: globus.flows.get_run(run_id)["status"] != "ACTIVE")


# --- one scenario for each client -----------------------------------------------------------------


def flows_client(globus: LocalGlobus, folder: Path) -> None:
    client = FlowsClient(app=globus.app)
    client.validate_flow(PASS)
    flow_id = client.create_flow("Calls", PASS, {})["id"]
    client.update_flow(flow_id, title="Changed")
    assert client.get_flow(flow_id)["title"] == "Changed"
    assert flow_id in {flow["id"] for flow in client.list_flows(orderby="created_at DESC")}
    run_id = SpecificFlowClient(flow_id, app=globus.app).run_flow({}, label="L")["run_id"]
    ended(globus, run_id)
    client.update_run(run_id, label="Changed")
    assert client.get_run(run_id, include_flow_description=True)["label"] == "Changed"
    assert [run["run_id"] for run in client.list_runs(filter_flow_id=flow_id)] == [run_id]
    assert client.get_run_definition(run_id)["definition"] == PASS
    assert client.get_run_logs(run_id)["entries"][0]["code"] == "FlowStarted"
    _, resting = run_of(globus, REST)
    client.cancel_run(resting)
    client.delete_run(run_id)
    client.delete_flow(flow_id)
    client.list_registered_apis()
    _, asking = run_of(globus, ASK)
    web_input_id = until(lambda: client.get_run(asking)["blocking_web_input_id"])
    client.list_web_inputs(filter_run_ids=asking)
    option = client.get_web_input(web_input_id)["options"][0]["option_id"]
    client.respond_to_web_input(web_input_id, option)
    ended(globus, asking)


def specific_flow_client(globus: LocalGlobus, folder: Path) -> None:
    collection = Collections.of_home(globus.home).add(f"calls-{uuid.uuid4()}", folder, True)
    look = {
        "Type": "Action",
        "ActionUrl": "https://transfer.actions.globus.org/ls",
        "Parameters": {"endpoint_id": collection.id, "path": "/"},
        "ResultPath": "$.seen",
        "WaitTime": 60,
        "ExceptionOnActionFailure": True,
        "End": True,
    }
    flow = globus.flows.create_flow("Calls", {"StartAt": "A", "States": {"A": look}}, {})
    client = SpecificFlowClient(flow["id"], app=globus.app)
    client.validate_run({})
    run_id = client.run_flow({})["run_id"]
    ended(globus, run_id)
    client.add_app_transfer_data_access_scope(collection.id)
    globus.app.login(force=True)
    client.resume_run(run_id)
    ended(globus, run_id)
    assert globus.flows.get_run(run_id)["status"] == "SUCCEEDED"


ECHO = {"function_name": "echo", "function_code": "def echo(n):\n    return n\n"}


def _endpoint(name: str) -> dict[str, Any]:
    return {"endpoint_name": name, "multi_user": True, "metadata": {"endpoint_version": "4.19.0"}}


def compute_client_v2(globus: LocalGlobus, folder: Path) -> None:
    client = ComputeClientV2(app=globus.app)
    client.get_version("all")
    client.get_result_amqp_url()
    mine = globus.compute_v3.register_endpoint(_endpoint("v2"))["endpoint_id"]
    assert mine in {endpoint["uuid"] for endpoint in client.get_endpoints()}
    assert client.get_endpoint(mine)["name"] == "v2"
    assert client.get_endpoint_status(mine)["status"] == "offline"
    client.delete_endpoint(mine)
    function_id = client.register_function({**ECHO, "serialized": False})["function_uuid"]
    client.get_function(function_id)
    tasks = [[function_id, globus.endpoint_id, pack([1], {})]]
    answer = client.submit({"tasks": tasks, "user_endpoint_config": {"profile": "control"}})
    (task_id,) = [result["task_uuid"] for result in answer["results"]]
    until(lambda: client.get_task(task_id)["status"] == "success")
    assert client.get_task_batch([task_id])["results"][task_id]["status"] == "success"
    assert client.get_task_group(answer["task_group_id"])["tasks"][0]["id"] == task_id
    client.delete_function(function_id)


def compute_client_v3(globus: LocalGlobus, folder: Path) -> None:
    client = ComputeClientV3(app=globus.app)
    mine = client.register_endpoint(_endpoint("v3"))["endpoint_id"]
    client.update_endpoint(mine, _endpoint("again"))
    client.lock_endpoint(mine)
    client.get_endpoint_allowlist(mine)
    globus.compute_v2.delete_endpoint(mine)
    function_id = client.register_function({**ECHO, "serialized": False})["function_uuid"]
    body = {
        "tasks": {function_id: [pack([1], {})]},
        "user_endpoint_config": {"profile": "control"},
    }
    answer = client.submit(globus.endpoint_id, body)
    until(
        lambda: globus.compute_v2.get_task(answer["tasks"][function_id][0])["status"] == "success"
    )


def transfer_client(globus: LocalGlobus, folder: Path) -> None:
    client = TransferClient(app=globus.app)
    name = f"calls-{uuid.uuid4()}"
    here = Collections.of_home(globus.home).add(name, folder).id
    (folder / "a.txt").write_text("a")
    assert [found["id"] for found in client.endpoint_search(name)] == [here]
    client.get_endpoint(here)
    client.operation_mkdir(here, "/sub")
    client.operation_rename(here, "/sub", "/dir")
    assert client.operation_stat(here, "/dir")["type"] == "dir"
    assert {found["name"] for found in client.operation_ls(here, path="/")} == {"a.txt", "dir"}
    rule = {"DATA_TYPE": "access", "principal_type": "identity", "path": "/dir/"}
    rule |= {"principal": str(uuid.uuid4()), "permissions": "r"}
    rule_id = client.add_endpoint_acl_rule(here, rule)["access_id"]
    client.update_endpoint_acl_rule(here, rule_id, {"permissions": "rw"})
    assert client.get_endpoint_acl_rule(here, rule_id)["permissions"] == "rw"
    assert [found["id"] for found in client.endpoint_acl_list(here)] == [rule_id]
    client.delete_endpoint_acl_rule(here, rule_id)
    assert list(client.endpoint_acl_list(here)) == []
    client.get_submission_id()
    data = globus_sdk.TransferData(source_endpoint=here, destination_endpoint=here)
    data.add_item("/a.txt", "/dir/b.txt")
    task_id = client.submit_transfer(data)["task_id"]
    assert client.task_wait(task_id, timeout=60, polling_interval=1)
    client.update_task(task_id, {"DATA_TYPE": "task", "label": "Changed"})
    assert client.get_task(task_id)["label"] == "Changed"
    assert task_id in {task["task_id"] for task in client.task_list(limit=100)}
    assert [event["code"] for event in client.task_event_list(task_id)] == ["SUCCEEDED", "STARTED"]
    assert [moved["destination_path"] for moved in client.task_successful_transfers(task_id)] == [
        "/dir/b.txt"
    ]
    assert list(client.task_skipped_errors(task_id)) == []
    client.task_pause_info(task_id)
    client.cancel_task(task_id)
    removal = globus_sdk.DeleteData(endpoint=here, recursive=True)
    removal.add_item("/dir")
    removed = client.submit_delete(removal)["task_id"]
    assert client.task_wait(removed, timeout=60, polling_interval=1)
    assert not (folder / "dir").exists()
    client.add_app_data_access_scope(here)


def search_client(globus: LocalGlobus, folder: Path) -> None:
    client = SearchClient(app=globus.app)
    index = client.create_index("calls", "for a test")["id"]
    client.get_index(index)
    client.update_index(index, display_name="Changed")
    assert index in {found["id"] for found in client.index_list()}
    entries = [
        {"subject": f"s{n}", "visible_to": ["public"], "content": {"n": n}} for n in range(4)
    ]
    body = {"ingest_type": "GMetaList", "ingest_data": {"gmeta": entries}}
    task_id = client.ingest(index, body)["task_id"]
    assert client.get_task(task_id)["state"] == "SUCCESS"
    client.get_task_list(index)
    assert client.search(index, "*")["total"] == 4
    assert client.post_search(index, {"q": "*"})["total"] == 4
    assert client.scroll(index, {"q": "*"})["count"] == 4
    client.get_subject(index, "s0")
    client.get_entry(index, "s0")
    client.delete_entry(index, "s0")
    client.delete_subject(index, "s1")
    client.batch_delete_by_subject(index, ["s2"])
    client.delete_by_query(index, {"q": "*"})
    assert client.search(index, "*")["total"] == 0
    role = {"role_name": "writer", "principal": f"urn:globus:auth:identity:{uuid.uuid4()}"}
    role_id = client.create_role(index, role)["id"]
    client.get_role_list(index)
    client.delete_role(index, role_id)
    client.delete_index(index)
    client.reopen_index(index)


def auth_client(globus: LocalGlobus, folder: Path) -> None:
    client = AuthClient(app=globus.app)
    me = client.userinfo()["sub"]
    assert client.get_identities(ids=me)["identities"][0]["id"] == me
    client.get_consents(me)
    client.get_jwk(client.get_openid_configuration())


def confidential_client(globus: LocalGlobus, folder: Path) -> None:
    own = globus.home.client()
    client = ConfidentialAppAuthClient(own.client_id, own.client_secret)
    scope = globus_sdk.FlowsClient.scopes.run_status
    tokens = client.oauth2_client_credentials_tokens(requested_scopes=scope)
    access = tokens["access_token"]
    assert client.oauth2_token_introspect(access)["active"]
    native = _native()
    granted = native.oauth2_exchange_code_for_tokens(code(globus))
    assert client.oauth2_token_introspect(granted["access_token"])["active"]
    refresh = tokens.by_resource_server["flows.globus.org"]["refresh_token"]
    client.oauth2_refresh_token(refresh)
    client.oauth2_revoke_token(access)


def _native() -> NativeAppAuthClient:
    client = NativeAppAuthClient(client_id=str(uuid.uuid4()))
    client.oauth2_start_flow(requested_scopes="openid profile", refresh_tokens=True)
    assert requests.get(client.oauth2_get_authorize_url(), timeout=30).ok
    return client


def native_client(globus: LocalGlobus, folder: Path) -> None:
    client = _native()
    tokens = client.oauth2_exchange_code_for_tokens(code(globus))
    again = client.oauth2_refresh_token(tokens["refresh_token"])
    client.oauth2_revoke_token(again["access_token"])


Scenario = Callable[[LocalGlobus, Path], None]

SCENARIOS: dict[type, tuple[str, Scenario]] = {
    FlowsClient: ("flows", flows_client),
    SpecificFlowClient: ("flows", specific_flow_client),
    ComputeClientV2: ("compute.v2", compute_client_v2),
    ComputeClientV3: ("compute.v3", compute_client_v3),
    TransferClient: ("transfer", transfer_client),
    SearchClient: ("search", search_client),
    AuthClient: ("auth", auth_client),
    ConfidentialAppAuthClient: ("auth", confidential_client),
    NativeAppAuthClient: ("auth", native_client),
}


# What the answers lack for a reason.
OTHERWISE: dict[str, dict[str, set[str]]] = {
    # Of an older service; the SDK's newer example of a run does not have it.
    "FlowsClient": {name: {"search"} for name in ("update_run", "cancel_run", "delete_run")},
    "SpecificFlowClient": {name: {"search"} for name in ("run_flow", "resume_run")},
    # An endpoint of one user has these; those of today, with a template, get command and heartbeat queues.
    "ComputeClientV3": {
        "register_endpoint": {"task_queue_info", "result_queue_info"},
        "update_endpoint": {"task_queue_info", "result_queue_info"},
    },
}


def test_every_client_of_the_table_has_a_scenario() -> None:
    assert {client.__name__ for client in SCENARIOS} == set(CLAIMED)


@pytest.mark.parametrize("client", SCENARIOS, ids=lambda client: client.__name__)
def test_every_call_of_the_table_passes(
    local_globus: LocalGlobus, tmp_path: Path, client: type
) -> None:
    service, scenario = SCENARIOS[client]
    with recording(client, service) as made:
        scenario(local_globus, tmp_path)
    assert made.calls == set(CLAIMED[client.__name__])
    assert made.lacking == OTHERWISE.get(client.__name__, {})


# --- the Compute SDK, in a process of its own -----------------------------------------------------

COMPUTE_SDK = """
import functools, inspect, json, os, time
from globus_compute_sdk import Client, Executor
from globus_compute_sdk.serialize import AllCodeStrategies, ComputeSerializer, JSONData

made = {"Client": set(), "Executor": set()}

def note(owner, name, method):
    @functools.wraps(method)
    def call(*arguments, **named):
        answer = method(*arguments, **named)
        made[owner.__name__].add(name)
        return answer
    setattr(owner, name, call)

for owner in (Client, Executor):
    for name, method in inspect.getmembers(owner, inspect.isfunction):
        if not name.startswith("_"):
            note(owner, name, method)

endpoint = os.environ["CIB_FLOWS_BUILD_ENDPOINT"]
client = Client(
    code_serialization_strategy=AllCodeStrategies(), data_serialization_strategy=JSONData()
)
client.version_check()
text = "def echo(n):\\n    return n\\n"

def one():
    return 1

def twice(n):
    return 2 * n

echo = client.register_source_code(text, "echo")
client.register_function(one)
client.get_function(echo)
batch = client.create_batch(
    user_endpoint_config={"profile": "control"},
    result_serializers=["globus_compute_sdk.serialize.JSONData"],
)
batch.add(echo, args=(5,))
(task,) = client.batch_run(endpoint, batch)["tasks"][echo]
while client.get_task(task)["pending"]:
    time.sleep(0.05)
assert client.get_result(task) == 5
assert client.get_batch_result([task])[task]["result"] == 5
assert client.run(7, endpoint_id=endpoint, function_id=echo)
client.get_endpoints()
client.get_endpoint_status(endpoint)
client.get_endpoint_metadata(endpoint)
client.get_allowed_functions(endpoint)
client.get_result_amqp_url()
mine = client.register_endpoint("calls", None, metadata={}, multi_user=True)["endpoint_id"]
client.delete_endpoint(mine)
client.delete_function(echo)

serializer = ComputeSerializer(strategy_code=AllCodeStrategies(), strategy_data=JSONData())
with Executor(
    endpoint, serializer=serializer, result_serializers=[JSONData()], api_burst_limit=8,
    user_endpoint_config={"profile": "control"}, api_burst_window_s=1,
) as pool:
    name = pool.register_source_code(text, "echo")
    assert pool.submit_to_registered_function(name, args=(3,)).result(60) == 3
    pool.register_function(one)
    pool.user_endpoint_config = {}  # the profile for what people write themselves
    assert pool.submit(one).result(60) == 1
    group = pool.task_group_id
with Executor(endpoint, task_group_id=group, api_burst_limit=8, api_burst_window_s=1) as pool:
    assert sorted(future.result(60) for future in pool.reload_tasks()) == [1, 3]
print(json.dumps({name: sorted(calls) for name, calls in made.items()}))
"""


def test_every_call_of_the_compute_sdk_passes(local_globus: LocalGlobus, tmp_path: Path) -> None:
    record = local_globus.home.running()
    assert record is not None
    if record.compute_port is None:
        pytest.skip("port 5000, the only one this SDK knows, is taken on this machine")
    made = json.loads(run_client(local_globus.environment, COMPUTE_SDK, tmp_path))
    for client, calls in claimed("globus_compute_sdk").items():
        assert set(calls) <= set(made[client])
