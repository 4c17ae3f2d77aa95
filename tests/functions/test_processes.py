"""A guarded command ends when its purpose ends, with everything it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions._shared.processes import Ended, clean_environment, run_guarded

ROOT = Path(__file__).parents[2]


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    made = tmp_path / "scratch"
    (made / "sub").mkdir(parents=True)
    (made / "sub" / "file").write_text("x")
    return made


@pytest.fixture
def guarded(tmp_path: Path, scratch: Path) -> Callable[..., Ended]:
    def run(script: str, **options: Any) -> Ended:
        settings: dict[str, Any] = {
            "cwd": str(tmp_path),
            "environment": dict(os.environ),
            "log_path": str(tmp_path / "log"),
            "time_limit_s": 60.0,
            "scratch": [str(scratch)],
            "is_aborted": lambda: False,
            "on_tick": lambda _: None,
            **options,
        }
        return run_guarded(["/bin/sh", "-c", script], **settings)

    return run


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(holds: Callable[[], bool], what: str) -> None:
    tries = threading.Event()
    for _ in range(1500):
        if holds():
            return
        tries.wait(0.02)
    raise AssertionError(what)


# Reports its own pid, and that of a child which left its session as a daemon does.
TREE = "setsid sh -c 'echo $$ > daemon; exec sleep 600' & echo $$ > shell; sleep 600"


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_the_exit_status_is_the_commands(
    guarded: Callable[..., Ended], scratch: Path, script: str, status: int
) -> None:
    ended = guarded(script)
    assert (ended.status, ended.stopped) == (status, "")
    assert scratch.exists(), "only a stopped command's scratch is the guard's to remove"


def test_a_command_that_does_not_exist_fails(tmp_path: Path) -> None:
    ended = run_guarded(
        ["/nonexistent/apptainer"],
        cwd=str(tmp_path),
        environment={},
        log_path=str(tmp_path / "log"),
        time_limit_s=60,
        scratch=[],
        is_aborted=lambda: False,
        on_tick=lambda _: None,
    )
    assert ended.status not in (0, None)


def test_output_and_errors_share_the_log_in_their_order(
    guarded: Callable[..., Ended], tmp_path: Path
) -> None:
    (tmp_path / "log").write_text("before\n")
    guarded("for n in 1 2 3; do echo out$n; echo err$n >&2; done")
    expected = "before\n" + "".join(f"out{n}\nerr{n}\n" for n in (1, 2, 3))
    assert (tmp_path / "log").read_text() == expected


def test_output_can_be_kept_apart(guarded: Callable[..., Ended], tmp_path: Path) -> None:
    guarded("echo out; echo err >&2", output_path=str(tmp_path / "output"))
    assert (tmp_path / "output").read_text() == "out\n"
    assert (tmp_path / "log").read_text() == "err\n"


def test_endless_output_is_cut_and_the_command_goes_on(
    guarded: Callable[..., Ended], tmp_path: Path
) -> None:
    ended = guarded("head -c 3000000 /dev/zero; exit 3", max_output_bytes=1000)
    assert ended.status == 3
    text = (tmp_path / "log").read_bytes()
    assert text.startswith(b"\x00" * 1000 + b"\n[what was printed beyond 1000 bytes was left out]")
    assert len(text) < 1100


def test_standard_input_is_empty(guarded: Callable[..., Ended]) -> None:
    assert guarded("read line && exit 1 || exit 0").status == 0


def test_a_daemon_does_not_outlive_the_command(
    guarded: Callable[..., Ended], tmp_path: Path
) -> None:
    ended = guarded(
        "setsid sh -c 'echo $$ > daemon; exec sleep 600' & while [ ! -s daemon ]; do :; done"
    )
    assert ended.status == 0
    assert not alive(int((tmp_path / "daemon").read_text()))


@pytest.mark.parametrize("how", ["time_limit", "aborted"])
def test_a_stopped_command_ends_with_all_it_started(
    guarded: Callable[..., Ended], tmp_path: Path, scratch: Path, how: str
) -> None:
    started = tmp_path / "daemon"
    if how == "aborted":
        ended = guarded(
            TREE, is_aborted=lambda: started.exists() and started.stat().st_size > 0, tick_s=0.02
        )
    else:
        ended = guarded(TREE + " # limit", time_limit_s=2.0)
        wait_until(started.exists, "the daemon never began")
    assert (ended.status, ended.stopped) == (None, how)
    assert not alive(int((tmp_path / "shell").read_text()))
    assert not alive(int(started.read_text()))
    assert not scratch.exists()


def test_a_command_may_clean_up_before_it_ends(
    guarded: Callable[..., Ended], tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    guarded(
        "trap 'echo cleaned > cleaned; exit 1' TERM; echo > ready; while :; do sleep 0.05; done",
        is_aborted=ready.exists,
        tick_s=0.02,
    )
    assert (tmp_path / "cleaned").read_text() == "cleaned\n"


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_the_death_of_the_worker_ends_everything_and_removes_the_scratch(
    tmp_path: Path, scratch: Path, ending: signal.Signals
) -> None:
    program = (
        "import sys\n"
        "from cib_flows.functions._shared.processes import run_guarded\n"
        "run_guarded(['/bin/sh', '-c', sys.argv[1]], cwd=sys.argv[2], environment={'PATH': '/usr/bin:/bin'},\n"
        "    log_path=sys.argv[2] + '/log', time_limit_s=600, scratch=[sys.argv[2] + '/scratch'],\n"
        "    is_aborted=lambda: False, on_tick=lambda _: None)\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", program, TREE, str(tmp_path)], cwd=ROOT)
    daemon, shell = tmp_path / "daemon", tmp_path / "shell"
    wait_until(
        lambda: all(p.exists() and p.read_text().strip() for p in (daemon, shell)), "no start"
    )
    worker.send_signal(ending)
    worker.wait()
    pids = [int(p.read_text()) for p in (daemon, shell)]
    wait_until(lambda: not any(alive(pid) for pid in pids), "the command outlived its worker")
    wait_until(lambda: not scratch.exists(), "the scratch folder outlived its worker")


def test_ticks_come_while_the_command_runs(guarded: Callable[..., Ended], tmp_path: Path) -> None:
    ticks: list[float] = []

    def tick(elapsed: float) -> None:
        ticks.append(elapsed)
        if len(ticks) == 3:
            (tmp_path / "enough").write_text("")

    guarded("while [ ! -e enough ]; do sleep 0.02; done", on_tick=tick, tick_s=0.01)
    assert len(ticks) >= 3
    assert ticks == sorted(ticks)


def test_the_environment_of_an_engine_holds_nothing_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("APPTAINER_BIND", "SINGULARITY_CACHEDIR", "APPTAINERENV_X", "GLOBUS_COMPUTE_CLIENT_SECRET",
                 "CIB_FLOWS_CLIENT_SECRET", "FUNCX_X"):  # fmt: skip
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("APPTAINER_DOCKER_PASSWORD", "registry")
    monkeypatch.setenv("LMOD_CMD", "kept")
    found = clean_environment({"environment": {"SITE": "1"}})
    assert "secret" not in found.values()
    assert (found["LMOD_CMD"], found["SITE"], found["APPTAINER_NOCOLOR"]) == ("kept", "1", "1")
    assert found["APPTAINER_DOCKER_PASSWORD"] == "registry"


def test_a_scratch_folder_of_any_depth_and_mode_is_removed_when_the_command_is_stopped(
    guarded: Callable[..., Ended], scratch: Path
) -> None:
    (scratch / "shut" / "inner").mkdir(parents=True)
    there = os.open(scratch, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=there)
        there, above = os.open("d", os.O_RDONLY, dir_fd=there), there
        os.close(above)
    os.close(there)
    (scratch / "shut").chmod(0)
    assert guarded("sleep 60", time_limit_s=0.5).stopped == "time_limit"
    assert not scratch.exists()
