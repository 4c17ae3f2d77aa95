"""Requests and answers as the hosted service has them, compared with the SDK's own fixtures."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
import uuid
from typing import Any

import pytest
from flow_testing import (
    COMPUTE,
    PASS,
    FlowsServer,
    ScriptedProvider,
    action,
    identity,
    known_answer,
    one_state,
    refusal,
)
from globus_sdk import FlowsAPIError
from globus_sdk.testing.data.flows import (
    _common,
    cancel_run,
    delete_flow,
    delete_run,
    get_run_definition,
    get_run_logs,
    validate_run,
)

SCHEMA = {
    "type": "object",
    "properties": {"bool": {"type": "boolean"}, "when": {"type": "string", "format": "globus-x"}},
    "required": ["bool"],
}


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
    "subscription": ({"subscription_id": "ours"}, ["subscription_id"]),
    "policy": ({"authentication_policy_id": 5}, ["authentication_policy_id"]),
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


# --- runs -----------------------------------------------------------------------------------------


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
    assert document["error"] == known_answer(validate_run, "invalid_token")["error"]


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


def test_no_apis_are_registered(server: FlowsServer) -> None:
    assert list(server.client().paginated.list_registered_apis().items()) == []
