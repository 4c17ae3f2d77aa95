"""Who builds when several runs want to: liveness comes from the shared file system alone."""

from __future__ import annotations

import errno
import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cib_flows.functions._shared.catalogue import Catalogue
from cib_flows.functions._shared.files import write_json
from cib_flows.functions._shared.run_folder import RunFolder
from cib_flows.functions._shared.site import DEFAULT_BUILD_TIME_LIMIT_S
from cib_flows.functions._shared.turns import Turns, ask_for_turn
from cib_flows.functions._shared.working import sweep

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


def test_who_waits_is_not_told_the_id_by_which_a_build_can_be_aborted(tmp_path: Path) -> None:
    first, second = run_in(tmp_path), run_in(tmp_path)
    plan = {"build_digest": DIGEST, "force": False}
    catalogue = Catalogue(str(tmp_path))
    assert ask_for_turn(Turns(str(tmp_path), first), catalogue, plan, None) == ("", None)
    why, _ = ask_for_turn(Turns(str(tmp_path), second), catalogue, plan, None)
    assert first.run_id[:8] in why
    assert first.run_id not in why


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
    age(first, 1800)
    assert Turns(str(tmp_path), second).take_build(DIGEST) == first.run_id
    # cancelled between two steps, which nothing on the endpoint could notice
    age(first, DEFAULT_BUILD_TIME_LIMIT_S / 2)
    assert Turns(str(tmp_path), second).take_build(DIGEST) is None


def test_a_holder_whose_status_is_being_replaced_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = run_in(tmp_path), run_in(tmp_path)
    assert Turns(str(tmp_path), first).take_build(DIGEST) is None

    def stale(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(RunFolder, "read", stale)
    assert Turns(str(tmp_path), second).take_build(DIGEST) == first.run_id
    age(first, 3600)
    assert Turns(str(tmp_path), second).take_build(DIGEST) is None


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


def test_a_turn_that_changed_hands_meanwhile_stays_with_its_new_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both see the dead holder; the slower must not take away what the quicker has taken by then."""
    dead, quick, slow = run_in(tmp_path), run_in(tmp_path), run_in(tmp_path)
    assert Turns(str(tmp_path), dead).take_build(DIGEST) is None
    age(dead, 3600)
    turns = Turns(str(tmp_path), slow)
    lives = turns._lives

    def look(run_id: str) -> bool:
        alive = lives(run_id)
        if run_id == dead.run_id:
            assert Turns(str(tmp_path), quick).take_build(DIGEST) is None
        return alive

    monkeypatch.setattr(turns, "_lives", look)
    assert turns.take_build(DIGEST) == quick.run_id
    assert (tmp_path / "turns" / "builds" / DIGEST).read_text() == quick.run_id
    assert [path.name for path in (tmp_path / "turns" / "builds").iterdir()] == [DIGEST]


def test_a_turn_without_a_name_is_being_written_or_was_left(tmp_path: Path) -> None:
    turn = tmp_path / "turns" / "builds" / DIGEST
    turn.parent.mkdir(parents=True)
    turn.write_text("")
    asking = run_in(tmp_path)
    assert Turns(str(tmp_path), asking).take_build(DIGEST) == "another run"
    then = turn.stat().st_mtime - 3600
    os.utime(turn, (then, then))
    assert Turns(str(tmp_path), asking).take_build(DIGEST) is None


def test_a_run_that_asks_again_keeps_one_slot(tmp_path: Path) -> None:
    first, second = run_in(tmp_path), run_in(tmp_path)
    assert Turns(str(tmp_path), first).take_slot(2)
    assert Turns(str(tmp_path), second).take_slot(2)
    Turns(str(tmp_path), first).release_slots()
    assert Turns(str(tmp_path), second).take_slot(2), "its node died, and it builds again"
    assert len(list((tmp_path / "turns" / "slots").iterdir())) == 1


@pytest.mark.parametrize("skew", [-7200, 7200])
def test_a_clock_that_is_hours_off_kills_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew: float
) -> None:
    """Only the host's clock is off; files have the storage's times."""
    first, second = run_in(tmp_path), run_in(tmp_path)
    assert Turns(str(tmp_path), first).take_build(DIGEST) is None
    there = time.time
    monkeypatch.setattr(time, "time", lambda: there() + skew)
    assert Turns(str(tmp_path), second).take_build(DIGEST) == first.run_id
    assert sweep(str(tmp_path), second) == []
    assert os.path.isdir(first.work)
