"""Requests and answers as the hosted service has them, compared with the SDK's own fixtures."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid
from typing import Any

import pytest
from flow_testing import COMPUTE, FlowsServer, ScriptedProvider, action, identity, one_state
from globus_sdk import FlowsAPIError
from globus_sdk.testing.data.flows import (
    _common,
    cancel_run,
    delete_flow,
    delete_run,
    get_run_definition,
    get_run_logs,
    list_flows,
    list_runs,
    validate_run,
)

PASS = one_state({"Type": "Pass", "End": True})
SCHEMA = {
    "type": "object",
    "properties": {"bool": {"type": "boolean"}, "when": {"type": "string", "format": "globus-x"}},
    "required": ["bool"],
}


@pytest.fixture
def me() -> str:
    """A name that no other test uses, so that lists hold only what this test made."""
    return f"user-{uuid.uuid4()}"


def refusal(error: pytest.ExceptionInfo[FlowsAPIError]) -> dict[str, Any]:
    assert error.value.raw_json is not None
    return dict(error.value.raw_json)


def fixture(module: Any, name: str) -> dict[str, Any]:
    """The answer of the hosted service as the SDK has kept it."""
    return dict(module.RESPONSES.lookup(name).json)


# --- shapes ---------------------------------------------------------------------------------------

FLOW_KEYS = set(_common.TWO_HOP_TRANSFER_FLOW_DOC)
RUN_KEYS = set(_common.RUN)


def test_flow_document_has_every_key_of_the_service(server: FlowsServer) -> None:
    created = server.client().create_flow(
        "T", PASS, {}, keywords=["k"], description="D", subtitle="S"
    )
    assert set(created.data) >= FLOW_KEYS
    assert created.data == server.client().get_flow(created["id"]).data
    flow_id = created["id"]
    suffix = f"flow_{flow_id.replace('-', '_')}_user"
    assert created["globus_auth_scope"] == f"https://auth.globus.org/scopes/{flow_id}/{suffix}"
    assert created["globus_auth_scope"] == server.flow_client(flow_id).scopes.user.scope_string
    assert (created["user_role"], created["flow_owner"]) == ("flow_owner", identity("alice").urn)
    assert (created["title"], created["keywords"], created["api_version"]) == ("T", ["k"], "1.0")


def test_deleted_flow_is_shown_once_more_and_gone(server: FlowsServer) -> None:
    flow_id = server.flow(PASS)
    deleted = server.client().delete_flow(flow_id)
    assert set(delete_flow._DELETED_DOC) <= set(deleted.data)
    assert deleted["DELETED"] is True
    with pytest.raises(FlowsAPIError) as error:
        server.client().get_flow(flow_id)
    assert error.value.http_status == 404
    assert refusal(error)["error"] == {
        "code": "NOT_FOUND",
        "detail": f"No Flow exists with id value {flow_id}",
    }


def test_run_document_has_every_key_of_the_service(server: FlowsServer) -> None:
    run = server.run(PASS, {"a": 1})
    assert set(run) >= RUN_KEYS
    assert set(run["details"]) == set(_common.RUN_DETAILS)
    assert run["run_id"] == run["action_id"]
    plain = server.client().get_run(run["run_id"], include_flow_description=False)
    assert "flow_description" not in plain.data
    described = server.client().get_run(run["run_id"], include_flow_description=True)
    assert set(described["flow_description"]) >= set(_common.FLOW_DESCRIPTION)


def test_started_run_shows_its_input(server: FlowsServer, compute: ScriptedProvider) -> None:
    compute.script = lambda body: None
    wait = one_state({"Type": "Wait", "Seconds": 1000, "End": True})
    started = server.flow_client(server.flow(wait)).run_flow({"a": 1})
    expected = _common.TWO_HOP_TRANSFER_RUN["details"]
    assert started["status"] == "ACTIVE"
    assert started["details"] == {**expected, "details": {"input": {"a": 1}}}
    server.client().cancel_run(started["run_id"])


def test_cancelled_run_looks_like_the_services(server: FlowsServer) -> None:
    run_id = server.begin(one_state({"Type": "Wait", "Seconds": 1000, "End": True}))
    cancelled = server.client().cancel_run(run_id)
    expected = cancel_run.SUCCESS_RESPONSE
    assert {**cancelled["details"], "time": None} == {**expected["details"], "time": None}
    assert (cancelled["status"], cancelled["display_status"]) == ("FAILED", "FAILED")


def test_log_of_one_action_reads_as_the_services(
    server: FlowsServer, compute: ScriptedProvider
) -> None:
    compute.script = lambda body: {"Hello": "World", "hello": "sync!"}
    state = action(Parameters={"echo_string": "sync!"})
    del state["ResultPath"]
    definition = {"StartAt": "SyncHelloWorld", "States": {"SyncHelloWorld": state}}
    run = server.run(definition)
    page = server.client().get_run_logs(run["run_id"]).data
    expected = get_run_logs.RUN_LOGS_RESPONSE

    def shape(value: Any) -> Any:
        """Names and the kinds of values; times and ids differ."""
        if isinstance(value, dict):
            return {key: shape(item) for key, item in value.items() if key != "release_after"}
        return [shape(item) for item in value] if isinstance(value, list) else type(value)

    assert shape(page) == shape(expected)
    for entry, known in zip(page["entries"], expected["entries"], strict=True):
        assert (entry["code"], entry["description"]) == (known["code"], known["description"])


def test_run_definition_is_the_one_it_was_started_with(server: FlowsServer) -> None:
    flow_id = server.flow(PASS)
    run_id = server.flow_client(flow_id).run_flow({})["run_id"]
    server.client().update_flow(flow_id, definition=one_state({"Type": "Fail"}))
    answer = server.client().get_run_definition(run_id)
    assert set(answer.data) == set(get_run_definition.GET_RUN_DEFINITION)
    assert answer["definition"] == PASS
    assert server.settled(run_id)["status"] == "SUCCEEDED"


# --- flows ----------------------------------------------------------------------------------------


def test_update_changes_what_is_given_and_keeps_the_rest(server: FlowsServer) -> None:
    created = server.client().create_flow(
        "T", PASS, SCHEMA, keywords=["k"], flow_viewers=["public"]
    )
    updated = server.client().update_flow(created["id"], subtitle="new", keywords=[])
    changed = {"subtitle", "keywords", "updated_at"}
    assert {key for key in created.data if created[key] != updated[key]} == changed
    assert updated.data == server.client().get_flow(created["id"]).data


def test_update_with_a_bad_definition_changes_nothing(server: FlowsServer) -> None:
    created = server.client().create_flow("T", PASS, {})
    with pytest.raises(FlowsAPIError):
        server.client().update_flow(created["id"], title="new", definition={"States": {}})
    assert server.client().get_flow(created["id"]).data == created.data


BAD_FLOWS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "no title": ({"title": None}, ["title"]),
    "empty title": ({"title": " "}, ["title"]),
    "long title": ({"title": "x" * 129}, ["title"]),
    "long description": ({"description": "x" * 4097}, ["description"]),
    "keywords": ({"keywords": ["x" * 1025]}, ["keywords"]),
    "schema": ({"input_schema": {"type": "strange"}}, ["input_schema", "type"]),
    "schema that is none": ({"input_schema": []}, ["input_schema"]),
    "schema with a pattern that is none": (
        {"input_schema": {"properties": {"a": {"pattern": "("}}}},
        ["input_schema", "properties", "a", "pattern"],
    ),
    "viewer": ({"flow_viewers": ["all_authenticated_users"]}, ["flow_viewers", 0]),
    "definition": ({"definition": "x"}, ["definition"]),
}


@pytest.mark.parametrize(("fields", "place"), BAD_FLOWS.values(), ids=BAD_FLOWS.keys())
def test_a_bad_flow_is_refused_naming_the_field(
    server: FlowsServer, fields: dict[str, Any], place: list[Any]
) -> None:
    body = {"title": "T", "definition": PASS, "input_schema": {}, **fields}
    with pytest.raises(FlowsAPIError) as error:
        server.client().post("/flows", data=body)
    assert error.value.http_status == 422
    assert place in [problem["loc"] for problem in refusal(error)["error"]["detail"]]


def test_a_bad_principal_is_refused_in_the_services_words(server: FlowsServer) -> None:
    principal = "ae341a98-d274-11e5-b888-dbae3a8ba545"
    with pytest.raises(FlowsAPIError) as error:
        server.client().create_flow("T", PASS, {}, flow_administrators=[principal])
    assert refusal(error)["error"]["detail"] == [
        {
            "loc": ["flow_administrators", 0],
            "msg": f'Unrecognized principal string: "{principal}". Allowed principal types in role'
            ' "FlowAdministrator": [<AuthGroupUrn>, <AuthIdentityUrn>]',
            "type": "value_error",
        }
    ]


def test_flows_are_listed_in_pages_in_the_order_asked_for(server: FlowsServer, me: str) -> None:
    client = server.client(me)
    titles = [f"flow {number:02}" for number in range(25)]
    for title in titles:
        client.create_flow(title, PASS, {})
    first = client.list_flows(orderby="title ASC", filter_roles="flow_owner")
    assert set(fixture(list_flows, "default")) == set(first.data)
    assert (len(first["flows"]), first["limit"], first["has_next_page"]) == (20, 20, True)
    pages = client.paginated.list_flows(orderby=["title DESC", "id ASC"], filter_roles="flow_owner")
    assert [flow["title"] for flow in pages.items()] == titles[::-1]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"filter_fulltext": "with APPT"}, ["Build images"]),
        ({"filter_fulltext": "hpc"}, []),
        ({"filter_keywords": "hp"}, ["Build images"]),
        ({"filter_title": "images,files"}, ["Move files", "Build images"]),
        ({"filter_title": ["images", "files"]}, ["Move files", "Build images"]),
        ({"filter_subtitle": "sub"}, ["Move files"]),
        ({"filter_description": "nothing of that"}, []),
        ({"orderby": "title ASC,updated_at DESC"}, ["Build images", "Move files"]),
        ({"per_page": 1}, ["Move files"]),
        ({"per_page": 1, "page": 2}, ["Build images"]),
        ({"filter_roles": "flow_administrators"}, []),
    ],
    ids=str,
)
def test_flows_are_found_by_what_is_asked(
    server: FlowsServer, me: str, query: dict[str, Any], found: list[str]
) -> None:
    client = server.client(me)
    client.create_flow("Build images", PASS, {}, description="with Apptainer", keywords=["HPC"])
    client.create_flow("Move files", PASS, {}, subtitle="Subtitle")
    given = {"filter_roles": "flow_owner", **query}
    assert [flow["title"] for flow in client.list_flows(query_params=given)] == found


def test_a_flow_is_found_by_its_owner_and_id(server: FlowsServer, me: str) -> None:
    client = server.client(me)
    flow = client.create_flow("T", PASS, {})
    for text in (flow["id"], identity(me).urn, flow["id"].upper()[:13]):
        listed = client.list_flows(filter_fulltext=text, filter_roles="flow_owner")
        assert [found["id"] for found in listed] == [flow["id"]]


def test_a_marker_holds_the_query(server: FlowsServer, me: str) -> None:
    client = server.client(me)
    for number in range(5):
        client.create_flow(f"flow {number}", PASS, {})
    query = {"filter_roles": "flow_owner", "orderby": "title ASC", "per_page": 2}
    first = client.list_flows(query_params=query)
    second = client.list_flows(marker=first["marker"], filter_fulltext="nothing at all")
    assert [flow["title"] for flow in second] == ["flow 2", "flow 3"]


def test_runs_are_found_by_what_is_asked(server: FlowsServer, me: str) -> None:
    client = server.client(me)
    flow_id = client.create_flow(f"A flow of {me}", PASS, {})["id"]
    rest = one_state({"Type": "Wait", "Seconds": 86_400, "End": True})
    resting = client.create_flow("Rests", rest, {})["id"]
    runs = []
    for flow, label in ((flow_id, "Beta"), (flow_id, "alpha"), (resting, "Gamma")):
        runs.append(server.flow_client(flow, me).run_flow({}, label=label)["run_id"])
    begin = client.get_run(runs[1])["start_time"]
    for run_id in runs[:2]:
        while client.get_run(run_id)["status"] == "ACTIVE":
            pass

    def found(**query: Any) -> list[str]:
        listed = client.list_runs(query_params={"filter_roles": "run_owner", **query})
        return [run["label"] for run in listed]

    assert found() == ["Gamma", "alpha", "Beta"]
    assert found(filter_status="ACTIVE") == ["Gamma"]
    assert found(filter_status="SUCCEEDED,FAILED") == ["alpha", "Beta"]
    assert found(filter_label="ALPH,bet") == ["alpha", "Beta"]
    assert found(filter_flow_title=me.upper()) == ["alpha", "Beta"]
    assert found(orderby="label ASC") == ["alpha", "Beta", "Gamma"]
    assert found(orderby="status DESC,label DESC") == ["Beta", "alpha", "Gamma"]
    assert found(filter_start_time=begin) == ["Gamma", "alpha"]
    assert found(filter_start_time=f",{begin}") == ["Beta"]
    assert found(filter_completion_time="2020-01-01,") == ["alpha", "Beta"]
    assert found(per_page=1, page=3) == ["Beta"]
    pages = []
    query = {"filter_roles": "run_owner", "orderby": "label DESC", "per_page": 2}
    page = client.list_runs(query_params=query)
    pages.append([run["label"] for run in page])
    pages.append([run["label"] for run in client.list_runs(marker=page["marker"])])
    assert pages == [["Gamma", "Beta"], ["alpha"]]
    server.client(me).cancel_run(runs[2])


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"orderby": "owner ASC"}, "orderby"),
        ({"orderby": "label UP"}, "orderby"),
        ({"filter_status": "DONE"}, "filter_status"),
        ({"filter_start_time": "yesterday"}, "filter_start_time"),
        ({"page": 0}, "page"),
        ({"per_page": 1000}, "per_page"),
        ({"marker": "x"}, "marker"),
    ],
)
def test_a_list_that_cannot_be_made_names_the_parameter(
    server: FlowsServer, query: dict[str, Any], field: str
) -> None:
    server.begin(PASS)
    with pytest.raises(FlowsAPIError) as error:
        server.client().list_runs(query_params=query)
    assert refusal(error)["error"]["detail"][0]["loc"] == [field]


# --- starting -------------------------------------------------------------------------------------


def test_input_outside_the_schema_is_refused_in_the_services_words(server: FlowsServer) -> None:
    flow = server.flow_client(server.flow(PASS, SCHEMA))
    assert (
        flow.validate_run({"bool": True}).data == validate_run.VALIDATE_RUN_SIMPLE_SUCCESS_RESPONSE
    )
    for call in (flow.validate_run, flow.run_flow):
        with pytest.raises(FlowsAPIError) as error:
            call({"bool": "not-a-boolean"})
        assert error.value.http_status == 400
        expected = fixture(validate_run, "invalid_input_payload")
        assert refusal(error)["error"] == expected["error"]


def test_every_fault_of_the_input_is_told(server: FlowsServer) -> None:
    flow = server.flow_client(server.flow(PASS, SCHEMA))
    with pytest.raises(FlowsAPIError) as error:
        flow.run_flow({"when": 3})
    detail = refusal(error)["error"]["detail"]
    assert [problem["loc"] for problem in detail] == [["$"], ["$.when"]]


def test_unknown_formats_and_local_references_are_fine(server: FlowsServer) -> None:
    schema = {
        "definitions": {"name": {"type": "string", "format": "globus-collection"}},
        "properties": {"a": {"$ref": "#/definitions/name"}},
    }
    flow = server.flow_client(server.flow(PASS, schema))
    assert flow.validate_run({"a": "x"}).http_status == 200
    with pytest.raises(FlowsAPIError):
        flow.validate_run({"a": 1})


def test_a_schema_elsewhere_is_never_fetched(server: FlowsServer) -> None:
    flow = server.flow_client(server.flow(PASS, {"$ref": f"{server.url}/schema.json"}))
    with pytest.raises(FlowsAPIError) as error:
        flow.run_flow({})
    assert error.value.http_status == 400
    assert "does not hold" in refusal(error)["error"]["detail"][0]["msg"]


def test_a_schema_that_refers_to_itself_without_end_is_told(server: FlowsServer) -> None:
    flow = server.flow_client(server.flow(PASS, {"$ref": "#"}))
    with pytest.raises(FlowsAPIError) as error:
        flow.run_flow({})
    assert error.value.http_status == 400
    assert "refers to itself" in refusal(error)["error"]["detail"][0]["msg"]


def test_an_input_beyond_200_kb_is_refused(server: FlowsServer) -> None:
    flow = server.flow_client(server.flow(PASS))
    with pytest.raises(FlowsAPIError) as error:
        flow.run_flow({"a": "x" * 200_000})
    assert (error.value.http_status, error.value.code) == (400, "FLOW_INPUT_ERROR")


def test_label_tags_and_roles_of_a_run(server: FlowsServer) -> None:
    other = identity("other").urn
    flow = server.flow_client(server.flow(PASS))
    started = flow.run_flow(
        {},
        label="L",
        tags=["  a \n b "],
        run_monitors=[other],
        activity_notification_policy={"status": ["FAILED"]},
    )
    assert (started["label"], started["tags"], started["run_monitors"]) == ("L", ["a b"], [other])
    updated = server.client().update_run(started["run_id"], label="M", tags=["c"])
    assert (updated["label"], updated["tags"], updated["run_monitors"]) == ("M", ["c"], [other])
    assert server.client().get_run(started["run_id"])["label"] == "M"


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({}, ["body"]),
        ({"body": []}, ["body"]),
        ({"body": {}, "label": 1}, ["label"]),
        ({"body": {}, "tags": "a"}, ["tags"]),
        ({"body": {}, "run_managers": ["public"]}, ["run_managers", 0]),
    ],
)
def test_a_bad_start_is_refused_naming_the_field(
    server: FlowsServer, fields: dict[str, Any], place: list[Any]
) -> None:
    with pytest.raises(FlowsAPIError) as error:
        server.client().post(f"/flows/{server.flow(PASS)}/run", data=fields)
    assert error.value.http_status == 422
    assert [problem["loc"] for problem in refusal(error)["error"]["detail"]] == [place]


# --- runs -----------------------------------------------------------------------------------------


def test_log_pages_in_both_orders(server: FlowsServer) -> None:
    states = {f"S{number}": {"Type": "Pass", "Next": f"S{number + 1}"} for number in range(9)}
    definition = {"StartAt": "S0", "States": {**states, "S9": {"Type": "Pass", "End": True}}}
    run_id = server.run(definition)["run_id"]
    client = server.client()
    first = client.get_run_logs(run_id)
    assert (len(first["entries"]), first["limit"], first["has_next_page"]) == (10, 10, True)
    forward = list(client.paginated.get_run_logs(run_id).items())
    backward = list(client.paginated.get_run_logs(run_id, limit=7, reverse_order=True).items())
    assert len(forward) == 22
    assert backward == forward[::-1]
    assert [entry["time"] for entry in forward] == sorted(entry["time"] for entry in forward)
    last = client.get_run_logs(run_id, limit=100)
    assert (last["has_next_page"], "marker" in last.data) == (False, False)


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 101}, {"limit": "x"}, {"marker": "x"}, {"marker": "YQ=="}]
)
def test_a_bad_page_is_refused(server: FlowsServer, query: dict[str, Any]) -> None:
    run_id = server.run(PASS)["run_id"]
    with pytest.raises(FlowsAPIError) as error:
        server.client().get_run_logs(run_id, query_params=query)
    assert error.value.http_status == 422


def test_runs_are_listed_newest_first_in_pages_and_by_flow(server: FlowsServer, me: str) -> None:
    client = server.client(me)
    one = client.create_flow("one", PASS, {})["id"]
    two = client.create_flow("two", PASS, {})["id"]
    started = [
        server.flow_client(flow_id, me).run_flow({})["run_id"] for flow_id in [one] * 22 + [two]
    ]
    first = client.list_runs()
    assert set(fixture(list_runs, "default")) == set(first.data)
    assert [run["run_id"] for run in client.paginated.list_runs().items()] == started[::-1]
    assert [run["run_id"] for run in client.list_runs(filter_flow_id=two)] == started[-1:]
    both = client.paginated.list_runs(filter_flow_id=[one, two], filter_roles="run_owner")
    assert len(list(both.items())) == 23
    assert list(client.list_runs(filter_roles="run_manager")) == []


def test_a_released_run_is_gone_and_an_active_one_stays(server: FlowsServer) -> None:
    run_id = server.begin(one_state({"Type": "Wait", "Seconds": 1000, "End": True}))
    with pytest.raises(FlowsAPIError) as error:
        server.client().delete_run(run_id)
    assert error.value.http_status == 409
    assert refusal(error)["error"]["code"] == delete_run.CONFLICT_RESPONSE["error"]["code"]  # type: ignore[index]
    assert f"Run {run_id} has status 'ACTIVE' but must have status" in error.value.text
    server.client().cancel_run(run_id)
    assert server.client().delete_run(run_id)["status"] == "FAILED"
    for call in (server.client().get_run, server.client().get_run_logs):
        with pytest.raises(FlowsAPIError) as error:
            call(run_id)
        assert error.value.http_status == 404


# --- who may do what ------------------------------------------------------------------------------


def test_a_flow_is_hidden_from_strangers(server: FlowsServer, me: str) -> None:
    flow_id = server.flow(PASS)
    run_id = server.flow_client(flow_id).run_flow({})["run_id"]
    stranger = server.client(me)
    for call in (
        lambda: stranger.get_flow(flow_id),
        lambda: stranger.update_flow(flow_id, title="mine"),
        lambda: server.flow_client(flow_id, me).run_flow({}),
        lambda: stranger.get_run(run_id),
        lambda: stranger.get_run_logs(run_id),
        lambda: stranger.cancel_run(run_id),
    ):
        with pytest.raises(FlowsAPIError) as error:
            call()
        assert error.value.http_status == 404
    assert list(stranger.list_runs()) == []
    assert flow_id not in [flow["id"] for flow in stranger.list_flows()]


def test_a_viewer_may_look_and_a_starter_may_start(server: FlowsServer) -> None:
    viewer, starter = identity("viewer").urn, identity("starter").urn
    created = server.client().create_flow(
        "T", PASS, {}, flow_viewers=[viewer], flow_starters=[starter]
    )
    flow_id = created["id"]
    seen = server.client("viewer").get_flow(flow_id)
    assert seen["user_role"] == "flow_viewer"
    assert (seen["flow_viewers"], seen["flow_starters"], seen["visible_to"]) == ([], [], [])
    assert server.client().get_flow(flow_id)["flow_viewers"] == [viewer]
    with pytest.raises(FlowsAPIError) as error:
        server.flow_client(flow_id, "viewer").run_flow({})
    assert error.value.http_status == 403
    assert refusal(error)["error"] == {
        "code": "FORBIDDEN",
        "detail": "You do not have the necessary permissions to perform this action on the flow with id value"
        f" {flow_id}. Missing permissions: RUN.",
    }
    run = server.flow_client(flow_id, "starter").run_flow({})
    assert run["run_owner"] == starter
    with pytest.raises(FlowsAPIError) as error:
        server.client("starter").delete_flow(flow_id)
    assert error.value.http_status == 403
    with pytest.raises(FlowsAPIError) as error:
        server.client().get_run(run["run_id"])
    assert error.value.http_status == 404


def test_a_monitor_may_look_at_a_run_and_a_manager_may_cancel_it(server: FlowsServer) -> None:
    flow_id = server.flow(one_state({"Type": "Wait", "Seconds": 1000, "End": True}))
    run_id = server.flow_client(flow_id).run_flow(
        {}, run_monitors=[identity("monitor").urn], run_managers=[identity("manager").urn]
    )["run_id"]
    seen = server.client("monitor").get_run(run_id)
    assert seen["user_role"] == "run_monitor"
    assert (seen["run_monitors"], seen["run_managers"]) == ([], [])
    assert server.client("manager").get_run(run_id)["run_monitors"] == [identity("monitor").urn]
    with pytest.raises(FlowsAPIError) as error:
        server.client("monitor").cancel_run(run_id)
    assert error.value.http_status == 403
    canceled = server.client("manager").cancel_run(run_id)
    assert (canceled.http_status, canceled["details"]["code"]) == (202, "FlowCanceled")


# --- requests that no SDK makes -------------------------------------------------------------------


def raw(
    server: FlowsServer, path: str, body: bytes, token: str | None = "alice"
) -> tuple[int, Any]:
    request = urllib.request.Request(server.url + path, data=body, method="POST")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"a": NaN}', b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_json_object(server: FlowsServer, body: bytes) -> None:
    status, document = raw(server, "/flows", body)
    assert status == 422
    assert document["error"]["code"] == "UNPROCESSABLE_ENTITY"
    assert uuid.UUID(document["debug_id"])


def test_a_body_without_end(server: FlowsServer) -> None:
    assert raw(server, "/flows", b" " * 3_000_000)[0] == 413


def test_without_a_token_nothing_is_answered(server: FlowsServer) -> None:
    status, document = raw(server, "/flows", b"{}", token=None)
    assert status == 401
    assert document["error"] == fixture(validate_run, "invalid_token")["error"]


def test_an_id_that_is_none(server: FlowsServer) -> None:
    with pytest.raises(FlowsAPIError) as error:
        server.client().get_run("not-an-id")
    assert error.value.http_status == 422
    assert refusal(error)["error"]["detail"][0]["loc"] == ["run_id"]


def test_flow_may_be_created_with_the_fixtures_own_parameters(server: FlowsServer) -> None:
    """With today's provider address, since the fixture's was retired."""
    definition = json.loads(
        json.dumps(_common.TWO_HOP_TRANSFER_FLOW_DEFINITION).replace(
            "https://actions.globus.org/transfer/transfer", COMPUTE
        )
    )
    known = _common.TWO_HOP_TRANSFER_FLOW_DOC
    fields = {
        name: known[name]
        for name in (
            "subtitle",
            "keywords",
            "flow_viewers",
            "flow_starters",
            "flow_administrators",
            "run_managers",
        )
    }
    created = server.client().create_flow(
        known["title"], definition, known["input_schema"], **fields
    )
    assert {name: created[name] for name in fields} == fields


def test_a_role_that_does_not_exist_cannot_be_filtered_for(server: FlowsServer) -> None:
    client = server.client()
    for call in (client.list_flows, client.list_runs, client.list_web_inputs):
        with pytest.raises(FlowsAPIError) as refusal:
            call(filter_roles="owner")  # type: ignore[operator]
        assert refusal.value.http_status == 422
        assert (refusal.value.raw_json or {})["error"]["detail"][0]["loc"] == ["filter_roles"]


@pytest.mark.parametrize(
    "role", ["run_owner", "run_manager", "run_monitor", "flow_run_manager", "flow_run_monitor"]
)
def test_every_role_of_the_sdk_can_be_filtered_for(server: FlowsServer, role: str) -> None:
    assert server.client("nobody").list_runs(filter_roles=role)["runs"] == []


def test_no_apis_are_registered(server: FlowsServer) -> None:
    assert list(server.client().paginated.list_registered_apis().items()) == []
