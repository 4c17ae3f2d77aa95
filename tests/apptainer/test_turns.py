"""Several runs that want the same image, and more builds than the site allows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from .conftest import PLAIN, LocalGlobus


def _built_by_apptainer(globus: LocalGlobus, run_id: str) -> bool:
    log = globus.root / "runs" / run_id / "build.log"
    return log.exists() and "Build complete" in log.read_text()


def test_the_same_build_twice_at_once_is_made_once(globus: LocalGlobus) -> None:
    path = globus.write_spec({"name": "twins", **PLAIN, "commands": ["sleep 4"]})
    first, second = (globus.cli("start", path, "--json").document["run_id"] for _ in range(2))
    results = [globus.cli("wait", run, "--json") for run in (first, second)]
    assert [answer.code for answer in results] == [0, 0], [answer.errors for answer in results]
    containers = {answer.document["container_id"] for answer in results}
    assert len(containers) == 1
    assert [_built_by_apptainer(globus, run) for run in (first, second)].count(True) == 1
    assert globus.leftovers() == []
    assert list((globus.root / "turns" / "builds").glob("*")) == []


def test_builds_beyond_the_sites_cap_wait_and_say_so(
    start_globus: Callable[..., LocalGlobus],
) -> None:
    narrow = start_globus(most_builds=1)
    runs = []
    for number in range(2):
        path = narrow.write_spec(
            {"name": f"queued-{number}", **PLAIN, "commands": [f"sleep {4 + number}"]}
        )
        runs.append(narrow.cli("start", path, "--json").document["run_id"])
    results = [narrow.cli("wait", run, "--json") for run in runs]
    assert [answer.code for answer in results] == [0, 0], [answer.errors for answer in results]
    waited = []
    for run in runs:
        plan = json.loads(Path(narrow.root / "runs" / run / "plan.json").read_text())
        waited.append("waits_since" in plan)
    assert waited.count(True) == 1
    assert all(_built_by_apptainer(narrow, run) for run in runs)
    assert list((narrow.root / "turns" / "slots").glob("*")) == []
