"""The unmodified Globus command line against the local Globus."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cib_flows.local.home import Home
from tests.local.recording import claimed

from .conftest import Program

pytestmark = pytest.mark.clients

SCHEMA = {"type": "object", "required": ["x"], "properties": {"x": {"type": "integer"}}}
# Cancelled or answered by the test, so that it never ends by itself before that.
LONG = {"Type": "Wait", "Seconds": 86_400, "Next": "End"}
END = {"Type": "Pass", "Parameters": {"doubled.$": "$.x"}, "ResultPath": "$.y", "End": True}


def definition(**first: Any) -> str:
    states = {"First": first or {"Type": "Pass", "Next": "End"}, "End": END}
    return json.dumps({"StartAt": "First", "States": states})


def until(poll: Callable[[], Any]) -> Any:
    """The first true answer; the programs themselves take their time."""
    for _ in range(120):
        found = poll()
        if found:
            return found
    raise AssertionError("it never came")


@pytest.fixture
def flow_id(globus: Program) -> str:
    words = ("--input-schema", json.dumps(SCHEMA), "--keyword", "tests", "--subtitle", "S")
    return str(globus.json("flows", "create", "A flow", definition(), *words)["id"])


def run_of(globus: Program, flow_id: str, *words: str) -> str:
    run = globus.json("flows", "start", flow_id, "--input", '{"x": 3}', *words)
    return str(run["run_id"])


def ended(globus: Program, run_id: str) -> dict[str, Any]:
    def poll() -> dict[str, Any] | None:
        run: dict[str, Any] = globus.json("flows", "run", "show", run_id)
        return run if run["status"] != "ACTIVE" else None

    found: dict[str, Any] = until(poll)
    return found


# --- flows ----------------------------------------------------------------------------------------


def test_who_am_i(globus: Program, home: Home) -> None:
    assert home.client().client_id in globus("whoami").text


def test_a_flow_is_created_shown_changed_listed_and_deleted(
    globus: Program, flow_id: str, tmp_path: Path
) -> None:
    assert f"Flow ID:                  {flow_id}" in globus("flows", "show", flow_id).text
    globus("flows", "update", flow_id, "--title", "Another title", "--description", "D")
    shown = globus.json("flows", "show", flow_id)
    assert (shown["title"], shown["subtitle"], shown["description"]) == ("Another title", "S", "D")
    path = tmp_path / "definition.json"
    path.write_text(definition(Type="Pass", Next="End", Comment="Changed"))
    globus("flows", "update", flow_id, "--definition", str(path))
    shown = globus.json("flows", "show", flow_id)
    assert shown["definition"]["States"]["First"]["Comment"] == "Changed"
    assert flow_id in globus("flows", "list", "--limit", "100").text
    assert globus.json("flows", "delete", flow_id)["DELETED"] is True
    refusal = globus("flows", "show", flow_id, fails=True)
    assert "No Flow exists" in refusal.errors


def test_validate(globus: Program) -> None:
    assert "No scopes discovered" in globus("flows", "validate", definition()).text
    refusal = globus("flows", "validate", definition(Type="Succeed"), fails=True)
    assert "422" in refusal.errors
    assert "Succeed" in refusal.errors


# --- runs -----------------------------------------------------------------------------------------


def test_a_run_is_started_shown_logged_and_deleted(globus: Program, flow_id: str) -> None:
    run_id = run_of(globus, flow_id, "--label", "L", "--tag", "t1", "--tag", "t2")
    run = ended(globus, run_id)
    assert (run["status"], run["label"], run["tags"]) == ("SUCCEEDED", "L", ["t1", "t2"])
    text = globus("flows", "run", "show", run_id).text
    assert "Status:       SUCCEEDED" in text
    logs = globus("flows", "run", "show-logs", run_id).text
    assert [line.split("|")[1].strip() for line in logs.splitlines()[2:]] == [
        *("FlowStarted", "PassStarted", "PassCompleted", "PassStarted", "PassCompleted"),
        "FlowSucceeded",
    ]
    latest = globus("flows", "run", "show-logs", "--details", "--reverse", "--limit", "1", run_id)
    assert '"doubled": 3' in latest.text
    shown = globus.json("flows", "run", "show-definition", run_id)
    assert shown["definition"]["StartAt"] == "First"
    assert run_id in globus("flows", "run", "list", "--filter-flow-id", flow_id).text
    globus("flows", "run", "update", run_id, "--label", "Changed")
    assert globus.json("flows", "run", "show", run_id)["label"] == "Changed"
    globus("flows", "run", "delete", run_id)
    assert "No Run exists" in globus("flows", "run", "show", run_id, fails=True).errors


def test_an_input_that_does_not_fit_is_refused(globus: Program, flow_id: str) -> None:
    refusal = globus("flows", "start", flow_id, "--input", '{"x": "three"}', fails=True)
    assert "FLOW_INPUT_ERROR" in refusal.errors
    assert "'three' is not of type 'integer'" in refusal.errors


def test_a_run_is_cancelled(globus: Program) -> None:
    flow_id = globus.json("flows", "create", "Waits", definition(**LONG))["id"]
    run_id = run_of(globus, flow_id)
    refusal = globus("flows", "run", "delete", run_id, fails=True)
    assert "STATE_CONFLICT" in refusal.errors
    assert globus.json("flows", "run", "cancel", run_id)["status"] == "FAILED"
    run = ended(globus, run_id)
    assert run["details"]["code"] == "FlowCanceled"


def test_a_run_that_rests_is_resumed(
    globus: Program, home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The consent itself is given by a token request, as the CLI's login by browser would."""
    import globus_sdk

    from cib_flows.local.transfer.collections import Collections

    collection = Collections.of_home(home).add("mapped", tmp_path, data_access=True)
    states = {
        "Look": {
            "Type": "Action",
            "ActionUrl": "https://transfer.actions.globus.org/ls",
            "Parameters": {"endpoint_id": collection.id, "path": "/"},
            "WaitTime": 60,
            "ExceptionOnActionFailure": True,
            "ResultPath": "$.seen",
            "End": True,
        }
    }
    flow = json.dumps({"StartAt": "Look", "States": states})
    flow_id = globus.json("flows", "create", "Looks", flow)["id"]
    run_id = run_of(globus, flow_id)
    assert ended(globus, run_id)["status"] == "INACTIVE"
    refusal = globus("flows", "run", "resume", run_id, fails=True)
    assert "missing a necessary consent" in refusal.text + refusal.errors

    for name, value in home.environment().items():
        monkeypatch.setenv(name, value)
    client = home.client()
    app = globus_sdk.ClientApp(
        "tests",
        client_id=client.client_id,
        client_secret=client.client_secret,
        config=globus_sdk.GlobusAppConfig(token_storage="memory"),
    )
    flow_client = globus_sdk.SpecificFlowClient(flow_id, app=app)
    flow_client.add_app_transfer_data_access_scope(collection.id)
    app.login()
    globus("flows", "run", "resume", run_id)
    assert ended(globus, run_id)["status"] == "SUCCEEDED"


