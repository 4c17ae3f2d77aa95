"""What runs do, seen through the unmodified SDK clients."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest
from flow_testing import (
    COMPUTE,
    TRANSFER,
    FlowsServer,
    ScriptedProvider,
    action,
    identity,
    one_state,
    refused,
)
from globus_sdk import FlowsAPIError

from cib_flows.local import clock

PASS = {"Type": "Pass", "End": True}
FAILED = ("FAILED", {"description": "no room left"})


def codes(server: FlowsServer, run: dict[str, Any]) -> list[str]:
    return [entry["code"] for entry in server.log(run["run_id"])]


def warnings(server: FlowsServer, run: dict[str, Any]) -> list[str]:
    entries = server.log(run["run_id"])
    return [text for entry in entries for text in entry["details"].get("warnings", [])]


# --- states ---------------------------------------------------------------------------------------


def test_pass_without_a_result_path_replaces_the_document(server: FlowsServer) -> None:
    run = server.run(one_state({**PASS, "Parameters": {"b.$": "$.a"}}), {"a": 1, "z": 2})
    assert run["details"]["output"] == {"b": 1}


@pytest.mark.parametrize(
    ("fields", "output"),
    [
        ({"ResultPath": "$.copy"}, {"a": {"b": 1}, "copy": {"a": {"b": 1}}}),
        ({"InputPath": "$.a"}, {"b": 1}),
        ({"InputPath": "$.a", "ResultPath": "$.c"}, {"a": {"b": 1}, "c": {"b": 1}}),
        ({"Result": {"x": 1}, "ResultPath": "$.a.r"}, {"a": {"b": 1, "r": {"x": 1}}}),
    ],
)
def test_pass(server: FlowsServer, fields: dict[str, Any], output: Any) -> None:
    run = server.run(one_state({**PASS, **fields}), {"a": {"b": 1}})
    assert run["details"]["output"] == output
    assert codes(server, run) == ["FlowStarted", "PassStarted", "PassCompleted", "FlowSucceeded"]
    assert bool(warnings(server, run)) == (fields.keys() == {"InputPath", "ResultPath"})


def test_pass_with_two_sources_says_which_one_counted(server: FlowsServer) -> None:
    run = server.run(one_state({**PASS, "Parameters": {"b": 1}, "InputPath": "$.a"}), {"a": {}})
    assert run["details"]["output"] == {"b": 1}
    assert "Parameters was taken" in warnings(server, run)[0]


def test_expression_eval_and_context(server: FlowsServer) -> None:
    state = {
        "Type": "ExpressionEval",
        "Parameters": {"name.=": "_context.username + '/' + a", "run.$": "$._context.run_id"},
        "ResultPath": "$.made",
        "End": True,
    }
    run = server.run(one_state(state), {"a": "x"})
    assert run["details"]["output"] == {
        "a": "x",
        "made": {"name": "alice@example.org/x", "run": run["run_id"]},
    }


def test_the_context_is_complete_and_not_part_of_the_document(server: FlowsServer) -> None:
    run = server.run(
        one_state({**PASS, "Parameters": {"c.$": "$._context", "all.$": "$"}}), {"a": 1}
    )
    context = run["details"]["output"]["c"]
    assert run["details"]["output"]["all"] == {"a": 1}
    assert context["flow_id"] == run["flow_id"]
    assert context["user_id"] == identity("alice").urn
    assert context["identities"] == [identity("alice").urn]
    assert context["email"] == "alice@mail.example.org"
    assert set(context["token_info"]) == {"exp", "iat", "nbf"}


def test_choice_loops_until_its_rule_holds(server: FlowsServer) -> None:
    definition = {
        "StartAt": "Add",
        "States": {
            "Add": {
                "Type": "ExpressionEval",
                "Parameters": {"n.=": "n + 1"},
                "ResultPath": "$",
                "Next": "Enough",
            },
            "Enough": {
                "Type": "Choice",
                "Choices": [{"Variable": "$.n", "NumericGreaterThanEquals": 3, "Next": "Done"}],
                "Default": "Add",
            },
            "Done": PASS,
        },
    }
    run = server.run(definition, {"n": 0})
    assert run["details"]["output"] == {"n": 3}
    assert server.states(run["run_id"]) == ["Add", "Enough"] * 3 + ["Done"]


def test_choice_without_a_match_fails_the_run(server: FlowsServer) -> None:
    state = {"Type": "Choice", "Choices": [{"Variable": "$.a", "NumericEquals": 2, "Next": "Then"}]}
    run = server.run(one_state(state, Then=PASS), {"a": 1})
    assert run["status"] == "FAILED"
    assert run["details"]["error"] == "States.NoChoiceMatched"
    assert run["details"]["state_name"] == "Only"


def test_choice_on_something_missing_warns(server: FlowsServer) -> None:
    rule = {"Variable": "$.a", "NumericEquals": 2, "Next": "Then"}
    run = server.run(one_state({"Type": "Choice", "Choices": [rule], "Default": "Then"}, Then=PASS))
    assert "$.a matches nothing" in warnings(server, run)[0]


@pytest.mark.parametrize(
    "fields",
    [
        {"Seconds": 0},
        {"SecondsPath": "$.seconds"},
        {"Timestamp": "2020-01-01T00:00:00Z"},
        {"TimestampPath": "$.time"},
    ],
)
def test_wait(server: FlowsServer, fields: dict[str, Any]) -> None:
    body = {"seconds": 0.01, "time": "2020-01-01T00:00:00+02:00"}
    run = server.run(one_state({"Type": "Wait", **fields, "End": True}), body)
    assert run["status"] == "SUCCEEDED"
    assert codes(server, run) == ["FlowStarted", "WaitStarted", "WaitCompleted", "FlowSucceeded"]


def test_a_wait_ends_by_the_clock_on_the_wall(
    server: FlowsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a machine has slept."""
    monkeypatch.setattr(clock, "LOOK_AGAIN", 0.01)
    run_id = server.begin(one_state({"Type": "Wait", "Seconds": 3600, "End": True}))
    assert server.client().get_run(run_id)["status"] == "ACTIVE"
    later = time.time() + 3601
    monkeypatch.setattr(clock, "time", SimpleNamespace(time=lambda: later))
    assert server.settled(run_id)["status"] == "SUCCEEDED"


