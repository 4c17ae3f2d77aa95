"""What Transfer does to files: copy, delete, and describe them. Blocking; called from threads."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cib_flows.local.transfer.collections import is_inside

__all__ = [
    "ChecksumMismatch",
    "CopyItem",
    "copy_file",
    "describe",
    "expand",
    "is_same",
    "remove",
]

CHUNK = 4 * 1024 * 1024


class ChecksumMismatch(OSError):
    """What was written is not what was read."""


@dataclass(frozen=True)
class CopyItem:
    """One file to copy, or with ``is_directory`` one folder to make."""

    source: Path
    destination: Path
    is_directory: bool


def expand(
    source: Path,
    destination: Path,
    recursive: bool | None,
    root: str,
    follow_links: bool,
    takes: Callable[[str, bool], bool] = lambda name, is_directory: True,
) -> Iterator[CopyItem]:
    """The files and folders that one transfer item stands for.

    ``recursive`` None takes the source for what it is. Symbolic links below a folder are left out,
    or followed where they stay inside ``root``; so are names that ``takes`` (told the name and
    whether it is a folder's) turns down. Raises OSError as the file system does.
    """
    mode = os.stat(source).st_mode
    if not stat.S_ISDIR(mode):
        if recursive:
            raise NotADirectoryError(20, "Not a directory", str(source))
        yield CopyItem(source, destination, is_directory=False)
        return
    if recursive is False:
        raise IsADirectoryError(21, "Is a directory", str(source))
    yield CopyItem(source, destination, is_directory=True)
    with os.scandir(source) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        child = Path(entry.path)
        if entry.is_symlink() and not (follow_links and is_inside(child, root)):
            continue
        if not takes(entry.name, entry.is_dir()):
            continue
        if entry.is_dir():
            yield from expand(child, destination / entry.name, True, root, follow_links, takes)
        elif entry.is_file():
            yield CopyItem(child, destination / entry.name, is_directory=False)


def is_same(source: Path, destination: Path, sync_level: int) -> bool:
    """Whether a sync at this level (0 existence, 1 size, 2 time, 3 checksum) leaves the file
    out."""
    try:
        there = os.stat(destination)
    except FileNotFoundError:
        return False
    here = os.stat(source)
    if sync_level >= 1 and here.st_size != there.st_size:
        return False
    if sync_level == 2 and here.st_mtime > there.st_mtime:
        return False
    return sync_level < 3 or digest(source, "sha256") == digest(destination, "sha256")


def digest(path: Path, algorithm: str) -> str:
    found = hashlib.new(algorithm)
    with open(path, "rb") as stream:
        while chunk := stream.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()


def copy_file(
    source: Path,
    destination: Path,
    *,
    verify: bool,
    preserve_time: bool,
    go_on: Callable[[], None],
    task_id: str,
    placing: Callable[[], None],
    expected: tuple[str, str] | None = None,
) -> int:
    """Copy one file beside its place, check it, and rename it into place; returns its size in
    bytes.

    ``go_on`` is called between chunks and may raise to stop, ``placing`` when only the renaming is
    left to do. ``expected`` is an ``(algorithm, hex digest)`` that the source must have. Raises
    :class:`ChecksumMismatch` and OSError; never leaves a part behind: what a killed process left,
    the next attempt of the same task replaces.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    mark = hashlib.sha256(f"{task_id}/{destination.name}".encode(errors="surrogateescape"))
    aside = destination.with_name(f".{mark.hexdigest()[:32]}.part")
    algorithm = expected[0] if expected else "sha256"
    read = hashlib.new(algorithm)
    size = 0
    aside.unlink(missing_ok=True)
    try:
        with open(source, "rb") as reading, open(aside, "xb") as writing:
            while chunk := reading.read(CHUNK):
                go_on()
                writing.write(chunk)
                read.update(chunk)
                size += len(chunk)
            writing.flush()
            os.fsync(writing.fileno())
        if expected and read.hexdigest().lower() != expected[1].lower():
            raise ChecksumMismatch(f"{source} does not have the expected {algorithm} checksum")
        if verify and digest(aside, algorithm) != read.hexdigest():
            raise ChecksumMismatch(f"{destination} was not written as {source} was read")
        shutil.copymode(source, aside)
        if preserve_time:
            times = os.stat(source)
            os.utime(aside, ns=(times.st_atime_ns, times.st_mtime_ns))
        placing()
        os.replace(aside, destination)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return size


def count(path: Path, recursive: bool) -> int:
    """How many files, links and folders :func:`remove` would delete. Raises IsADirectoryError for
    a folder without ``recursive``, FileNotFoundError for nothing."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        return 1
    if not recursive:
        raise IsADirectoryError(21, "Is a directory", str(path))
    return 1 + sum(len(folders) + len(names) for _, folders, names in os.walk(path))


def remove(path: Path, missing_ok: bool = False) -> None:
    """Delete a file, a link (not what it leads to), or a folder with all that it holds."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=missing_ok)
    else:
        shutil.rmtree(path)


def describe(path: Path, name: str | None = None) -> dict[str, Any]:
    """A ``file`` document as ``ls`` and ``stat`` show it."""
    found = os.lstat(path)
    target: str | None = None
    if stat.S_ISLNK(found.st_mode):
        target = os.readlink(path)
        try:
            found = os.stat(path)
        except OSError:
            pass  # a link to nothing is described as itself
    kind = "dir" if stat.S_ISDIR(found.st_mode) else "file"
    if stat.S_ISLNK(found.st_mode):
        kind = "invalid_symlink"
    return {
        "DATA_TYPE": "file",
        "name": path.name if name is None else name,
        "type": kind,
        "size": found.st_size,
        "permissions": f"{stat.S_IMODE(found.st_mode):04o}",
        "user": _user(found.st_uid),
        "group": _group(found.st_gid),
        "last_modified": datetime.fromtimestamp(int(found.st_mtime), timezone.utc).isoformat(" "),
        "link_target": target,
        "link_size": None,
        "link_user": None,
        "link_group": None,
        "link_last_modified": None,
    }


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
