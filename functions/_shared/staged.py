"""Taking over a payload from a staging folder, where others may still change it while it is read."""

from __future__ import annotations

import os
import stat

from .files import CHUNK_BYTES
from .results import StepFailed


def take_folder(source: str, target: str, limit_bytes: int) -> None:
    """Copy what ``source`` holds into the empty folder ``target``.

    No link is followed on the way, also not one that takes the place of a folder meanwhile: it could lead to
    what only the endpoint's account may read. Raises :class:`StepFailed` ``payload_refused``.
    """
    left = limit_bytes
    for folder, folders, names, handle in os.fwalk(source, onerror=_raise, follow_symlinks=False):
        place = os.path.normpath(os.path.join(target, os.path.relpath(folder, source)))
        for name in [*folders, *names]:
            found = os.stat(name, dir_fd=handle, follow_symlinks=False)
            if stat.S_ISLNK(found.st_mode):
                os.symlink(os.readlink(name, dir_fd=handle), os.path.join(place, name))
            elif stat.S_ISDIR(found.st_mode):
                os.mkdir(os.path.join(place, name))
            else:
                left -= take_file(name, os.path.join(place, name), left, folder=handle)


def take_file(source: str, target: str, limit_bytes: int, *, folder: int | None = None) -> int:
    """Copy one plain file, in the open folder where one is given; returns its bytes.

    Raises :class:`StepFailed` ``payload_refused`` for anything else, and where more arrives than is allowed.
    """
    try:
        handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as problem:
        raise StepFailed(
            "payload_refused", f"The payload in staging cannot be read: {problem.strerror}."
        ) from None
    with os.fdopen(handle, "rb", buffering=0) as given:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise StepFailed("payload_refused", "The payload in staging is not a plain file.")
        total = 0
        with open(target, "xb") as copy:
            while chunk := given.read(CHUNK_BYTES):
                total += len(chunk)
                if total > limit_bytes:
                    raise StepFailed(
                        "payload_refused", "The payload is larger than the site's limit."
                    )
                copy.write(chunk)
        os.chmod(target, 0o755 if about.st_mode & stat.S_IXUSR else 0o644)
        os.utime(target, ns=(about.st_atime_ns, about.st_mtime_ns))
    return total


def _raise(problem: OSError) -> None:
    raise problem