def test_a_question_is_listed_shown_and_answered(globus: Program) -> None:
    question = {
        "InputType": "Selection",
        "Context": {
            "PresentationStyle": "Table",
            "Title": "Go on?",
            "Rows": [{"Field": "Cost", "Value": "12"}],
        },
        "Options": [{"Value": 1, "Label": "Yes"}, {"Value": 2, "Label": "No"}],
    }
    states = {
        "Ask": {
            "Type": "CreateWebInput",
            "Parameters": question,
            "ResultPath": "$.asked",
            "Next": "Await",
        },
        "Await": {
            "Type": "AwaitWebInput",
            "Parameters": {"web_input_id.$": "$.asked.web_input_id"},
            "ResultPath": "$.answered",
            "End": True,
        },
    }
    flow = json.dumps({"StartAt": "Ask", "States": states})
    flow_id = globus.json("flows", "create", "Asks", flow)["id"]
    run_id = run_of(globus, flow_id)
    listed = ("flows", "web-input", "list", "--filter-run-id", run_id)
    (summary,) = until(lambda: globus.json(*listed)["web_input_summaries"])
    assert "Go on?" in globus(*listed).text
    text = globus("flows", "web-input", "show", summary["id"]).text
    assert "Cost:" in text
    assert "Yes" in text
    options = globus.json("flows", "web-input", "show", summary["id"])["options"]
    wrong = globus("flows", "web-input", "respond", summary["id"], str(uuid.uuid4()), fails=True)
    assert "422" in wrong.errors
    globus("flows", "web-input", "respond", summary["id"], options[1]["option_id"])
    run = ended(globus, run_id)
    assert run["details"]["output"]["answered"]["response"] == 2


# --- transfer -------------------------------------------------------------------------------------


