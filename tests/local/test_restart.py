"""The server is killed and started again: what was under way goes on, and nothing runs twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import globus_sdk
import pytest

from cib_flows.local import control
from cib_flows.local.compute.lines import read_passport
from cib_flows.local.home import Home

from .conftest import LocalGlobus, until, value

OwnGlobus = Callable[..., LocalGlobus]

# Says that it began (each time that it does), and ends when it may.
WAITER = """
def waiter(folder):
    import os, time
    with open(os.path.join(folder, "began"), "a") as stream:
        stream.write(f"{os.getpid()}\\n")
    while not os.path.exists(os.path.join(folder, "go")):
        time.sleep(0.02)
    return "done"
"""


def kill_server(home: Home) -> None:
    record = home.running()
    assert record is not None
    assert record.pid is not None
    os.kill(record.pid, signal.SIGKILL)
    until(lambda: not home.is_locked())


def engine(home: Home) -> int:
    """The process id of the home's one user endpoint."""
    passports = [read_passport(folder) for folder in home.runs_dir.iterdir()]
    (passport,) = [passport for passport in passports if passport is not None]
    return passport.pid


def begun(folder: Path) -> list[str]:
    try:
        return (folder / "began").read_text().split()
    except FileNotFoundError:
        return []


def gone(pid: int | str) -> bool:
    """Whether the process ended; nobody may have waited for it yet."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir()
    return made


def test_a_task_under_way_goes_on_and_runs_once(own_globus: OwnGlobus, folder: Path) -> None:
    globus = own_globus()
    task_id = globus.submit(globus.register(WAITER), str(folder))[0]
    until(lambda: begun(folder))
    kill_server(globus.home)
    again = own_globus()
    assert again.compute_v2.get_task(task_id)["status"] == "waiting-for-ep"
    (folder / "go").touch()
    assert value(again.finished(task_id)) == "done"
    assert len(begun(folder)) == 1


def test_a_result_that_came_while_no_server_ran_is_kept(
    own_globus: OwnGlobus, folder: Path
) -> None:
    globus = own_globus()
    task_id = globus.submit(globus.register(WAITER), str(folder))[0]
    until(lambda: begun(folder))
    kill_server(globus.home)
    (folder / "go").touch()
    # The pool's worker is idle again once the function has returned; nothing says so outside.
    again = own_globus()
    assert value(again.finished(task_id)) == "done"
    assert len(begun(folder)) == 1


def test_the_next_server_uses_the_process_that_lived_on(
    own_globus: OwnGlobus, folder: Path
) -> None:
    globus = own_globus()
    function_id = globus.register(WAITER)
    first = globus.submit(function_id, str(folder))[0]
    until(lambda: begun(folder))
    pid = engine(globus.home)
    for _ in range(2):
        kill_server(globus.home)
        globus = own_globus()
        assert engine(globus.home) == pid
    (folder / "go").touch()
    assert value(globus.finished(first)) == "done"
    assert value(globus.finished(globus.submit(function_id, str(folder))[0])) == "done"
    control.stop(globus.home)
    until(lambda: gone(pid))


def test_a_task_whose_process_died_too_fails_with_a_sentence(
    own_globus: OwnGlobus, folder: Path
) -> None:
    globus = own_globus()
    task_id = globus.submit(globus.register(WAITER), str(folder))[0]
    (worker,) = until(lambda: begun(folder))
    pid = engine(globus.home)
    kill_server(globus.home)
    os.killpg(pid, signal.SIGKILL)
    until(lambda: gone(pid))
    again = own_globus()
    lost = again.finished(task_id)
    assert lost["status"] == "failed"
    assert "restarted while this task was under way" in lost["exception"]
    until(lambda: gone(worker))
    assert len(begun(folder)) == 1


def test_stopping_a_home_whose_server_was_killed_ends_what_it_left(
    own_globus: OwnGlobus, folder: Path
) -> None:
    globus = own_globus()
    globus.submit(globus.register(WAITER), str(folder))
    (worker,) = until(lambda: begun(folder))
    kill_server(globus.home)
    assert not gone(worker)
    assert not control.stop(globus.home)
    until(lambda: gone(worker))


def test_an_idle_process_does_not_outlive_its_server(own_globus: OwnGlobus, folder: Path) -> None:
    globus = own_globus()
    (folder / "go").touch()
    assert value(globus.call(WAITER, str(folder))) == "done"
    pid = engine(globus.home)
    kill_server(globus.home)
    until(lambda: gone(pid))


def flow_run(globus: LocalGlobus, function_id: str, folder: Path) -> str:
    """A run of three states: a task, a pass, a task."""

    def task(next_state: dict[str, Any]) -> dict[str, Any]:
        return {
            "Type": "Action",
            "ActionUrl": "https://compute.actions.globus.org/v3",
            "WaitTime": 600,
            "Parameters": {
                "endpoint_id": globus.endpoint_id,
                "user_endpoint_config": {"profile": "control"},
                "tasks": [{"function_id": function_id, "args": [str(folder)], "kwargs": {}}],
            },
            "ResultPath": "$.answer",
            **next_state,
        }

    definition = {
        "StartAt": "First",
        "States": {
            "First": task({"Next": "Between"}),
            "Between": {
                "Type": "Pass",
                "Parameters": {"kept": True},
                "ResultPath": "$.between",
                "Next": "Last",
            },
            "Last": task({"End": True}),
        },
    }
    flow = globus.flows.create_flow("restart", definition, {})
    specific = globus_sdk.SpecificFlowClient(flow["id"], app=globus.app)
    run_id: str = specific.run_flow({})["run_id"]
    return run_id


def test_a_run_ends_as_it_would_have(own_globus: OwnGlobus, folder: Path) -> None:
    globus = own_globus()
    run_id = flow_run(globus, globus.register(WAITER), folder)
    until(lambda: begun(folder))
    for _ in range(2):
        kill_server(globus.home)
        globus = own_globus()
    (folder / "go").touch()

    def ended() -> Any:
        run = globus.flows.get_run(run_id)
        return run.data if run["status"] != "ACTIVE" else None

    run = until(ended)
    assert run["status"] == "SUCCEEDED", run
    assert len(begun(folder)) == 2, "each of the two actions ran once"
    entries = globus.flows.get_run_logs(run_id, limit=100)["entries"]
    codes = [entry["code"] for entry in entries]
    assert codes.count("ActionStarted") == 2
    assert codes.count("ActionCompleted") == 2
    assert codes[-1] == "FlowSucceeded"
