"""Where a build unpacks, and how much of the node it may use."""

from __future__ import annotations

import os
import tempfile

from .results import StepFailed

GIB = 1024**3
MIN_FREE_BYTES = 2 * GIB
# Unpacked tree, squashed image and downloads of a build about which nothing is known yet.
USUAL_BUILD_BYTES = 6 * GIB
MEMORY_FOLDER = "/dev/shm"  # the tmpfs that Linux systems mount for this purpose


def choose_tmpdir(
    wanted: str | None,
    fallback: str,
    need_bytes: int = USUAL_BUILD_BYTES,
    *,
    in_memory: bool = False,
) -> str:
    """The folder to unpack in: the site's ``wanted`` one, else memory when the build fits, else the node's disk.

    Many small files are written several times faster to memory than to a disk. ``/dev/shm`` is taken only
    where the site says so, because it is the node's memory, and an old engine shows it to builds; it
    counts when half of what the node, and the job's cgroup, have left holds ``need_bytes``. The user's own
    runtime folder is memory that no build can see, though seldom large enough.
    """
    if wanted:
        path = node_path(wanted, "tmpdir")
        os.makedirs(path, exist_ok=True)
        return path
    if available_memory() // 2 >= need_bytes:
        private = os.environ.get("XDG_RUNTIME_DIR", "")
        for path in (private, MEMORY_FOLDER if in_memory else ""):
            if path and _is_fit(path, need_bytes):
                return path
    for path in (tempfile.gettempdir(), "/var/tmp", fallback):
        if _is_fit(path, MIN_FREE_BYTES):
            return path
    raise StepFailed(
        "disk_full",
        f"No temporary folder on the build node has {MIN_FREE_BYTES // GIB} GiB free for a build.",
        "Ask the endpoint's administrator to set 'tmpdir' in the site profile.",
    )


def node_path(given: str, key: str) -> str:
    """The site profile's path ``key`` with ``~`` and this node's variables filled in.

    Raises :class:`StepFailed` ``site_invalid`` where a variable is not set: a folder called ``$SCRATCH`` would
    be made wherever the worker happens to stand.
    """
    path: str = os.path.expandvars(os.path.expanduser(given))
    if not path.startswith("/") or "$" in path:
        raise StepFailed(
            "site_invalid",
            f"The site profile's '{key}' must be an absolute path, and on this node it is {path or 'empty'}.",
            "Ask the endpoint's administrator to correct it; a variable in it may not be set on this node.",
        )
    return path


def _is_fit(path: str, need_bytes: int) -> bool:
    try:
        info = os.statvfs(path)
    except OSError:
        return False
    return (
        not info.f_flag & os.ST_NOEXEC
        and info.f_bavail * info.f_frsize >= need_bytes
        and os.access(path, os.W_OK | os.X_OK)
    )


def available_memory() -> int:
    """Bytes of memory that this process may still use: the node's, or its cgroup's where that is less."""
    available = 0
    try:
        with open("/proc/meminfo", encoding="ascii") as stream:
            for line in stream:
                if line.startswith("MemAvailable:"):
                    available = int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return 0
    for limit, used in _cgroup_memory():
        available = min(available, max(0, limit - used))
    return available


def _cgroup_memory() -> list[tuple[int, int]]:
    """``(limit, used)`` in bytes of every cgroup above this process, version 2 or 1."""
    found = []
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as stream:
            lines = stream.read().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit_name, used_name = "/sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top = "/sys/fs/cgroup/memory"
            limit_name, used_name = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        folder = path
        while True:
            place = f"{top}{folder.rstrip('/')}"
            try:
                with open(f"{place}/{limit_name}", encoding="ascii") as stream:
                    limit = stream.read().strip()
                with open(f"{place}/{used_name}", encoding="ascii") as stream:
                    used = stream.read().strip()
                if limit.isdigit() and used.isdigit():
                    found.append((int(limit), int(used)))
            except OSError:
                pass
            if folder in ("/", ""):
                break
            folder = os.path.dirname(folder)
    return found


def processors() -> int:
    """How many processors this process may use: its affinity, not the node's size."""
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 1
