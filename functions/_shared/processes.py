"""Running a long command that must not outlive its purpose.

The command runs under a small guard process that holds one end of a pipe. Whatever ends the function (a
result, a time limit, an abort, the death of its worker), the pipe closes, and the guard ends everything that
the command started, daemons too, and removes its scratch folders.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

POLL_S = 0.1
GRACE_S = 20

MAX_OUTPUT_BYTES = 64 * 1024 * 1024  # a program that prints without end must not fill the storage

# Runs by itself in a bare Python. Reads its own lifeline on standard input; arguments: grace seconds, the most
# bytes of output to keep, number of scratch folders, the folders, then the command.
GUARD = r"""
import os, shutil, signal, subprocess, sys, threading, time
try:
    # whoever leaves the command's session becomes our child: PR_SET_CHILD_SUBREAPER
    import ctypes
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
except (ImportError, OSError, AttributeError):
    pass
grace, limit, count = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
scratch, command = sys.argv[4:4 + count], sys.argv[4 + count:]
together = os.path.sameopenfile(1, 2)
child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT if together else subprocess.PIPE, start_new_session=True)
ending = threading.Event()
def keep(pipe, target):
    left = limit
    while True:
        data = os.read(pipe.fileno(), 65536)
        if not data:
            return
        kept, left = data[:max(left, 0)], left - len(data)
        if kept and left <= 0:
            kept += b"\n[what was printed beyond %d bytes was left out]\n" % limit
        try:
            while kept:
                kept = kept[os.write(target, kept):]
        except OSError:
            left = 0
keepers = [threading.Thread(target=keep, args=pair, daemon=True)
           for pair in ((child.stdout, 1), (child.stderr, 2)) if pair[0]]
for keeper in keepers:
    keeper.start()
def living():
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/" + name + "/stat", "rb") as stat:
                    state, parent = stat.read().rpartition(b")")[2].split()[:2]
            except (OSError, ValueError):
                continue
            if state != b"Z":
                parents[int(name)] = int(parent)
    found, level = [], {os.getpid()}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level}
        found += level
    return found
def stop(sig, pids):
    for pid in pids:
        try:
            os.kill(pid, sig)
        except (ProcessLookupError, PermissionError):
            pass
def stop_all():
    for _ in range(100):
        pids = living()
        if not pids:
            return
        stop(signal.SIGKILL, pids)
        time.sleep(0.02)
def watch():
    while os.read(0, 4096):
        pass
    ending.set()
    try:
        os.killpg(child.pid, signal.SIGTERM)
    except (ProcessLookupError, PermissionError):
        pass
    end = time.monotonic() + grace
    while child.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    stop_all()
    for folder in scratch:
        # by programs, since a tree may be deeper than Python goes; the last is for files of mapped ids
        for words in (["chmod", "-R", "u+rwx"], ["rm", "-rf"],
                      ["unshare", "--user", "--map-root-user", "--map-auto", "rm", "-rf"]):
            if os.path.lexists(folder) and shutil.which(words[0]):
                subprocess.run([*words, "--", folder], stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os._exit(0)
for sig in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
    signal.signal(sig, signal.SIG_IGN)
watcher = threading.Thread(target=watch, daemon=True)
watcher.start()
code = child.wait()
if ending.is_set():
    watcher.join()
stop_all()
for keeper in keepers:
    keeper.join(10)
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
    output_path: str | None = None,
    max_output_bytes: int = MAX_OUTPUT_BYTES,
) -> Ended:
    """Run ``command``, its output appended to ``log_path``, or standard output to ``output_path`` where given;
    ``on_tick(elapsed seconds)`` is called about every ``tick_s``. ``scratch`` folders are removed when the
    command is stopped, not when it ends by itself.
    """
    started = time.monotonic()
    with open(log_path, "ab") as log, open(output_path or log_path, "ab") as output:
        guard = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                "-c",
                GUARD,
                str(GRACE_S),
                str(max_output_bytes),
                str(len(scratch)),
                *scratch,
                *command,
            ],
            cwd=cwd,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=log,
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
