"""Flows, and what their users do: each is a run during which the server is killed, again and again."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cib_flows.local.transfer.collections import Collections

from .dying import Nursery

COMPUTE = "https://compute.actions.globus.org/v3"
TRANSFER = "https://transfer.actions.globus.org"
HELLO = "https://actions.globus.org/hello_world"
SEARCH = "https://actions.globus.org/search"
INNER = "https://flows.globus.org/flows/INNER"  # stands for the flow that a story's own one calls
State = dict[str, Any]


@dataclass
class Trial:
    """One run, and where it leaves its marks."""

    name: str
    nursery: Nursery
    folder: Path
    deaths: int = 0

    @property
    def place(self) -> Path:
        """The folder that only this trial touches."""
        return self.folder / self.name


@dataclass(frozen=True)
class Story:
    """A flow, and what its user does besides starting it.

    :param inner: the flow at :data:`INNER`
    :param setup: called once, with a server; what every run is given
    :param prepare: makes what one run needs, without a server
    :param act: called with the run's document, over and over until the run has ended
    :param check: looks at the marks that the ended run left
    :param may_fail_with: what the run may fail with instead of what it would have ended with
    """

    name: str
    states: dict[str, State]
    ends: str = "SUCCEEDED"
    inner: dict[str, State] = field(default_factory=dict)
    setup: Callable[[Nursery], dict[str, Any]] = lambda nursery: {}
    prepare: Callable[[Trial], dict[str, Any]] = lambda trial: {}
    act: Callable[[Trial, dict[str, Any]], None] = lambda trial, run: None
    check: Callable[[Trial], None] = lambda trial: None
    may_fail_with: str | None = None
    first: int = 1  # the change to begin with, where those before are every story's
    lives: bool = True  # whether it can end where each server lives for one change only

    def create(self, nursery: Nursery) -> str:
        """The id of its flow."""
        return _flow(nursery, self.name, self.states, self.inner)


def _flow(nursery: Nursery, title: str, states: dict[str, State], inner: dict[str, State]) -> str:
    definition = {"StartAt": next(iter(states)), "States": states}
    if inner:
        called = INNER.replace("INNER", _flow(nursery, f"{title}, called", inner, {}))
        definition = json.loads(json.dumps(definition).replace(INNER, called))
    flow = {"title": title, "definition": definition, "input_schema": {}}
    return str(nursery.post("flows", flow)["id"])


def action(url: str, parameters: dict[str, Any], **fields: Any) -> State:
    return {
        "Type": "Action",
        "ActionUrl": url,
        "Parameters": parameters,
        "ResultPath": "$.done",
        "WaitTime": 600,
        "ExceptionOnActionFailure": True,
        **({} if "Next" in fields else {"End": True}),
        **fields,
    }


LAST: State = {"Type": "Pass", "End": True}


def make_files(trial: Trial) -> dict[str, Any]:
    (trial.place / "sub").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "sub/c.txt"):
        (trial.place / name).write_text(f"content of {name}")
    return {}


def files_are_copied(trial: Trial) -> None:
    names = sorted(p.name for p in (trial.place / "copy").rglob("*") if p.is_file())
    assert names == ["a.txt", "b.txt", "c.txt"]


def files_are_gone(trial: Trial) -> None:
    assert not (trial.place / "a.txt").exists()
    assert not (trial.place / "sub").exists()
    assert (trial.place / "b.txt").exists()


def is_a_folder(trial: Trial) -> None:
    assert (trial.place / "made").is_dir()


def empty_place(trial: Trial) -> dict[str, Any]:
    trial.place.mkdir()
    return {}


def answer(trial: Trial, run: dict[str, Any]) -> None:
    web_input_id = run["blocking_web_input_id"]
    if web_input_id is None:
        return
    asked = trial.nursery.get(f"web_inputs/{web_input_id}")
    if asked["status"] == "open":
        response = {"response": {"value": asked["options"][0]["option_id"]}}
        trial.nursery.post(f"web_inputs/{web_input_id}/respond", response)


def mapped_collection(trial: Trial) -> dict[str, Any]:
    make_files(trial)
    declared = Collections.of_home(trial.nursery.home)
    return {"mapped": declared.add(trial.name, trial.place, data_access=True).id}


def consent_and_resume(trial: Trial, run: dict[str, Any]) -> None:
    if run["status"] != "INACTIVE":
        return
    assert run["details"]["code"] == "ConsentRequired"
    client = trial.nursery.home.client()
    form = {
        "grant_type": "client_credentials",
        "client_id": client.client_id,
        "client_secret": client.client_secret,
        "scope": run["details"]["required_scope"],
    }
    trial.nursery.call("POST", "v2/oauth2/token", data=form)
    trial.nursery.post(f"runs/{run['run_id']}/resume")


def cancel(trial: Trial, run: dict[str, Any]) -> None:
    if run["status"] == "ACTIVE" and run["details"]["code"] in ("WaitStarted", "ActionStarted"):
        trial.nursery.post(f"runs/{run['run_id']}/cancel")


def no_run_is_left(trial: Trial) -> None:
    with contextlib.closing(sqlite3.connect(trial.nursery.home.database_path)) as database:
        (left,) = database.execute("SELECT count(*) FROM runs WHERE status = 'ACTIVE'").fetchone()
    assert left == 0


# Counts its executions, and ends when it is told to.
COUNTED = """
def counted(folder):
    import os, time
    with open(os.path.join(folder, "began"), "a") as stream:
        stream.write("x")
    return {"folder": os.path.basename(folder)}
