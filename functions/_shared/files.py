"""Files that are whole or not there: write aside, fsync, rename; and their digests."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import stat
import subprocess
from collections.abc import Iterator
from typing import Any

CHUNK_BYTES = 1024 * 1024


def canonical_json(value: Any) -> str:
    """One text for one value, whatever the order of its keys: what digests are made of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sha256_file(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def copy_file(source: str, target: str) -> str:
    """Copy a file in one reading; returns the sha256 of what the copy holds."""
    digest = hashlib.sha256()
    with open(source, "rb", buffering=0) as given, open(target, "wb", buffering=0) as copy:
        while chunk := given.read(CHUNK_BYTES):
            digest.update(chunk)
            left = memoryview(chunk)
            while left:
                try:
                    left = left[copy.write(left) :]
                except OSError as error:
                    # a full disk, and which
                    raise OSError(error.errno, error.strerror, target) from None
    return digest.hexdigest()


def sync_folder(path: str) -> None:
    """Make a rename in ``path`` survive a power cut, where the filesystem can."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def write_text(path: str, text: str, mode: int = 0o644) -> None:
    """Replace ``path`` by ``text`` in one step; readers see the old content or the new, never half."""
    folder, name = os.path.split(path)
    aside = os.path.join(folder, f".{name}.{secrets.token_hex(6)}")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        # half a character of a tool's output becomes \udc80, which is JSON too
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, path)
    except BaseException as error:
        if os.path.exists(aside):
            os.unlink(aside)
        if isinstance(error, OSError):
            error.filename = path  # so that a full disk is said to be that one
        raise
    sync_folder(folder)


def write_json(path: str, value: Any, mode: int = 0o644) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", mode)


def read_json(path: str) -> Any:
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)


def walk_tree(root: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """As ``os.walk``, of trees however deep: a stranger may have made them. What cannot be read is passed over."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        folders: list[str] = []
        names: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    is_folder = entry.is_dir(follow_symlinks=False)
                    (folders if is_folder else names).append(entry.name)
        except OSError:
            continue
        yield folder, folders, names
        waiting += [os.path.join(folder, name) for name in folders]


def remove_tree(path: str) -> bool:
    """Remove a file or folder whatever its modes and depth; returns whether it is gone.

    A build killed half-way may leave files that belong to mapped sub-ids, which only a user namespace with
    the same mapping may remove.
    """
    if not os.path.lexists(path):
        return True
    if os.path.islink(path) or not os.path.isdir(path):
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass  # another was faster
        return True
    for folder, folders, _ in _and_itself(path):
        for name in folders:
            try:
                os.chmod(os.path.join(folder, name), stat.S_IRWXU)
            except OSError:
                pass
    try:
        shutil.rmtree(path, ignore_errors=True)
    except RecursionError:
        pass  # deeper than Python goes, but not than rm
    for words in (["rm"], ["unshare", "--user", "--map-root-user", "--map-auto", "rm"]):
        if os.path.lexists(path) and shutil.which(words[0]):
            subprocess.run(
                [*words, "-rf", "--", path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=600,
                check=False,
            )
    return not os.path.lexists(path)


def _and_itself(path: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """The tree, with its root as the first folder of what is around it: each is met before it is looked into."""
    yield os.path.dirname(path), [os.path.basename(path)], []
    yield from walk_tree(path)


def read_lent(path: str, limit: int) -> str:
    """The beginning of a small file that a stranger's program wrote; empty unless it is a plain file.

    A link could lead elsewhere, and opening a pipe would wait for ever.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        return ""
    with os.fdopen(handle, "rb") as stream:
        return stream.read(limit).decode("utf-8", "replace")


def tail_of(path: str, limit: int) -> str:
    """The last ``limit`` bytes of a text file; empty when there is none."""
    try:
        with open(path, "rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - limit))
            return stream.read().decode("utf-8", "replace")
    except OSError:
        return ""


def tree_digest(root: str) -> tuple[str, int, int]:
    """Digest of a file or folder by content: ``(sha256, bytes, files)``.

    Names, contents, symlink targets and the owner's execute bit count; owners, times and other mode bits do
    not, since they differ from one host to the next.
    """
    digest = hashlib.sha256()
    total = files = 0
    if os.path.isfile(root):
        entries = [(os.path.basename(root), root)]
    else:
        entries = []
        for folder, folders, names in walk_tree(root):
            for name in names:
                full = os.path.join(folder, name)
                entries.append((os.path.relpath(full, root), full))
            if not folders and not names:
                entries.append((os.path.relpath(folder, root) + "/", folder))
        entries.sort()
    for relative, full in entries:
        info = os.lstat(full)
        if stat.S_ISLNK(info.st_mode):
            line: list[Any] = ["link", relative, os.readlink(full)]
        elif stat.S_ISDIR(info.st_mode):
            line = ["folder", relative]
        else:
            line = ["file", relative, bool(info.st_mode & stat.S_IXUSR), sha256_file(full)]
            total += info.st_size
            files += 1
        digest.update(canonical_json(line).encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest(), total, files