@pytest.mark.parametrize("seconds", ["soon", -1, None, True])
def test_wait_for_something_that_is_no_time(server: FlowsServer, seconds: Any) -> None:
    run = server.run(one_state({"Type": "Wait", "SecondsPath": "$.s", "End": True}), {"s": seconds})
    assert run["status"] == "FAILED"
    assert "SecondsPath must give a number of seconds" in run["details"]["cause"]


@pytest.mark.parametrize(
    ("fields", "error", "cause"),
    [
        ({"Error": "Broken", "Cause": "It broke."}, "Broken", "It broke."),
        ({"ErrorPath": "$.e", "CausePath": "$.c"}, "Named", "Told."),
        ({"Error": "Broken", "CausePath": "$.o"}, "Broken", '{"deep": 1}'),
        (
            {"Error": "Broken", "CausePath": "$.z"},
            "Broken",
            "The path $.z matches nothing in the run's document.",
        ),
    ],
)
def test_fail(server: FlowsServer, fields: dict[str, Any], error: str, cause: str) -> None:
    body = {"e": "Named", "c": "Told.", "o": {"deep": 1}}
    run = server.run(one_state({"Type": "Fail", **fields}), body)
    assert (run["status"], run["display_status"]) == ("FAILED", "FAILED")
    assert run["details"] == {
        "code": "FlowFailed",
        "description": cause,
        "error": error,
        "cause": cause,
        "state_name": "Only",
    }
    assert run["completion_time"] is not None
    last = server.log(run["run_id"])[-1]
    assert last["code"] == "FlowFailed"
    assert last["details"]["cause"] == cause


# --- actions --------------------------------------------------------------------------------------


def test_the_whole_status_document_is_the_result(server: FlowsServer) -> None:
    run = server.run(one_state(action(Parameters={"x.$": "$.a"})), {"a": 5})
    result = run["details"]["output"]["result"]
    assert result["details"] == {"x": 5}
    assert set(result) == {
        *("action_id", "status", "display_status", "details", "creator_id", "label", "manage_by"),
        *("monitor_by", "start_time", "completion_time", "release_after", "state_name"),
    }
    assert result["state_name"] == "Only"
    assert result["creator_id"] == identity("alice").urn


