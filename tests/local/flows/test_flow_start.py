"""What a run may be started with, and what is refused in the hosted service's words."""

from __future__ import annotations

from typing import Any

import pytest
from flow_testing import PASS, FlowsServer, identity, known_answer, refusal
from globus_sdk import FlowsAPIError
from globus_sdk.testing.data.flows import (
    validate_run,
)

SCHEMA = {
    "type": "object",
    "properties": {"bool": {"type": "boolean"}, "when": {"type": "string", "format": "globus-x"}},
    "required": ["bool"],
}


def test_input_outside_the_schema_is_refused_in_the_services_words(server: FlowsServer) -> None:
    flow = server.flow_client(server.flow(PASS, SCHEMA))
    assert (
        flow.validate_run({"bool": True}).data == validate_run.VALIDATE_RUN_SIMPLE_SUCCESS_RESPONSE
    )
    for call in (flow.validate_run, flow.run_flow):
        with pytest.raises(FlowsAPIError) as error:
            call({"bool": "not-a-boolean"})
        assert error.value.http_status == 400
        expected = known_answer(validate_run, "invalid_input_payload")
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
    # Blanks between values count as little as they do later on.
    assert flow.validate_run({"a": [1] * 90_000}).http_status == 200


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
