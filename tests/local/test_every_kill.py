"""The server is killed at every single change that a run makes to the database, just before it is
kept and just after; started again, it ends each run as if nothing had happened."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cib_flows.local.home import Home
from cib_flows.local.transfer.collections import Collections

from .dying import Died, Nursery

COMPUTE = "https://compute.actions.globus.org/v3"
TRANSFER = "https://transfer.actions.globus.org"
HELLO = "https://actions.globus.org/hello_world"
SEARCH = "https://actions.globus.org/search"
INNER = "https://flows.globus.org/flows/INNER"  # stands for the flow that a story's own one calls

PATIENCE = 60.0
WHOLE_POLICY = {"status": ["INACTIVE", "SUCCEEDED", "FAILED"]}

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


# --- what each story's user does ------------------------------------------------------------------


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


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    found = Nursery(Home(tmp_path_factory.mktemp("dying") / "home"))
    yield found
    found.close()


@dataclass
class Told:
    """What a user can learn of a run that ended, without what differs from run to run."""

    run: dict[str, Any]
    log: list[dict[str, Any]]
    notifications: list[dict[str, Any]]
    events: list[Any] = field(default_factory=list)


class Sweep:
    """Runs one story again and again."""

    def __init__(self, story: Story, nursery: Nursery, folder: Path) -> None:
        self.story = story
        self.nursery = nursery
        self.folder = folder
        folder.mkdir()
        nursery.begin()
        collection = Collections.of_home(nursery.home).add(story.name, folder)
        self.flow_id = story.create(nursery)
        index = {"display_name": story.name, "description": "For a test."}
        self.body = {
            "collection": collection.id,
            "index": nursery.post("v1/index", index)["id"],
            **story.setup(nursery),
        }
        nursery.end()

    def tell(self, name: str, faults: str, again: str = "") -> tuple[Told, Trial]:
        """Run the story on a server with ``faults``, and after its death on one with those of
        ``again``."""
        trial = Trial(name, self.nursery, self.folder)
        nursery = self.nursery
        body = {
            "name": name,
            "folder": str(trial.place),
            **self.body,
            **self.story.prepare(trial),
        }
        nursery.begin(faults)
        deadline = time.monotonic() + PATIENCE
        run: dict[str, Any] | None = None
        while run is None or run["status"] in ("ACTIVE", "INACTIVE"):
            assert time.monotonic() < deadline, (name, run, nursery.log_tail())
            try:
                run = self._step(trial, body)
            except Died:
                self._again(trial, again)
        told = None
        while told is None:
            try:
                told = self._told(run["run_id"])
            except Died:
                self._again(trial, again)
        code = nursery.end()
        if code != 0:
            trial.deaths += 1
        self.story.check(trial)
        return told, trial

    def _again(self, trial: Trial, faults: str) -> None:
        assert self.nursery.end() == -9, self.nursery.log_tail()
        trial.deaths += 1
        assert trial.deaths == 1 or faults, self.nursery.log_tail()
        self.nursery.begin(faults)

    def _step(self, trial: Trial, body: dict[str, Any]) -> dict[str, Any] | None:
        """Look at the run; do what its user would. None while there is no run."""
        listed = self.nursery.get("runs", filter_flow_id=self.flow_id)["runs"]
        mine = [run for run in listed if run["label"] == trial.name]
        assert len(mine) <= 1, "the run was started twice"
        if not mine:
            submission = {
                "body": body,
                "label": trial.name,
                "activity_notification_policy": WHOLE_POLICY,
            }
            self.nursery.post(f"flows/{self.flow_id}/run", submission)
            return None
        run: dict[str, Any] = self.nursery.get(f"runs/{mine[0]['run_id']}")
        self.story.act(trial, run)
        return run

    def _told(self, run_id: str) -> Told:
        nursery = self.nursery
        run = nursery.get(f"runs/{run_id}")
        log = nursery.get(f"runs/{run_id}/log", limit=100)["entries"]
        sent = nursery.get("local/notifications")["notifications"]
        told = Told(run, log, [one for one in sent if one["run_id"] == run_id])
        task_id = (run["details"].get("output") or {}).get("done", {}).get("details", {})
        if isinstance(task_id, dict) and task_id.get("DATA_TYPE") == "task":
            path = f"v0.10/task/{task_id['task_id']}"
            told.events = [
                [event["code"], event["is_error"]]
                for event in nursery.get(f"{path}/event_list")["DATA"]
            ]
            told.events.append(nursery.get(f"{path}/successful_transfers"))
        return told


def plain(told: Told, name: str) -> Any:
    """``told`` without ids, times and the trial's name."""
    text = json.dumps([told.run, told.log, told.notifications, told.events], sort_keys=True)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?([+]00:00)?", "TIME", text)
    text = re.sub(r'"(exp|iat|nbf|effective_bytes_per_second)": \d+', r'"\1": 0', text)
    return json.loads(text.replace(name, "NAME"))


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_a_run_ends_as_it_would_have(nursery: Nursery, story: Story, tmp_path: Path) -> None:
    sweep = Sweep(story, nursery, tmp_path / "folder")
    told, trial = sweep.tell("undisturbed", "")
    assert trial.deaths == 0
    assert told.run["status"] == story.ends, told.run
    assert told.notifications
    wanted = plain(told, "undisturbed")
    for moment in ("before", "after"):
        for number in itertools.count(story.first):
            name = f"{moment}x{number}x"
            told, trial = sweep.tell(name, f"kill-{moment}:{number}=1")
            if story.may_fail_with and told.run["status"] == "FAILED":
                assert story.may_fail_with in told.run["details"]["description"]
            else:
                assert plain(told, name) == wanted, f"killed {moment} change {number}"
            if trial.deaths == 0:
                assert number > 2, "the run has more changes than that"
                break
    if story.lives:
        told, trial = sweep.tell("always", "kill-after:1=1", "kill-after:1=1")
        assert plain(told, "always") == wanted, "killed after every change"
        assert trial.deaths > 2
