"""Tokens, their scopes, the roles that actions run in, and what people would be told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import globus_sdk
import pytest
from flow_testing import (
    COMPUTE,
    FlowsServer,
    ScriptedProvider,
    action,
    identity,
    one_state,
    serving,
)
from globus_sdk import FlowsAPIError, FlowsClient, SpecificFlowClient
from globus_sdk.testing.data.flows import run_flow as fixture

PASS = one_state({"Type": "Pass", "End": True})
SCOPES = FlowsClient.scopes


def refusal_of(call: Any, *arguments: Any, **named: Any) -> FlowsAPIError:
    with pytest.raises(FlowsAPIError) as refusal:
        call(*arguments, **named)
    return refusal.value


# --- scopes ---------------------------------------------------------------------------------------


def token(*scopes: Any) -> str:
    return "alice;" + " ".join(map(str, scopes))


def test_a_token_without_the_flows_scope_cannot_start_it(server: FlowsServer) -> None:
    flow_id = server.flow(PASS)
    refusal = refusal_of(server.flow_client(flow_id, token(SCOPES.all)).run_flow, {})
    assert (refusal.http_status, refusal.code) == (403, "MISSING_SCOPE")
    expected = fixture.RESPONSES.lookup("missing_scope_error")
    assert set((refusal.raw_json or {})["error"]) == set((expected.json or {})["error"])
    user = SpecificFlowClient(flow_id, authorizer=globus_sdk.NullAuthorizer()).scopes.user
    assert str(user) in str(refusal.raw_json)
    run = server.flow_client(flow_id, token(user)).run_flow({})
    assert server.settled(run["run_id"])["status"] == "SUCCEEDED"


def test_another_flows_scope_does_not_start_this_one(server: FlowsServer) -> None:
    flow_id, other = server.flow(PASS), server.flow(PASS)
    user = SpecificFlowClient(other, authorizer=globus_sdk.NullAuthorizer()).scopes.user
    refusal = refusal_of(server.flow_client(flow_id, token(user)).run_flow, {})
    assert refusal.code == "MISSING_SCOPE"


def test_a_run_is_resumed_with_the_scope_of_its_own_flow(
    server: FlowsServer, compute: ScriptedProvider
) -> None:
    compute.script = lambda body: ("INACTIVE", {"description": "x"})
    run = server.run(one_state(action()))

    def resume(of_flow: str) -> Any:
        user = SpecificFlowClient(of_flow, authorizer=globus_sdk.NullAuthorizer()).scopes.user
        return server.flow_client(run["flow_id"], token(user)).resume_run(run["run_id"])

    assert refusal_of(resume, server.flow(PASS)).code == "MISSING_SCOPE"
    assert resume(run["flow_id"])["status"] == "ACTIVE"


@pytest.mark.parametrize(
    ("scope", "may_list", "may_create", "may_see_runs"),
    [
        (SCOPES.all, True, True, True),
        (SCOPES.manage_flows, True, True, False),
        (SCOPES.view_flows, True, False, False),
        (SCOPES.run_status, False, False, True),
        ("urn:globus:auth:scope:transfer.api.globus.org:all", False, False, False),
    ],
)
def test_each_scope_allows_its_own(
    server: FlowsServer, scope: Any, may_list: bool, may_create: bool, may_see_runs: bool
) -> None:
    client = server.client(token(scope))

    def allowed(call: Any, *arguments: Any) -> bool:
        try:
            call(*arguments)
        except FlowsAPIError as refusal:
            if refusal.code == "MISSING_SCOPE":
                return False
            raise
        return True

    assert allowed(client.list_flows) is may_list
    assert allowed(client.create_flow, "T", PASS, {}) is may_create
    assert allowed(client.list_runs) is may_see_runs


# --- roles of actions -----------------------------------------------------------------------------


def as_curator() -> dict[str, Any]:
    return one_state(action(RunAs="Curator"))


def known(text: str) -> Any:
    return identity(text) if text in ("carol", "bob") else None


def test_an_action_runs_as_whose_token_the_input_brings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = ScriptedProvider()
    with serving(tmp_path / "state.db", {COMPUTE: provider}, identify=known) as server:
        monkeypatch.setenv("GLOBUS_SDK_SERVICE_URL_FLOWS", server.url)
        schema = {"type": "object", "additionalProperties": False, "properties": {}}
        flow_id = server.flow(as_curator(), schema)
        body = {"_tokens": {"Curator": "carol"}}
        run = server.settled(server.flow_client(flow_id).run_flow(body)["run_id"])
        assert run["status"] == "SUCCEEDED", run["details"]
        (request,) = provider.requests
        assert request.identity == identity("carol")
        assert "carol" not in str(server.log(run["run_id"])[0])
        assert "_tokens" not in run["details"]["output"]


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ({}, "no token for the role 'Curator'"),
        ({"Other": "carol"}, "no token for the role 'Curator'"),
        ({"Curator": "mallory"}, "expired or invalid"),
    ],
)
def test_an_action_without_a_valid_token_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokens: dict[str, str], words: str
) -> None:
    provider = ScriptedProvider()
    with serving(tmp_path / "state.db", {COMPUTE: provider}, identify=known) as server:
        monkeypatch.setenv("GLOBUS_SDK_SERVICE_URL_FLOWS", server.url)
        run = server.run(as_curator(), {"_tokens": tokens})
        assert run["details"]["error"] == "NoTokenException"
        assert words in run["details"]["cause"]
        assert provider.requests == []


def test_tokens_that_are_none_are_refused(server: FlowsServer) -> None:
    refusal = refusal_of(server.begin, as_curator(), {"_tokens": ["carol"]})
    assert refusal.http_status == 422


# --- notifications --------------------------------------------------------------------------------


def told(server: FlowsServer, run_id: str, name: str = "alice") -> list[str]:
    answer = server.client(name).get("/local/notifications")
    return [item["status"] for item in answer["notifications"] if item["run_id"] == run_id]


def started(server: FlowsServer, definition: Any, policy: Any) -> str:
    client = server.flow_client(server.flow(definition))
    run_id = str(client.run_flow({}, label="L", activity_notification_policy=policy)["run_id"])
    server.settled(run_id)
    return run_id


FAIL = one_state({"Type": "Fail"})


@pytest.mark.parametrize(
    ("definition", "policy", "statuses"),
    [
        (PASS, {"status": ["SUCCEEDED"]}, ["SUCCEEDED"]),
        (PASS, {"status": ["FAILED"]}, []),
        (FAIL, {"status": ["FAILED", "SUCCEEDED"]}, ["FAILED"]),
        (PASS, globus_sdk.MISSING, []),
    ],
)
def test_the_owner_is_told_what_was_asked_for(
    server: FlowsServer, definition: Any, policy: Any, statuses: list[str]
) -> None:
    run_id = started(server, definition, policy)
    assert told(server, run_id) == statuses
    assert told(server, run_id, "bob") == []


def test_a_run_that_needs_its_owner_tells_by_default(
    server: FlowsServer, compute: ScriptedProvider
) -> None:
    compute.script = lambda body: ("INACTIVE", {"code": "ConsentRequired", "description": "x"})
    run_id = server.begin(one_state(action()))
    assert server.settled(run_id)["status"] == "INACTIVE"
    assert told(server, run_id) == ["INACTIVE"]


@pytest.mark.parametrize(
    ("policy", "place"),
    [
        ({"status": ["ENDED"]}, ["activity_notification_policy", "status", 0]),
        ({"status": "FAILED"}, ["activity_notification_policy", "status"]),
        ({"statuses": []}, ["activity_notification_policy", "statuses"]),
    ],
)
def test_a_bad_policy_is_refused_naming_the_place(
    server: FlowsServer, policy: Any, place: list[Any]
) -> None:
    client = server.flow_client(server.flow(PASS))
    refusal = refusal_of(client.run_flow, {}, activity_notification_policy=policy)
    assert refusal.http_status == 422
    assert (refusal.raw_json or {})["error"]["detail"][0]["loc"] == place
