"""What the service refuses about a definition, as it says it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from flow_testing import COMPUTE, FlowsServer, action, one_state
from globus_sdk import FlowsAPIError
from globus_sdk.testing.data.flows import validate_flow as fixture


def test_every_problem_is_told_at_once(server: FlowsServer) -> None:
    definition = one_state({"Type": "Pass"}, Island={"Type": "Succeed"})
    with pytest.raises(FlowsAPIError) as refusal:
        server.client().validate_flow(definition)
    assert len(refusal.value.raw_json["error"]["detail"]) == 3  # type: ignore[index]
    assert refusal.value.raw_json["error"]["message"].startswith(
        "3 validation errors in body. $.definition"
    )  # type: ignore[index]


def test_the_services_own_example_is_answered_word_for_word(server: FlowsServer) -> None:
    answer = server.client().validate_flow(copy.deepcopy(fixture.VALIDATE_SIMPLE_FLOW_DEFINITION))
    assert answer.data == fixture.VALIDATE_SIMPLE_SUCCESS_RESPONSE
    with pytest.raises(FlowsAPIError) as refusal:
        server.client().validate_flow(copy.deepcopy(fixture.VALIDATE_INVALID_FLOW_DEFINITION))
    assert refusal.value.http_status == 422
    assert refusal.value.raw_json is not None
    assert refusal.value.raw_json["error"] == fixture.VALIDATE_INVALID_RESPONSE["error"]
    assert set(refusal.value.raw_json) == set(fixture.VALIDATE_INVALID_RESPONSE)


@pytest.mark.parametrize(
    "url",
    [COMPUTE, COMPUTE + "/", "https://Compute.Actions.GLOBUS.org/v3"],
)
def test_a_provider_is_known_by_any_spelling_of_its_address(server: FlowsServer, url: str) -> None:
    assert server.client().validate_flow(one_state(action(url)))["scopes"]["User"]


def test_an_unknown_provider_needs_a_scope_of_its_own(server: FlowsServer) -> None:
    unknown = action("https://example.org/provider")
    with pytest.raises(FlowsAPIError) as refusal:
        server.client().validate_flow(one_state(unknown))
    assert "https://example.org/provider" in refusal.value.messages[0]
    assert COMPUTE in refusal.value.messages[0]
    answer = server.client().validate_flow(
        one_state({**unknown, "ActionScope": "my-scope", "RunAs": "Flow"})
    )
    assert answer["scopes"] == {"User": [], "Flow": ["my-scope"]}


@pytest.mark.parametrize(
    "handler",
    [
        {"Type": "RegisteredAPI", "Id": "7a2b8f0e-0000-4000-8000-000000000001"},
        "urn:globus:flows:handle:globus:GROUPS.CREATE_GROUP",
    ],
)
def test_a_handler_that_the_language_knows_and_the_local_globus_does_not(
    server: FlowsServer, handler: Any
) -> None:
    state = action(Handler=handler)
    del state["ActionUrl"]
    with pytest.raises(FlowsAPIError) as refusal:
        server.client().validate_flow(one_state(state))
    assert refusal.value.http_status == 422
    assert "ActionProvider" in refusal.value.messages[0]
