"""Who builds when several runs want to: liveness comes from the shared file system alone."""

from __future__ import annotations

import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cib_flows.functions._shared.files import write_json
from cib_flows.functions._shared.run_folder import RunFolder
from cib_flows.functions._shared.turns import Turns

DIGEST = "d" * 64


def run_in(root: Path, state: str = "running") -> RunFolder:
    folder = RunFolder(str(root), str(uuid.uuid4()))
    folder.create()
    folder.set_status(state, "build_image")
    Path(folder.path, "heartbeat").write_text("")
    return folder


def age(folder: RunFolder, seconds: float) -> None:
    path = Path(folder.path, "heartbeat")
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_the_second_is_told_who_builds_and_may_go_on_afterwards(tmp_path: Path) -> None:
    first, second = run_in(tmp_path), run_in(tmp_path)
    assert Turns(str(tmp_path), first).take_build(DIGEST) is None
    assert Turns(str(tmp_path), first).take_build(DIGEST) is None, "one's own turn is kept"
    assert Turns(str(tmp_path), second).take_build(DIGEST) == first.run_id
    Turns(str(tmp_path), second).release(DIGEST)
    assert Turns(str(tmp_path), second).take_build(DIGEST) == first.run_id, (
        "not another's to release"
    )
    Turns(str(tmp_path), first).release(DIGEST)
    assert Turns(str(tmp_path), second).take_build(DIGEST) is None


@pytest.mark.parametrize("end", ["dead", "finished", "aborted", "result", "swept"])
def test_a_holder_that_will_not_come_back_is_replaced(tmp_path: Path, end: str) -> None:
    first, second = run_in(tmp_path), run_in(tmp_path)
    assert Turns(str(tmp_path), first).take_build(DIGEST) is None
    if end == "dead":
        age(first, 3600)
    elif end == "finished":
        first.set_status("finished", "build_image")
    elif end == "aborted":
        Path(first.abort).write_text("")
    elif end == "result":
        write_json(os.path.join(first.path, "result.json"), {})
    else:
        os.unlink(os.path.join(first.path, "heartbeat"))
    assert Turns(str(tmp_path), second).take_build(DIGEST) is None


def test_a_holder_whose_next_step_waits_in_a_queue_keeps_its_turn(tmp_path: Path) -> None:
    first, second = run_in(tmp_path), run_in(tmp_path)
    assert Turns(str(tmp_path), first).take_build(DIGEST) is None
    first.set_status("between", "build_image")
    age(first, 3600)
    assert Turns(str(tmp_path), second).take_build(DIGEST) == first.run_id


def test_no_more_than_the_cap_hold_a_slot(tmp_path: Path) -> None:
    runs = [run_in(tmp_path) for _ in range(5)]
    taken = [Turns(str(tmp_path), run).take_slot(2) for run in runs]
    assert taken == [True, True, False, False, False]
    Turns(str(tmp_path), runs[0]).release_slots()
    assert Turns(str(tmp_path), runs[3]).take_slot(2)
    assert not Turns(str(tmp_path), runs[4]).take_slot(2)


def test_of_many_at_once_one_takes_the_turn(tmp_path: Path) -> None:
    runs = [run_in(tmp_path) for _ in range(16)]
    dead = run_in(tmp_path)
    assert Turns(str(tmp_path), dead).take_build(DIGEST) is None
    age(dead, 3600)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda run: Turns(str(tmp_path), run).take_build(DIGEST), runs))
    assert answers.count(None) >= 1
    holder = (tmp_path / "turns" / "builds" / DIGEST).read_text()
    assert holder in [run.run_id for run in runs]