def test_files_are_listed_made_copied_and_removed(globus: Program, home: Home) -> None:
    here = home.client().staging_collection_id
    name = f"cli-{uuid.uuid4().hex[:8]}"
    (home.staging_dir / f"{name}.txt").write_text("hello")
    assert "created successfully" in globus("mkdir", f"{here}:/{name}").text
    assert f"{name}/" in globus("ls", f"{here}:/").text.splitlines()
    task = globus.json(
        "transfer", f"{here}:/{name}.txt", f"{here}:/{name}/copy.txt", "--label", "L"
    )
    globus("task", "wait", task["task_id"], "--timeout", "60", "--polling-interval", "1")
    shown = globus.json("task", "show", task["task_id"])
    assert (shown["status"], shown["label"]) == ("SUCCEEDED", "L")
    assert globus("ls", f"{here}:/{name}/").text.split() == ["copy.txt"]
    assert (home.staging_dir / name / "copy.txt").read_text() == "hello"
    listed = globus.json("ls", f"{here}:/{name}/")
    assert listed["DATA"][0]["size"] == 5
    assert "file" in globus("stat", f"{here}:/{name}/copy.txt").text
    globus("rename", here, f"/{name}/copy.txt", f"/{name}/moved.txt")
    events = globus("task", "event-list", task["task_id"]).text
    assert "SUCCEEDED" in events
    assert task["task_id"] in globus("task", "list").text
    globus("task", "cancel", task["task_id"])
    removal = globus.json("delete", f"{here}:/{name}/moved.txt")
    globus("task", "wait", removal["task_id"], "--timeout", "60", "--polling-interval", "1")
    assert not (home.staging_dir / name / "moved.txt").exists()
    globus("rm", "--recursive", f"{here}:/{name}")
    assert not (home.staging_dir / name).exists()


def test_collections_are_found(globus: Program, home: Home) -> None:
    here = home.client().staging_collection_id
    assert here in globus("endpoint", "search", "staging").text


def test_a_folder_is_shared(globus: Program, home: Home) -> None:
    here, permission = home.client().staging_collection_id, ("endpoint", "permission")
    made = globus.json(
        *permission, "create", f"{here}:/shared/", "--permissions", "r", "--all-authenticated"
    )
    rule = made["access_id"]
    assert rule in globus(*permission, "list", here).text
    globus(*permission, "update", here, rule, "--permissions", "rw")
    assert "rw" in globus(*permission, "show", here, rule).text
    again = globus(
        *(*permission, "create", f"{here}:/shared/", "--permissions", "r", "--all-authenticated"),
        fails=True,
    )
    assert "Exists" in again.errors
    globus(*permission, "delete", here, rule)
    assert rule not in globus(*permission, "list", here).text


def test_a_path_that_is_not_there_is_refused_as_transfer_does(globus: Program, home: Home) -> None:
    here = home.client().staging_collection_id
    refusal = globus("ls", f"{here}:/nothing", fails=True)
    assert "NotFound" in refusal.errors
    refusal = globus("ls", f"{here}:/../", fails=True)
    assert "EndpointPermissionDenied" in refusal.errors or "403" in refusal.errors


def test_what_is_not_served_is_told_in_a_sentence(globus: Program, home: Home) -> None:
    here = home.client().staging_collection_id
    for words in (
        ("group", "list"),
        ("timer", "list"),
        ("bookmark", "list"),
        ("endpoint", "role", "list", here),
        ("api", "flows", "GET", "/batch/runs"),
    ):
        refusal = globus(*words, fails=True)
        assert "The local Globus does not serve" in refusal.errors + refusal.text, words
        assert "Traceback" not in refusal.errors, words


# --- search ---------------------------------------------------------------------------------------


def test_an_index_is_filled_and_asked(globus: Program, tmp_path: Path) -> None:
    index = globus.json("search", "index", "create", "From the CLI", "For a test")["id"]
    assert index in globus("search", "index", "list").text
    entry = {"subject": "image:a", "visible_to": ["public"], "content": {"name": "pandas"}}
    document = tmp_path / "entries.json"
    document.write_text(json.dumps({"ingest_type": "GMetaEntry", "ingest_data": entry}))
    task = globus.json("search", "ingest", index, str(document))
    assert "SUCCESS" in globus("search", "task", "show", task["task_id"]).text
    found = globus.json("search", "query", index, "-q", "pandas")
    assert [item["subject"] for item in found["gmeta"]] == ["image:a"]
    globus("search", "index", "delete", index)


# --- what the documentation says ------------------------------------------------------------------


def test_every_command_of_the_table_was_run(
    globus: Program, request: pytest.FixtureRequest
) -> None:
    here = [item.name for item in request.session.items if item.path == request.path]
    written = [name for name in globals() if name.startswith("test_")]
    if set(here) != set(written):
        pytest.skip("only where the whole module is run")
    (commands,) = claimed("globus-cli 3.43").values()
    missing = [
        command
        for command in commands
        if not any(" ".join(words).startswith(command) for words in globus.made)
    ]
    assert missing == []