"""


def register_counted(nursery: Nursery) -> dict[str, Any]:
    body = {"function_name": "counted", "function_code": COUNTED, "serialized": False}
    found = nursery.post("v3/functions", body)["function_uuid"]
    return {"function": found, "endpoint": nursery.home.client().endpoint_id}


def ran_once(trial: Trial) -> None:
    began = trial.place / "began"
    assert not began.exists() or began.read_text() == "x", "the function ran twice"


STORIES = [
    Story(
        "pass-expression-choice",
        {
            "One": {"Type": "Pass", "Result": {"n": 1}, "ResultPath": "$.one", "Next": "Two"},
            "Two": {
                "Type": "ExpressionEval",
                "Parameters": {"n.=": "one.n + 1"},
                "ResultPath": "$.two",
                "Next": "Which",
            },
            "Which": {
                "Type": "Choice",
                "Choices": [{"Variable": "$.two.n", "NumericEquals": 2, "Next": "Last"}],
            },
            "Last": LAST,
        },
    ),
    Story(
        "fail",
        {
            "One": {"Type": "Pass", "Result": {"n": 1}, "ResultPath": "$.one", "Next": "Stop"},
            "Stop": {"Type": "Fail", "Error": "Enough", "Cause": "It is enough."},
        },
        ends="FAILED",
    ),
    Story("wait", {"Rest": {"Type": "Wait", "Seconds": 0, "Next": "Last"}, "Last": LAST}),
    Story(
        "canceled",
        {"Rest": {"Type": "Wait", "Seconds": 3600, "End": True}},
        ends="FAILED",
        act=cancel,
    ),
    Story(
        "mkdir",
        {
            "Make": action(
                f"{TRANSFER}/mkdir",
                {"endpoint_id.$": "$.collection", "path.=": "'/' + name + '/made'"},
                Next="Look",
            ),
            "Look": action(
                f"{TRANSFER}/stat",
                {"endpoint_id.$": "$.collection", "path.=": "'/' + name + '/made'"},
            ),
        },
        prepare=empty_place,
        check=is_a_folder,
    ),
    Story(
        "transfer",
        {
            "Copy": action(
                f"{TRANSFER}/transfer",
                {
                    "source_endpoint.$": "$.collection",
                    "destination_endpoint.$": "$.collection",
                    "sync_level": 3,
                    "DATA": [
                        {
                            "source_path.=": f"'/' + name + '/{one}'",
                            "destination_path.=": f"'/' + name + '/copy/{one}'",
                        }
                        for one in ("a.txt", "b.txt", "sub/")
                    ],
                },
            ),
        },
        prepare=make_files,
        check=files_are_copied,
    ),
    Story(
        "delete",
        {
            "Remove": action(
                f"{TRANSFER}/delete",
                {
                    "endpoint.$": "$.collection",
                    "recursive": True,
                    "DATA": [
                        {"path.=": "'/' + name + '/a.txt'"},
                        {"path.=": "'/' + name + '/sub/'"},
                    ],
                },
            ),
        },
        prepare=make_files,
        check=files_are_gone,
    ),
    Story(
        "permission",
        {
            "Grant": action(
                f"{TRANSFER}/manage_permission",
                {
                    "operation": "CREATE",
                    "endpoint_id.$": "$.collection",
                    "path.=": "'/' + name + '/'",
                    "principal_type": "all_authenticated_users",
                    "permissions": "r",
                },
                Next="Take",
            ),
            "Take": action(
                f"{TRANSFER}/manage_permission",
                {
                    "operation": "DELETE",
                    "endpoint_id.$": "$.collection",
                    "rule_id.$": "$.done.details.access_id",
                },
            ),
        },
        prepare=empty_place,
        first=3,
    ),
    Story(
        "search",
        {
            "Ingest": action(
                f"{SEARCH}/ingest",
                {
                    "search_index.$": "$.index",
                    "subject.$": "$.name",
                    "visible_to": ["public"],
                    "content": {"n": 1},
                },
                Next="Forget",
            ),
            "Forget": action(
                f"{SEARCH}/delete",
                {"search_index.$": "$.index", "delete_by": "subject", "subject.$": "$.name"},
            ),
        },
    ),
    Story(
        "hello",
        {
            "Hello": action(HELLO, {"echo_string.$": "$.name", "sleep_time": 1}, Next="Last"),
            "Last": LAST,
        },
        first=3,
        lives=False,  # the second that it takes is no change
    ),
    Story(
        "called-flow",
        {
            "Call": action(
                INNER, {"collection.$": "$.collection", "name.$": "$.name"}, Next="Last"
            ),
            "Last": LAST,
        },
        inner={
            # Fails where it is done a second time.
            "Make": action(
                f"{TRANSFER}/mkdir",
                {"endpoint_id.$": "$.collection", "path.=": "'/' + name + '/made'"},
            ),
        },
        prepare=empty_place,
        check=is_a_folder,
        first=3,
    ),
    Story(
        "called-flow-canceled",
        {"Call": action(INNER, {})},
        inner={"Rest": {"Type": "Wait", "Seconds": 3600, "End": True}},
        ends="FAILED",
        act=cancel,
        check=no_run_is_left,
        first=3,
        lives=False,
    ),
    Story(
        "caught",
        {
            "Look": action(
                f"{TRANSFER}/stat",
                {"endpoint_id.$": "$.collection", "path": "/nowhere"},
                Next="Last",
                Catch=[
                    {
                        "ErrorEquals": ["ActionFailedException"],
                        "ResultPath": "$.error",
                        "Next": "Last",
                    }
                ],
            ),
            "Last": LAST,
        },
    ),
    Story(
        "unable",
        {"Copy": action(f"{TRANSFER}/transfer", {"source_endpoint": "none", "DATA": []})},
        ends="FAILED",
    ),
    Story(
        "web-input",
        {
            "Ask": {
                "Type": "CreateWebInput",
                "Parameters": {
                    "InputType": "Selection",
                    "Context": {"PresentationStyle": "Text", "Title": "Go?", "Text": "Go on?"},
                    "Options": [{"Value": "yes", "Label": "Yes"}],
                },
                "ResultPath": "$.asked",
                "Next": "Await",
            },
            "Await": {
                "Type": "AwaitWebInput",
                "Parameters": {"web_input_id.$": "$.asked.web_input_id"},
                "ResultPath": "$.answered",
                "Next": "Last",
            },
            "Last": LAST,
        },
        act=answer,
    ),
    Story(
        "consent",
        {
            "Copy": action(
                f"{TRANSFER}/transfer",
                {
                    "source_endpoint.$": "$.mapped",
                    "destination_endpoint.$": "$.collection",
                    "DATA": [
                        {
                            "source_path": "/a.txt",
                            "destination_path.=": "'/' + name + '/copy.txt'",
                        }
                    ],
                },
                Next="Last",
            ),
            "Last": LAST,
        },
        prepare=mapped_collection,
        act=consent_and_resume,
        lives=False,  # its user's own request for a token is a change, each time
    ),
    Story(
        "compute",
        {
            "Call": action(
                COMPUTE,
                {
                    "endpoint_id.$": "$.endpoint",
                    "user_endpoint_config": {"profile": "control"},
                    "tasks": [
                        {"function_id.$": "$.function", "args.=": "[folder]", "kwargs": {}},
                    ],
                },
                Next="Last",
            ),
            "Last": LAST,
        },
        setup=register_counted,
        prepare=empty_place,
        check=ran_once,
        may_fail_with="its engine had ended too",
        first=4,
        lives=False,
    ),
]