def test_each_action_goes_to_its_own_provider(
    server: FlowsServer, compute: ScriptedProvider, transfer: ScriptedProvider
) -> None:
    definition = one_state(action(Next="Then"), Then=action(TRANSFER, InputPath="$.a"))
    del definition["States"]["Then"]["Parameters"]
    server.run(definition, {"a": {"DATA": []}})
    assert len(compute.requests) == 1
    assert [request.body for request in transfer.requests] == [{"DATA": []}]


def test_an_action_that_takes_its_time(server: FlowsServer, compute: ScriptedProvider) -> None:
    compute.script = lambda body: None
    run_id = server.begin(one_state(action()))
    assert compute.begun.wait(10)
    active = server.client().get_run(run_id)
    assert (active["status"], active["completion_time"]) == ("ACTIVE", None)
    assert active["details"]["code"] == "ActionStarted"
    compute.finish("action-0", details={"answer": 1})
    assert server.settled(run_id)["details"]["output"]["result"]["details"] == {"answer": 1}


def test_a_failed_action_fails_the_run_and_says_why(
    server: FlowsServer, compute: ScriptedProvider
) -> None:
    compute.script = lambda body: FAILED
    run = server.run(one_state(action()))
    assert run["status"] == "FAILED"
    assert run["details"]["error"] == "ActionFailedException"
    assert (
        run["details"]["description"]
        == "State Only failed with ActionFailedException: no room left"
    )
    assert run["details"]["cause"]["status"] == "FAILED"
    assert codes(server, run) == ["FlowStarted", "ActionStarted", "ActionFailed", "FlowFailed"]


def test_a_failed_action_may_be_accepted(server: FlowsServer, compute: ScriptedProvider) -> None:
    compute.script = lambda body: FAILED
    run = server.run(one_state(action(ExceptionOnActionFailure=False)))
    assert run["status"] == "SUCCEEDED"
    assert run["details"]["output"]["result"]["status"] == "FAILED"


def test_the_undocumented_default_of_the_failure_flag_is_warned_about(
    server: FlowsServer, compute: ScriptedProvider
) -> None:
    compute.script = lambda body: FAILED
    state = action()
    del state["ExceptionOnActionFailure"]
    run = server.run(one_state(state))
    assert run["status"] == "FAILED"
    assert "ExceptionOnActionFailure" in warnings(server, run)[0]


CATCHES: dict[str, tuple[Any, list[str], bool]] = {
    "refused": (refused("offline"), ["ActionUnableToRun"], True),
    "provider broke": (RuntimeError("offline"), ["ActionUnableToRun"], True),
    "failed": (FAILED, ["ActionFailedException"], True),
    "failed, two names": (FAILED, ["ActionTimeout", "ActionFailedException"], True),
    "any": (FAILED, ["States.ALL"], True),
    "any, as Gladier writes it": (refused("offline"), ["States.All"], True),
    "another name": (FAILED, ["ActionUnableToRun"], False),
}


@pytest.mark.parametrize(("answer", "names", "caught"), CATCHES.values(), ids=CATCHES.keys())
def test_catch(
    server: FlowsServer, compute: ScriptedProvider, answer: Any, names: list[str], caught: bool
) -> None:
    compute.script = lambda body: answer
    catcher = {"ErrorEquals": names, "Next": "Caught", "ResultPath": "$.error"}
    definition = one_state(action(Catch=[catcher], Next="Done"), Done=PASS, Caught=PASS)
    run = server.run(definition, {"kept": 1})
    assert server.states(run["run_id"]) == (["Only", "Caught"] if caught else ["Only"])
    assert run["status"] == ("SUCCEEDED" if caught else "FAILED")
    if caught:
        assert run["details"]["output"]["kept"] == 1
        text = json.dumps(run["details"]["output"]["error"])
        assert "offline" in text or "no room left" in text


def test_catch_without_a_result_path_replaces_the_document(
    server: FlowsServer, compute: ScriptedProvider
) -> None:
    compute.script = lambda body: FAILED
    catcher = {"ErrorEquals": ["States.ALL"], "Next": "Caught"}
    run = server.run(one_state(action(Catch=[catcher]), Caught=PASS), {"lost": 1})
    assert set(run["details"]["output"]) == {"Error", "Cause"}


