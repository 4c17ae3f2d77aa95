"""The names, modes and sizes in an image's file system, listed without running the image."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator
from itertools import islice

from .sif import SquashPartition

LISTING_LIMIT_S = 600
MAX_ENTRIES_LISTED = 5_000_000
MAX_LINE_BYTES = 16 * 1024
# -rw-r--r-- 0/0   1234 2026-11-20 09:21 squashfs-root/usr/bin/x, or "8, 1" in place of a device's size
LINE = re.compile(
    r"(?P<mode>[-dlcbps][-rwxsStT]{9}) (?P<uid>\d+)/(?P<gid>\d+) +(?P<size>\d+(?:, *\d+)?) "
    r"\d{4}-\d\d-\d\d \d\d:\d\d /(?P<path>.*)"
)


class ListedFile:
    """One entry: ``mode`` as ls writes it, and ``path`` from ``/`` (a link's ends with `` -> target``)."""

    __slots__ = ("gid", "mode", "path", "size", "uid")

    def __init__(self, path: str, mode: str, uid: int, gid: int, size: str) -> None:
        self.path = path
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = size


def list_image(path: str, partition: SquashPartition) -> list[ListedFile] | None:
    """Everything in the image; None where the node has no ``unsquashfs`` that can read it, or it has no end."""
    program = shutil.which("unsquashfs")
    if not program:
        return None
    command = [program, "-o", str(partition.offset), "-d", "", "-lln", path]
    try:
        lister = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return None
    # a file system that a stranger wrote may hold itself, and then its listing has no end
    ending = threading.Timer(LISTING_LIMIT_S, lister.kill)
    ending.start()
    try:
        with lister:
            lines = iter(lambda: lister.stdout.readline(MAX_LINE_BYTES), b"")  # type: ignore[union-attr]
            found = list(islice(parse_listing(lines), MAX_ENTRIES_LISTED + 1))
            if len(found) > MAX_ENTRIES_LISTED:
                lister.kill()
    finally:
        ending.cancel()
    return found if found and lister.returncode == 0 else None


def parse_listing(lines: Iterable[bytes]) -> Iterator[ListedFile]:
    """The entries in the lines of ``unsquashfs -lln``; other lines are passed over."""
    for line in lines:
        found = LINE.fullmatch(line.decode("utf-8", "surrogateescape").rstrip("\n"))
        if found:
            yield ListedFile(
                "/" + found["path"],
                found["mode"],
                int(found["uid"]),
                int(found["gid"]),
                found["size"],
            )


def unreadable(listing: list[ListedFile], places: list[str], *, everywhere: bool) -> list[str]:
    """Files and folders below ``places``, or among them, that only their owner or group can read; with
    ``everywhere`` also Python packages wherever they are.

    In other places a distribution has its reasons, as for ``/etc/shadow`` or apt's caches.
    """
    found = []
    for entry in listing:
        is_folder = entry.mode[0] == "d"
        is_open = entry.mode[7] == "r" and (not is_folder or entry.mode[9] in "xt")
        if is_open or entry.mode[0] not in "d-":
            continue
        inside = any(entry.path == place or entry.path.startswith(place + "/") for place in places)
        if inside or (everywhere and "-packages/" in entry.path):
            found.append(entry.path)
    return found
