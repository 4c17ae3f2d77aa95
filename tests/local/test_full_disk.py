"""The disk is full: what was kept stays, clients are told to try again, and work goes on once there
is room."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cib_flows.local.compute import wire
from cib_flows.local.compute.service import Submission
from cib_flows.local.database import Database, DiskFull

from .conftest import REPOSITORY
from .test_providers import Services


def fill(database: Database) -> None:
    """From now on, the file may not grow."""
    row = database.row("PRAGMA page_count")
    assert row is not None
    database._connection.execute(f"PRAGMA max_page_count = {row[0]}")


def make_room(database: Database) -> None:
    database._connection.execute("PRAGMA max_page_count = 1000000")


def write_two(database: Database) -> None:
    with database.transaction():
        database.execute("INSERT INTO t VALUES ('small')")
        database.execute("INSERT INTO t VALUES (?)", ("x" * 100_000,))


def test_a_write_that_found_no_room_can_be_repeated(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db")
    database.create("CREATE TABLE t (a TEXT)")
    database.execute("INSERT INTO t VALUES ('kept')")
    fill(database)
    for _ in range(2):
        with pytest.raises(DiskFull, match="disk is full"):
            write_two(database)
    assert [row["a"] for row in database.rows("SELECT a FROM t")] == ["kept"]
    make_room(database)
    database.execute("INSERT INTO t VALUES (?)", ("x" * 100_000,))
    assert len(database.rows("SELECT a FROM t")) == 2


def test_a_submission_that_found_no_room_leaves_nothing(tmp_path: Path) -> None:
    services = Services(tmp_path / "home")
    big = wire.pack_arguments(["x" * 200_000], {})
    submission = Submission(services.compute.endpoint_id, [(services.function_id, big)])
    fill(services.database)
    with pytest.raises(DiskFull):
        asyncio.run(services.compute.submit(submission))
    assert services.engines.tasks == []
    assert services.compute.store.open_tasks() == []
    make_room(services.database)
    asyncio.run(services.compute.submit(submission))
    assert len(services.engines.tasks) == 1


SCENARIO = """
import json, os, sys, time
from pathlib import Path
import globus_sdk
from cib_flows.local import control
from tests.local.conftest import LocalGlobus, pack, until, value
from cib_flows.local.home import Home

home = Home(sys.argv[1])
control.start(home, compute_port=False)
os.environ.update({k: v for k, v in home.environment().items() if k.startswith("GLOBUS_SDK_")})
globus = LocalGlobus(home, home.environment())
echo = globus.register("def big(folder):\\n    import os, time\\n    while not os.path.exists(folder + '/go'):\\n"
                       "        time.sleep(0.02)\\n    return 'x' * 60000\\n")
task = globus.submit(echo, sys.argv[2])[0]
definition = {"StartAt": "A", "States": {"A": {"Type": "Action",
    "ActionUrl": "https://compute.actions.globus.org/v3", "WaitTime": 600,
    "Parameters": {"endpoint_id": globus.endpoint_id, "user_endpoint_config": {"profile": "control"},
                   "tasks": [{"function_id": echo, "args": [sys.argv[2]]}]},
    "ResultPath": "$.a", "End": True}}}
flow = globus.flows.create_flow("full", definition, {})
run_id = globus_sdk.SpecificFlowClient(flow["id"], app=globus.app).run_flow({})["run_id"]

filler = home.path / "filler"
with filler.open("wb", buffering=0) as stream:
    try:
        while True:
            stream.write(b"\\0" * 4096)
    except OSError:
        pass
refused = None
quick = globus_sdk.ComputeClientV3(app=globus.app, transport=None)
try:
    with quick.retry_config.tune(max_retries=0):
        quick.register_function({"function_name": "f", "function_code": "def f(): pass #" + "x" * 300000,
                                 "serialized": False})
except globus_sdk.GlobusAPIError as problem:
    refused = [problem.http_status]
try:
    with globus.flows.retry_config.tune(max_retries=0):
        globus.flows.create_flow("x" * 100, definition, {"description": "x" * 300000})
except globus_sdk.GlobusAPIError as problem:
    refused += [problem.http_status, problem.code]
Path(sys.argv[2], "go").touch()
time.sleep(2)   # the results arrive while there is no room
during = globus.compute_v2.get_task(task)["status"]
filler.unlink()
assert len(value(globus.finished(task))) == 60000
run = until(lambda: (lambda r: r.data if r["status"] != "ACTIVE" else None)(globus.flows.get_run(run_id)))
pid = home.running().pid
control.stop(home)
control.start(home, compute_port=False)
again = globus.compute_v2.get_task(task)["status"]
control.stop(home)
print(json.dumps({"refused": refused, "during": during, "run": run["status"], "again": again}))
"""


def test_a_server_outlives_a_full_disk(tmp_path: Path) -> None:
    """On a file system of a few megabytes, in a mount namespace of the test's own."""
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*namespace, "true"]).returncode != 0:
        pytest.skip("this system gives ordinary users no mount namespace")
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    (tmp_path / "scenario.py").write_text(SCENARIO)
    script = 'mount -t tmpfs -o size=6m none "$1" && exec "$2" "$3" "$1" "$4"'
    done = subprocess.run(
        [
            *namespace,
            "sh",
            "-c",
            script,
            "sh",
            home,
            sys.executable,
            tmp_path / "scenario.py",
            work,
        ],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["refused"] == [503, 503, "SERVICE_UNAVAILABLE"]
    assert report["during"] == "waiting-for-ep"
    assert report["run"] == "SUCCEEDED"
    assert report["again"] == "success"