def test_a_bad_parameter_can_be_caught_and_never_reaches_the_provider(
    server: FlowsServer, compute: ScriptedProvider
) -> None:
    catcher = {
        "ErrorEquals": ["States.ParameterPathFailure"],
        "Next": "Caught",
        "ResultPath": "$.e",
    }
    state = action(Parameters={"x.$": "$.missing"}, Catch=[catcher])
    run = server.run(one_state(state, Caught=PASS))
    assert "$.missing" in run["details"]["output"]["e"]["Cause"]
    assert compute.requests == []


def test_an_action_beyond_its_wait_time_is_left_alone(
    server: FlowsServer, compute: ScriptedProvider
) -> None:
    compute.script = lambda body: None
    catcher = {"ErrorEquals": ["ActionTimeout"], "Next": "Caught", "ResultPath": "$.e"}
    run = server.run(one_state(action(WaitTime=1, Catch=[catcher]), Caught=PASS))
    assert run["status"] == "SUCCEEDED"
    error = run["details"]["output"]["e"]
    assert error["Error"] == "ActionTimeout"
    assert (error["Cause"]["action_id"], error["Cause"]["status"]) == ("action-0", "ACTIVE")
    assert compute.cancelled == []


def test_an_unknown_provider_is_unable_to_run(server: FlowsServer) -> None:
    run = server.run(one_state(action("https://example.org/none", ActionScope="s")))
    assert run["details"]["error"] == "ActionUnableToRun"
    assert "https://example.org/none" in run["details"]["cause"]


def test_an_action_may_run_as_the_flow(server: FlowsServer, compute: ScriptedProvider) -> None:
    run = server.run(one_state(action(RunAs="Flow")))
    assert compute.requests[0].identity.id == run["flow_id"]


def test_expressions_in_an_actions_parameters_work_and_are_warned_about(
    server: FlowsServer, compute: ScriptedProvider
) -> None:
    run = server.run(one_state(action(Parameters={"x": [{"y.=": "1 + a"}]})), {"a": 1})
    assert compute.requests[0].body == {"x": [{"y": 2}]}
    assert "ExpressionEval is the safe place" in warnings(server, run)[0]


def test_an_inactive_action_rests_the_run_until_it_is_resumed(
    server: FlowsServer, compute: ScriptedProvider
) -> None:
    details = {"code": "ConsentRequired", "description": "consent", "required_scope": "s"}
    compute.script = lambda body: ("INACTIVE", details)
    run = server.run(one_state(action()))
    assert run["status"] == "INACTIVE"
    scope = server.client().get_flow(run["flow_id"])["globus_auth_scope"] + "[s]"
    assert run["details"] == {**details, "required_scope": scope, "state_name": "Only"}
    client = server.flow_client(run["flow_id"])
    client.resume_run(run["run_id"])
    assert server.settled(run["run_id"])["status"] == "INACTIVE"
    compute.finish("action-0", details={"done": True})
    client.resume_run(run["run_id"])
    assert server.settled(run["run_id"])["status"] == "SUCCEEDED"
    assert len(compute.requests) == 1


# --- limits and secrets ---------------------------------------------------------------------------


def test_a_document_beyond_200_kb_fails_the_run_whatever_is_caught(
    server: FlowsServer, compute: ScriptedProvider
) -> None:
    compute.script = lambda body: {"data": "x" * 200_000}
    catcher = {"ErrorEquals": ["States.ALL"], "Next": "Caught", "ResultPath": "$.e"}
    run = server.run(one_state(action(Catch=[catcher]), Caught=PASS))
    assert run["status"] == "FAILED"
    assert run["details"]["error"] == "States.DataLimitExceeded"
    assert "200000 are allowed" in run["details"]["cause"]


def test_the_limit_counts_bytes_of_utf_8(server: FlowsServer, compute: ScriptedProvider) -> None:
    compute.script = lambda body: {"data": "ü" * 99_000}
    assert server.run(one_state(action()))["status"] == "SUCCEEDED"
    compute.script = lambda body: {"data": "ü" * 100_000}
    assert server.run(one_state(action()))["status"] == "FAILED"


