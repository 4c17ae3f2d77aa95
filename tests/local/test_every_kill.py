"""The server is killed at every single change that a run makes to the database, just before it is
kept and just after; started again, it ends each run as if nothing had happened."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cib_flows.local.home import Home
from cib_flows.local.transfer.collections import Collections

from .dying import Died, Nursery
from .kill_stories import STORIES, Story, Trial

PATIENCE = 60.0
WHOLE_POLICY = {"status": ["INACTIVE", "SUCCEEDED", "FAILED"]}


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
