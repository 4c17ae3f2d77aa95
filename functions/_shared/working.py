"""A step at work: it shows that it lives, notices an abort, and leaves nothing when it is stopped."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .files import remove_tree, write_text
from .results import StepFailed
from .run_folder import RUN_ID, RunFolder

HEARTBEAT_S = 5.0
DEAD_AFTER_S = 15 * 60  # a step that has not shown itself for so long was killed with its node
FORGOTTEN_AFTER_S = 14 * 24 * 3600  # longer than Globus Compute keeps a waiting task (two weeks)
SCRATCH = re.compile(r"cib-[0-9a-f]{8}-[A-Za-z0-9_]+")


@contextmanager
def working(
    folder: RunFolder, site: dict[str, Any], step: str, percent: int, *, publishes: bool = False
) -> Iterator[None]:
    """Around a step's body. Raises :class:`StepFailed` ``aborted`` at its begin and end when the run was asked
    to stop, after removing the run's work area: once a flow is cancelled, no later step would. A step that
    ``publishes`` is not called aborted once it is done.
    """
    folder.set_status("running", step, "", percent)
    folder.note_function(step)
    stop = threading.Event()

    def beat() -> None:
        while True:
            try:
                write_text(os.path.join(folder.path, "heartbeat"), "")
            except OSError:
                pass  # a full disk must not end the build that could free it
            if stop.wait(HEARTBEAT_S):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        folder.raise_if_aborted()
        yield
        if not publishes:
            folder.raise_if_aborted()
    except StepFailed as failure:
        if failure.code == "aborted":
            folder.clean_work(site)
            folder.set_status("finished", step, "aborted", 100)
        else:
            _leave(folder, step, percent)
        raise
    finally:
        stop.set()
        thread.join()
    if folder.read("status.json")["state"] == "running":
        folder.set_status("between", step, "", percent)


def _leave(folder: RunFolder, step: str, percent: int) -> None:
    """No step is at work any more: an abort that comes now must not wait for one to notice it."""
    try:
        folder.set_status("between", step, "failed", percent)
    except OSError:
        pass  # the step's own failure is what counts


def sweep(root: str, asking: RunFolder) -> list[str]:
    """Remove the work areas of runs that died; returns their run ids.

    Ages are differences between two files' times on that very file system, so no host's clock matters.
    """
    work = os.path.join(root, "work")
    write_text(os.path.join(asking.path, "heartbeat"), "")
    now = os.path.getmtime(os.path.join(asking.path, "heartbeat"))
    removed = []
    try:
        names = os.listdir(work)
    except OSError:
        return []
    for name in names:
        if name == asking.run_id or not RUN_ID.fullmatch(name):
            continue
        other = RunFolder(root, name)
        try:
            age = now - os.path.getmtime(os.path.join(other.path, "heartbeat"))
            state = other.read("status.json")["state"]
        except (OSError, ValueError, KeyError):
            try:
                age, state = now - os.path.getmtime(other.work), "between"
            except OSError:
                continue
        if (state != "between" and age > DEAD_AFTER_S) or age > FORGOTTEN_AFTER_S:
            remove_tree(other.work)
            removed.append(name)
    return removed


@contextmanager
def scratch_folder(parent: str, run_id: str) -> Iterator[str]:
    """A private folder on the node's own disk, removed at the end; a lock on it says that its owner lives."""
    sweep_scratch(parent)
    scratch = tempfile.mkdtemp(prefix=f"cib-{run_id[:8]}-", dir=parent)
    lock = os.open(os.path.join(scratch, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield scratch
    finally:
        remove_tree(scratch)
        os.close(lock)


def sweep_scratch(parent: str) -> None:
    """Remove scratch folders of this account whose owner died with the node or was killed."""
    try:
        names = os.listdir(parent)
    except OSError:
        return
    for name in names:
        path = os.path.join(parent, name)
        if not SCRATCH.fullmatch(name):
            continue
        try:
            if os.lstat(path).st_uid != os.geteuid() or os.path.islink(path):
                continue
            lock = os.open(os.path.join(path, "lock"), os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_tree(path)
        except OSError:
            pass  # its owner lives
        finally:
            os.close(lock)
