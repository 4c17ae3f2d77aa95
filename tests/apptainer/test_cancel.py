"""A cancel reaches the build where it runs, and cleans up."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from .conftest import PLAIN, LocalGlobus

SLEEPER = "sleep 987"


def _wait_for(what: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.2)
    return False


def _sleepers() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", b"987"]:
            found.append(path.parent.name)
    return found


def test_cancel_stops_the_build_and_leaves_nothing(globus: LocalGlobus) -> None:
    path = globus.write_spec({"name": "endless", **PLAIN, "commands": [SLEEPER]})
    started = globus.cli("start", path, "--json")
    assert started.code == 0, started.errors
    run_id = started.document["run_id"]
    assert _wait_for(lambda: bool(_sleepers()), 120), "the build never came to its command"
    answer = globus.cli("cancel", run_id, "--json")
    assert answer.code == 0, answer.errors
    assert _wait_for(lambda: not _sleepers(), 60), "the build went on after the cancel"
    assert _wait_for(lambda: not globus.leftovers(), 60), globus.leftovers()
    waited = globus.cli("wait", run_id, "--json")
    assert waited.code == 1
    assert globus.cli("status", run_id, "--json").document["status"] == "FAILED"
    assert (globus.root / "runs" / run_id / "build.log").exists()


def test_a_build_past_its_time_limit_is_stopped(
    start_globus: Callable[..., LocalGlobus],
) -> None:
    hasty = start_globus(build_time_limit_s=8)
    answer = hasty.build({"name": "endless", **PLAIN, "commands": [SLEEPER]})
    assert answer.code == 1
    failure = answer.document["failure"]
    assert failure["code"] == "time_limit"
    assert "8 seconds" in failure["sentence"]
    assert _sleepers() == []
    assert hasty.leftovers() == []
