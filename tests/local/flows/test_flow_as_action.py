"""A deployed flow called as an action of another: its run, its output, its failures, its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import globus_sdk
import pytest
from flow_testing import (
    COMPUTE,
    TRANSFER,
    FlowsServer,
    ScriptedProvider,
    action,
    identity,
    one_state,
    serving,
)
from test_build_container_flow import FLOW, SPEC, Functions, deployed

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
ERRORS = ["ActionUnableToRun", "ActionFailedException", "ActionTimeout"]


def url(flow_id: str) -> str:
    return f"https://flows.globus.org/flows/{flow_id}"


def child_of(server: FlowsServer, **fields: Any) -> str:
    """A flow that asks Compute once, with the number it is given."""
    state = action(Parameters={"n.$": "$.n"}, ResultPath="$.answer", **fields)
    return server.flow(one_state(state), SCHEMA)


def calling(child: str, given: Any = None, **fields: Any) -> dict[str, Any]:
    """A flow that calls ``child``, and writes down what it caught."""
    catch = [{"ErrorEquals": ERRORS, "ResultPath": "$.caught", "Next": "Caught"}]
    caught = {"Type": "Pass", "Parameters": {"yes": True}, "ResultPath": "$.was", "End": True}
    state = action(
        url(child), Parameters=given or {"n.$": "$.number"}, ResultPath="$.child", Catch=catch
    )
    return one_state({**state, **fields}, Caught=caught)


def output_of(run: dict[str, Any]) -> Any:
    assert run["status"] == "SUCCEEDED", run["details"]
    return run["details"]["output"]


def runs_of(server: FlowsServer, flow_id: str) -> list[dict[str, Any]]:
    return list(server.client().list_runs(filter_flow_id=flow_id)["runs"])


def test_the_calling_flow_goes_on_with_the_output(
    server: FlowsServer, compute: ScriptedProvider
) -> None:
    child = child_of(server)
    done = server.run(calling(child), {"number": 3})
    status = output_of(done)["child"]
    assert status["status"] == "SUCCEEDED"
    assert status["details"]["output"]["answer"]["details"] == {"n": 3}
    (run,) = runs_of(server, child)
    assert run["run_id"] == status["action_id"]
    assert run["run_owner"] == status["creator_id"] == identity("alice").urn


def test_the_log_says_which_reading_was_taken(server: FlowsServer) -> None:
    done = server.run(calling(child_of(server)), {"number": 3})
    (entry,) = [e for e in server.log(done["run_id"]) if e["code"] == "ActionStarted"]
    (warning,) = entry["details"]["warnings"]
    assert "not documented; the Parameters were taken as its input itself" in warning


@pytest.mark.parametrize("host", ["flows.globus.org", "FLOWS.automate.globus.org"])
def test_both_addresses_of_a_flow_are_known(server: FlowsServer, host: str) -> None:
    definition = calling(child_of(server))
    only = definition["States"]["Only"]
    only["ActionUrl"] = only["ActionUrl"].replace("flows.globus.org", host) + "/"
    assert output_of(server.run(definition, {"number": 1}))["child"]["status"] == "SUCCEEDED"


def test_the_scope_of_the_called_flow_is_asked_for(server: FlowsServer) -> None:
    child = child_of(server)
    answer = server.client().validate_flow(calling(child), {})
    assert answer["scopes"]["User"] == [
        f"https://auth.globus.org/scopes/{child}/flow_{child.replace('-', '_')}_user"
    ]


def test_a_failed_run_is_a_failed_action(server: FlowsServer, compute: ScriptedProvider) -> None:
    compute.script = lambda body: ("FAILED", {"result": ["ValueError: three"]})
    caught = output_of(server.run(calling(child_of(server)), {"number": 3}))["caught"]
    assert caught["Error"] == "ActionFailedException"
    assert caught["Cause"]["details"]["code"] == "FlowFailed"
    assert "ValueError: three" in caught["Cause"]["details"]["description"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"n": "three"}, "'three' is not of type 'integer'"),
        ({"body": {"n": 3}}, "give what stands below 'body' without it"),
        ({"body": {"n": 3}, "label": "x"}, "give what stands below 'body' without it"),
    ],
)
def test_an_input_that_the_flow_does_not_take_is_caught(
    server: FlowsServer, given: dict[str, Any], said: str
) -> None:
    child = child_of(server)
    caught = output_of(server.run(calling(child, given)))["caught"]
    assert caught["Error"] == "ActionUnableToRun"
    assert caught["Cause"]["status_code"] == 400
    assert said in caught["Cause"]["description"]
    assert runs_of(server, child) == []


def test_who_may_not_start_the_flow_may_not_call_it(server: FlowsServer) -> None:
    child = child_of(server)
    created = server.client("bob").create_flow("Bob's", calling(child, {"n": 1}), {})
    run = server.flow_client(str(created["id"]), "bob").run_flow({})
    server.rested(run["run_id"])
    caught = server.client("bob").get_run(run["run_id"])["details"]["output"]["caught"]
    assert caught["Cause"]["status_code"] == 404
    server.client().update_flow(child, flow_starters=["all_authenticated_users"])
    run = server.flow_client(str(created["id"]), "bob").run_flow({})
    server.rested(run["run_id"])
    assert server.client("bob").get_run(run["run_id"])["details"]["output"]["child"]
    assert runs_of(server, child) == [], "it is bob's run, which alice may not see"


def test_cancelling_the_calling_run_cancels_the_called_one(
    server: FlowsServer, compute: ScriptedProvider
) -> None:
    compute.script = lambda body: None
    child = child_of(server)
    run_id = server.begin(calling(child), {"number": 3})
    assert compute.begun.wait(30)
    server.client().cancel_run(run_id)
    assert server.settled(run_id)["details"]["code"] == "FlowCanceled"
    (run,) = runs_of(server, child)
    assert server.settled(run["run_id"])["details"]["code"] == "FlowCanceled"
    assert compute.cancelled == ["action-0"], "and what that one was doing"


def test_a_called_run_that_is_cancelled_fails_the_action(
    server: FlowsServer, compute: ScriptedProvider
) -> None:
    compute.script = lambda body: None
    child = child_of(server)
    run_id = server.begin(calling(child), {"number": 3})
    assert compute.begun.wait(30)
    server.client().cancel_run(runs_of(server, child)[0]["run_id"])
    caught = output_of(server.settled(run_id))["caught"]
    assert caught["Cause"]["details"]["code"] == "FlowCanceled"


def test_a_called_run_that_rests_lets_the_calling_one_rest(
    server: FlowsServer, compute: ScriptedProvider
) -> None:
    compute.script = lambda body: ("INACTIVE", {"code": "ConsentRequired", "required_scope": "x"})
    child = child_of(server)
    run_id = server.begin(calling(child), {"number": 3})
    assert server.settled(run_id)["status"] == "INACTIVE"
    (run,) = runs_of(server, child)
    assert run["status"] == "INACTIVE"
    compute.statuses["action-0"] = compute.statuses["action-0"].__class__(
        "action-0", "SUCCEEDED", {"n": 3}, "ok", "2026-01-02T03:04:05+00:00"
    )
    server.flow_client(child).resume_run(run["run_id"])
    server.settled(run["run_id"])
    parent = str(server.client().get_run(run_id)["flow_id"])
    server.flow_client(parent).resume_run(run_id)
    assert output_of(server.settled(run_id))["child"]["status"] == "SUCCEEDED"


def test_a_flow_that_calls_itself_for_ever_is_ended(server: FlowsServer) -> None:
    flow_id = server.flow(one_state({"Type": "Pass", "End": True}))
    own = calling(flow_id, {"n": 1})
    del own["States"]["Only"]["Catch"], own["States"]["Caught"]
    server.client().update_flow(flow_id, definition=own)
    done = server.settled(str(server.flow_client(flow_id).run_flow({})["run_id"]))
    assert done["status"] == "FAILED"
    assert "does a flow call itself?" in json.dumps(done["details"])


def test_an_address_without_a_flow_is_refused_when_the_flow_is_created(
    server: FlowsServer,
) -> None:
    nobody = "7a2b8f0e-0000-4000-8000-00000000dead"
    with pytest.raises(globus_sdk.FlowsAPIError, match="No action provider answers at"):
        server.flow(calling(nobody))


def test_a_killed_service_goes_on_with_both_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = ScriptedProvider(lambda body: None)
    providers = {COMPUTE: compute, TRANSFER: ScriptedProvider()}
    with serving(tmp_path / "flows.db", providers) as server:
        monkeypatch.setenv("GLOBUS_SDK_SERVICE_URL_FLOWS", server.url)
        child = child_of(server)
        run_id = server.begin(calling(child), {"number": 3})
        assert compute.begun.wait(30)
    with serving(tmp_path / "flows.db", providers) as server:
        monkeypatch.setenv("GLOBUS_SDK_SERVICE_URL_FLOWS", server.url)
        compute.finish("action-0", details={"n": 3})
        output = output_of(server.settled(run_id))
        assert output["child"]["details"]["output"]["answer"]["details"] == {"n": 3}
        assert len(runs_of(server, child)) == 1
        assert len(compute.requests) == 1


def test_the_build_flow_as_an_action(server: FlowsServer, compute: ScriptedProvider) -> None:
    functions = Functions(compute)
    schema = json.loads((FLOW / "input_schema.json").read_text())
    build = server.flow(deployed(), schema)
    parent = calling(build, {"name.$": "$.sample", "base": SPEC["base"]})
    following = {
        "Type": "Pass",
        "Parameters": {"image.$": "$.child.details.output.container.path"},
        "ResultPath": "$.use",
        "End": True,
    }
    only = {key: value for key, value in parent["States"]["Only"].items() if key != "End"}
    parent["States"] |= {"Only": {**only, "Next": "Use"}, "Use": following}
    output = output_of(server.run(parent, {"sample": "s1"}))
    assert output["use"] == {"image": "/images/x.sif"}
    assert functions.arguments("render_recipe")["spec"]["name"] == "s1"
    # the functions keep the called run's things under its own id
    run_id = output["child"]["action_id"]
    assert functions.arguments("build_image")["run_id"] == run_id
    functions.fails("verify_image", "no_such_thing")
    caught = output_of(server.run(parent, {"sample": "s2"}))["caught"]
    assert caught["Cause"]["details"]["cause"] == "It went wrong. Do this."