def test_private_values_reach_the_provider_and_nobody_else(
    server: FlowsServer, compute: ScriptedProvider
) -> None:
    compute.script = lambda body: {"ok": True}
    parameters = {"__Private_Parameters": ["password"], "password.$": "$._private_word", "open": 1}
    run = server.run(one_state(action(Parameters=parameters)), {"_private_word": "hunter2", "a": 1})
    assert compute.requests[0].body == {"password": "hunter2", "open": 1}
    shown = json.dumps([run, server.log(run["run_id"]), server.client().list_runs().data])
    assert "hunter2" not in shown
    assert run["details"]["output"]["a"] == 1


def test_half_a_surrogate_pair_is_only_text(server: FlowsServer) -> None:
    run = server.run(one_state(PASS), {"odd": "\ud800"})
    assert run["details"]["output"] == {"odd": "\ud800"}


# --- cancelling -----------------------------------------------------------------------------------


def test_cancel_ends_the_run_and_its_action(server: FlowsServer, compute: ScriptedProvider) -> None:
    compute.script = lambda body: None
    run_id = server.begin(one_state(action()))
    assert compute.begun.wait(10)
    run = server.client().cancel_run(run_id)
    assert (run["status"], run["details"]["code"]) == ("FAILED", "FlowCanceled")
    assert compute.cancelled == ["action-0"]
    assert server.log(run_id)[-1]["code"] == "FlowCanceled"
    assert (
        server.settled(run_id)["details"]["description"]
        == "The Flow Instance was canceled by the user"
    )


def test_cancel_wakes_a_wait(server: FlowsServer) -> None:
    run_id = server.begin(one_state({"Type": "Wait", "Seconds": 86_400, "End": True}))
    assert server.client().cancel_run(run_id)["details"]["code"] == "FlowCanceled"


def test_cancel_works_on_an_inactive_run(server: FlowsServer, compute: ScriptedProvider) -> None:
    compute.script = lambda body: ("INACTIVE", {"code": "ConsentRequired"})
    run = server.run(one_state(action()))
    assert server.client().cancel_run(run["run_id"])["details"]["code"] == "FlowCanceled"
    assert compute.cancelled == ["action-0"]


def test_cancel_stops_a_flow_that_loops_for_ever(server: FlowsServer) -> None:
    definition = one_state(
        {"Type": "Pass", "Next": "Again"}, Again={"Type": "Pass", "Next": "Only"}
    )
    run_id = server.begin(definition)
    assert server.client().cancel_run(run_id)["details"]["code"] == "FlowCanceled"


def test_an_ended_run_cannot_be_cancelled(server: FlowsServer) -> None:
    run = server.run(one_state(PASS))
    with pytest.raises(FlowsAPIError) as refusal:
        server.client().cancel_run(run["run_id"])
    assert (refusal.value.http_status, refusal.value.code) == (409, "STATE_CONFLICT")
    assert server.client().get_run(run["run_id"])["status"] == "SUCCEEDED"


def test_200_runs_at_once_end_with_every_log_right(
    server: FlowsServer, compute: ScriptedProvider
) -> None:
    definition = {
        "StartAt": "Begin",
        "States": {
            "Begin": {"Type": "Pass", "Result": {"x": 1}, "ResultPath": "$.begun", "Next": "Act"},
            "Act": action(COMPUTE, Parameters={"n.$": "$.n"}, Next="Check"),
            "Check": {
                "Type": "Choice",
                "Choices": [
                    {"Variable": "$.result.details.n", "NumericEqualsPath": "$.n", "Next": "Rest"}
                ],
            },
            "Rest": {"Type": "Wait", "Seconds": 1, "Next": "End"},
            "End": PASS,
        },
    }
    client = server.flow_client(server.flow(definition))
    started = [client.run_flow({"n": number})["run_id"] for number in range(200)]
    for number, run_id in enumerate(started):
        run = server.settled(run_id)
        assert run["status"] == "SUCCEEDED"
        assert run["details"]["output"]["n"] == number
        log = [entry["code"] for entry in server.log(run_id)]
        assert log == [
            "FlowStarted",
            *(
                f"{kind}{what}"
                for kind in ("Pass", "Action", "Choice", "Wait", "Pass")
                for what in ("Started", "Completed")
            ),
            "FlowSucceeded",
        ]
    assert len(compute.requests) == 200
