"""Unpacking an archive that a stranger made, into a folder that nothing in it can leave."""

from __future__ import annotations

import errno
import lzma
import os
import posixpath
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from typing import IO, Any

from .files import walk_tree
from .results import StepFailed, shorten

MAX_ENTRIES = 500_000
MAX_DEPTH = 200  # copying goes down folder by folder, and paths have an end
MAX_HEADER_BYTES = 8 * 1024 * 1024
MAX_LINK_BYTES = 4096
MAX_LIST_BYTES = 64 * 1024 * 1024  # of a zip archive's entries, which Python reads in one piece
# What a truncated, damaged or malicious archive makes the standard library raise.
DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)


def unpack(
    archive: str, name: str, folder: str, limit_bytes: int, *, keeps_tar: bool = False
) -> bool:
    """Unpack a zip or tar archive into the empty ``folder``; False when the file is neither, or a tar archive that
    is to stay one.

    ``name`` is what the file is called: many formats are zip files inside (``.whl``, ``.pt``, ``.npz``), and
    stay the files they are. Absolute names, ``..``, devices, pipes, links that point outside, and more than
    ``limit_bytes`` of content are refused with ``payload_refused``.
    """
    try:
        if _is_tar(archive):
            if keeps_tar:
                return False
            with open(archive, "rb") as stream, _Tar.open(fileobj=stream) as tar:
                _unpack_tar(tar, folder, limit_bytes)
            return True
        if zipfile.is_zipfile(archive) and not _is_other_format(name):
            with (
                open(archive, "rb") as stream,
                zipfile.ZipFile(_BoundedZip(stream)) as zipped,
            ):
                _unpack_zip(zipped, folder, limit_bytes)
            return True
    except DAMAGE as error:
        raise _damaged(error) from None
    except OSError as error:
        # two entries that cannot stand beside each other, a name too long for a file system, damaged gzip
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise _damaged(error) from None
    return False


def _damaged(error: Exception) -> StepFailed:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return StepFailed(
        "payload_refused",
        f"The payload's archive is damaged, encrypted or cannot be unpacked: {shorten(str(reason), 160)}.",
    )


def _is_tar(archive: str) -> bool:
    try:
        with open(archive, "rb") as stream, _Tar.open(fileobj=stream) as tar:
            return tar.next() is not None
    except tarfile.ReadError:
        return False


def _is_other_format(name: str) -> bool:
    extension = os.path.splitext(name)[1].lower()
    return bool(re.fullmatch(r"\.[a-z][a-z0-9]*", extension)) and extension != ".zip"


class _Bounded:
    """A file whose reads are bounded: an archive's header may claim to be gigabytes long."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise tarfile.HeaderError("a header is too long")
        data: bytes = self.stream.read(size)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _BoundedZip(_Bounded):
    def read(self, size: int = -1) -> bytes:
        data: bytes = self.stream.read(size if 0 <= size <= MAX_LIST_BYTES else MAX_LIST_BYTES + 1)
        if len(data) > MAX_LIST_BYTES:
            raise zipfile.BadZipFile("its list of entries is too long")
        return data


class _Tar(tarfile.TarFile):
    def __init__(self, name: Any = None, mode: Any = "r", fileobj: Any = None, **kw: Any) -> None:
        super().__init__(name, mode, _Bounded(fileobj), **kw)


class _Budget:
    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.left = limit_bytes
        self.entries = 0

    def take(self, size: int) -> None:
        self.expect(size)
        self.left -= size

    def expect(self, size: int) -> None:
        """Refuse what says to be too large before any of it is written."""
        if size > self.left:
            raise StepFailed(
                "payload_refused",
                f"The payload is larger than the site's limit of {self.limit_bytes} bytes.",
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
    if place == folder:
        return folder  # "./", with which most tar archives of a folder begin
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


def refuse_odd_files(root: str, limit_bytes: int) -> None:
    """Raise unless ``root`` holds only files, folders and links that stay inside it, up to the limit."""
    real = os.path.realpath(root)
    budget = _Budget(limit_bytes)
    for folder, folders, names in walk_tree(root):
        if os.path.relpath(folder, root).count(os.sep) > MAX_DEPTH:
            raise StepFailed(
                "payload_refused", f"The payload has folders that lie more than {MAX_DEPTH} deep."
            )
        for name in [*folders, *names]:
            path = os.path.join(folder, name)
            shown = shorten(os.path.relpath(path, root), 120)
            budget.count()
            if os.path.islink(path):
                target = os.path.realpath(path)
                if target != real and not target.startswith(real + os.sep):
                    raise StepFailed(
                        "payload_refused", f"The payload has a link that leaves it: {shown}."
                    )
            elif os.path.isfile(path):
                budget.take(os.path.getsize(path))
            elif not os.path.isdir(path):
                raise StepFailed("payload_refused", f"The payload has a device or pipe: {shown}.")


def _unpack_tar(tar: tarfile.TarFile, folder: str, limit_bytes: int) -> None:
    folder = os.path.realpath(folder)
    budget = _Budget(limit_bytes)
    for entry in tar:
        budget.count()
        place = _inside(entry.name, folder)
        if entry.isdir():
            os.makedirs(place, exist_ok=True)
        elif entry.isreg():
            budget.expect(entry.size)
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
            with zipped.open(entry) as content:
                target = content.read(MAX_LINK_BYTES).decode("utf-8", "surrogateescape")
            _check_link(entry.filename, target)
            os.makedirs(os.path.dirname(place), exist_ok=True)
            if os.path.lexists(place):
                os.unlink(place)
            os.symlink(target, place)
        else:
            budget.expect(entry.file_size)
            with zipped.open(entry) as content:
                _write(content, place, mode, budget)
