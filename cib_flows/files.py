"""Files that a reader never sees half written."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

__all__ = ["one_at_a_time", "write_whole"]


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Lets one process of this machine at a time into the block; ``path`` is made and stays empty.

    The kernel lets go of the lock however a process ends. Raises ``OSError``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_whole(path: Path, text: str) -> None:
    """Writes ``text`` aside and renames it over ``path``; after a crash the old or the new file is
    there, whole.

    Makes the folder where it is missing. A new file may be read by whom the umask lets, as a record
    that a group shares must be; one that is replaced keeps its mode. Raises ``OSError``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with aside.open("x", encoding="utf-8") as file:
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise
