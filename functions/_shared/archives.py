"""Unpacking an archive that a stranger made, into a folder that nothing in it can leave."""

from __future__ import annotations

import os
import posixpath
import shutil
import stat
import tarfile
import zipfile
from typing import IO

from .results import StepFailed, shorten

MAX_ENTRIES = 500_000


def unpack(archive: str, folder: str, limit_bytes: int) -> bool:
    """Unpack a zip or tar archive into the empty ``folder``; False when the file is neither.

    Absolute names, ``..``, devices, pipes, links that point outside, and more than ``limit_bytes`` of content
    are refused with ``payload_refused``.
    """
    try:
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                _unpack_tar(tar, folder, limit_bytes)
            return True
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                _unpack_zip(zipped, folder, limit_bytes)
            return True
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        EOFError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise StepFailed(
            "payload_refused", f"The payload's archive is damaged or encrypted: {error}."
        ) from None
    return False


class _Budget:
    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.left = limit_bytes
        self.entries = 0

    def take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise StepFailed(
                "payload_refused",
                f"The payload unpacks to more than the site's limit of {self.limit_bytes} bytes.",
            )

    def count(self) -> None:
        self.entries += 1
        if self.entries > MAX_ENTRIES:
            raise StepFailed("payload_refused", f"The payload has more than {MAX_ENTRIES} files.")


def _inside(name: str, folder: str) -> str:
    """The place of an entry below ``folder``; raises for names that lead elsewhere."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith("/") or ".." in parts or "\x00" in name:
        raise StepFailed(
            "payload_refused",
            f"The payload's archive has an entry that leaves its folder: {shorten(name, 120)}.",
        )
    place = os.path.join(folder, *(p for p in parts if p not in ("", ".")))
    parent = os.path.realpath(os.path.dirname(place))
    if parent != folder and not parent.startswith(folder + os.sep):
        raise StepFailed(
            "payload_refused",
            f"The payload's archive reaches outside its folder through a link: {shorten(name, 120)}.",
        )
    return place


def _check_link(name: str, target: str) -> None:
    resolved = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    if target.startswith("/") or resolved.startswith("../") or resolved == "..":
        raise StepFailed(
            "payload_refused",
            f"The payload's archive has a link that leaves its folder: {shorten(name, 80)} -> "
            f"{shorten(target, 80)}.",
        )


def _write(source: IO[bytes], place: str, mode: int, budget: _Budget) -> None:
    os.makedirs(os.path.dirname(place), exist_ok=True)
    if os.path.lexists(place):
        os.unlink(place)
    handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(handle, "wb") as target:
        while chunk := source.read(1024 * 1024):
            budget.take(len(chunk))
            target.write(chunk)
    os.chmod(place, 0o755 if mode & stat.S_IXUSR else 0o644)


def _unpack_tar(tar: tarfile.TarFile, folder: str, limit_bytes: int) -> None:
    folder = os.path.realpath(folder)
    budget = _Budget(limit_bytes)
    for entry in tar:
        budget.count()
        place = _inside(entry.name, folder)
        if entry.isdir():
            os.makedirs(place, exist_ok=True)
        elif entry.isreg():
            content = tar.extractfile(entry)
            if content is not None:
                _write(content, place, entry.mode, budget)
        elif entry.issym():
            _check_link(entry.name, entry.linkname)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            if os.path.lexists(place):
                os.unlink(place)
            os.symlink(entry.linkname, place)
        elif entry.islnk():
            source = _inside(entry.linkname, folder)
            if os.path.isfile(source) and not os.path.islink(source):
                budget.take(os.path.getsize(source))
                os.makedirs(os.path.dirname(place), exist_ok=True)
                shutil.copyfile(source, place)
                shutil.copymode(source, place)
        else:
            raise StepFailed(
                "payload_refused",
                f"The payload's archive has a device or pipe: {shorten(entry.name, 120)}.",
            )


def _unpack_zip(zipped: zipfile.ZipFile, folder: str, limit_bytes: int) -> None:
    folder = os.path.realpath(folder)
    budget = _Budget(limit_bytes)
    for entry in zipped.infolist():
        budget.count()
        place = _inside(entry.filename, folder)
        mode = entry.external_attr >> 16
        if entry.is_dir():
            os.makedirs(place, exist_ok=True)
        elif stat.S_ISLNK(mode):
            target = zipped.read(entry).decode("utf-8", "surrogateescape")
            _check_link(entry.filename, target)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.symlink(target, place)
        else:
            with zipped.open(entry) as content:
                _write(content, place, mode, budget)
