"""Running a long command that must not outlive its purpose.

The command runs under a small guard process that holds one end of a pipe. Whatever ends the function (a
result, a time limit, an abort, the death of its worker), the pipe closes, and the guard ends the command's
whole process group and removes its scratch folders.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

POLL_S = 0.1
GRACE_S = 20

# Runs by itself in a bare Python. Reads its own lifeline on standard input; arguments: grace seconds, number
# of scratch folders, the folders, then the command.
GUARD = r"""
import os, shutil, signal, subprocess, sys, threading, time
grace, count = float(sys.argv[1]), int(sys.argv[2])
scratch, command = sys.argv[3:3 + count], sys.argv[3 + count:]
child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
def stop(sig):
    try:
        os.killpg(child.pid, sig)
    except (ProcessLookupError, PermissionError):
        pass
def watch():
    while os.read(0, 4096):
        pass
    stop(signal.SIGTERM)
    end = time.monotonic() + grace
    while child.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    stop(signal.SIGKILL)
    for folder in scratch:
        for there, names, _ in os.walk(folder):
            for name in names:
                path = os.path.join(there, name)
                try:
                    if not os.path.islink(path):
                        os.chmod(path, 0o700)
                except OSError:
                    pass
        shutil.rmtree(folder, ignore_errors=True)
        if os.path.lexists(folder) and shutil.which("unshare"):
            subprocess.run(["unshare", "--user", "--map-root-user", "--map-auto", "rm", "-rf", "--", folder],
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os._exit(0)
for sig in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
    signal.signal(sig, signal.SIG_IGN)
threading.Thread(target=watch, daemon=True).start()
code = child.wait()
os._exit(code if code >= 0 else 128 - code)
"""


class Ended:
    """How a guarded command ended.

    ``status`` is its exit status (128 + signal when killed), or None when it was stopped; ``stopped`` then
    says why: ``time_limit`` or ``aborted``.
    """

    def __init__(self, status: int | None, stopped: str, elapsed_s: float) -> None:
        self.status = status
        self.stopped = stopped
        self.elapsed_s = elapsed_s


def run_guarded(
    command: list[str],
    *,
    cwd: str,
    environment: dict[str, str],
    log_path: str,
    time_limit_s: float,
    scratch: list[str],
    is_aborted: Callable[[], bool],
    on_tick: Callable[[float], None],
    tick_s: float = 1.0,
) -> Ended:
    """Run ``command``, its output appended to ``log_path``; ``on_tick(elapsed seconds)`` is called about
    every ``tick_s``. ``scratch`` folders are removed when the command is stopped, not when it ends by itself.
    """
    started = time.monotonic()
    with open(log_path, "ab") as log:
        guard = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                "-c",
                GUARD,
                str(GRACE_S),
                str(len(scratch)),
                *scratch,
                *command,
            ],
            cwd=cwd,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    lifeline = guard.stdin
    assert lifeline is not None
    stopped = ""
    next_tick = 0.0
    try:
        while True:
            elapsed = time.monotonic() - started
            if elapsed >= next_tick:
                if is_aborted():
                    stopped = "aborted"
                    break
                on_tick(elapsed)
                next_tick = elapsed + tick_s
            if elapsed > time_limit_s:
                stopped = "time_limit"
                break
            try:
                guard.wait(timeout=POLL_S)
                break
            except subprocess.TimeoutExpired:
                continue
    finally:
        lifeline.close()
        guard.wait()
    elapsed = time.monotonic() - started
    return Ended(None if stopped else guard.returncode, stopped, elapsed)


def clean_environment(site: dict[str, object]) -> dict[str, str]:
    """This process's environment for a container engine: nothing of another Apptainer, no Globus secrets.

    A site module's ``APPTAINER_BIND`` would reach ``%post`` and fail there; credentials of the endpoint must
    not reach a program that runs a stranger's recipe.
    """
    secret = ("GLOBUS_", "CIB_FLOWS_", "FUNCX_")
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("APPTAINER", "SINGULARITY", *secret))
    }
    for key in ("APPTAINER_DOCKER_USERNAME", "APPTAINER_DOCKER_PASSWORD", "APPTAINER_BUILD_ARCH"):
        if key in os.environ:
            kept[key] = os.environ[key]
    given = site.get("environment")
    if isinstance(given, dict):
        kept.update({str(k): str(v) for k, v in given.items()})
    kept["APPTAINER_NOCOLOR"] = "1"
    return kept
