"""The server's ends of its lines to user endpoint processes: to its own children over pipes, to
those of a server that vanished over their sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cib_flows.local.compute.channel import SOCKET
from cib_flows.local.home import write_aside

__all__ = ["Line", "Passport", "connect", "kill_group", "read_passport", "write_passport"]

PASSPORT = "process.json"  # in the run folder: what the next server must know of the process


@dataclass(frozen=True)
class Passport:
    """Who a user endpoint process is. ``born`` (the kernel's clock ticks) tells it from a later
    process with the same id."""

    pid: int
    born: int
    config: dict[str, Any]
    runtime: dict[str, Any]

    @property
    def is_alive(self) -> bool:
        return _born(self.pid) == self.born


def write_passport(
    folder: Path, pid: int, config: Mapping[str, Any], runtime: Mapping[str, Any]
) -> None:
    document = {"pid": pid, "born": _born(pid), "config": dict(config), "runtime": dict(runtime)}
    write_aside(folder / PASSPORT, json.dumps(document) + "\n", 0o600)


def read_passport(folder: Path) -> Passport | None:
    """The passport of the process that still lives in this run folder; None when none does."""
    try:
        passport = Passport(**json.loads((folder / PASSPORT).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return passport if passport.is_alive else None


def _born(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def kill_group(pid: int) -> None:
    """Kill a user endpoint process's whole group: it is the leader of one of its own."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


class Line:
    """Two streams to one process."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pid: int,
        child: asyncio.subprocess.Process | None = None,
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.pid = pid
        self._child = child
        self._born = _born(pid)

    @classmethod
    def of_child(cls, child: asyncio.subprocess.Process) -> Line:
        assert child.stdin is not None
        assert child.stdout is not None
        return cls(child.stdout, child.stdin, child.pid, child)

    @property
    def alive(self) -> bool:
        return self._child is None or self._child.returncode is None

    def hang_up(self) -> None:
        """Send nothing more."""
        if self._child is not None:
            self.writer.close()
        elif self.writer.can_write_eof():
            self.writer.write_eof()  # what it still has to say is to be heard

    async def ended(self) -> None:
        """Wait until the process is gone."""
        if self._child is not None:
            await self._child.wait()
            return
        # Not our child, so nobody tells us; this is rare, and soon over.
        while _born(self.pid) == self._born:
            await asyncio.sleep(0.05)

    async def reaped(self) -> None:
        if self._child is not None:
            await self._child.wait()
        else:
            self.writer.close()

    def kill(self) -> None:
        """Kill the process and what it started. A process that only has its id is left alone."""
        if self._child is not None or _born(self.pid) in (self._born, None):
            kill_group(self.pid)


async def connect(folder: Path, pid: int) -> Line | None:
    """A line to the process that lives in a run folder; None when it does not listen."""
    # A socket's address may be shorter than the path of a home; the kernel's name for the open
    # folder never is.
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{descriptor}/{SOCKET}")
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return Line(reader, writer, pid)
