"""A network of the tests' own: the Compute SDK and daemon know one address only, port 5000.

``python namespace.py`` makes a user and a network namespace, brings its loopback up, prints a line
and lives until its standard input ends. Others enter with ``nsenter``.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, IFF_UP_RUNNING = 0x8914, 0x41


def hold() -> None:
    """Be the namespace's first process."""
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    # The same user inside as outside: to a daemon that finds itself root, other rules apply.
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP_RUNNING))
    print("ready", flush=True)
    sys.stdin.read()


class Namespace:
    """Use as a context. Raises OSError where the system gives ordinary users no namespaces."""

    def __enter__(self) -> Namespace:
        self._holder = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "ready\n":
            _, reason = self._holder.communicate()
            raise OSError(reason.strip().splitlines()[-1])
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.communicate()

    def inside(self, command: list[str]) -> list[str]:
        """The command that runs ``command`` in the namespace."""
        return [
            "nsenter",
            "--user",
            "--net",
            "--preserve-credentials",
            f"--target={self._holder.pid}",
            *command,
        ]


def own_network() -> Iterator[Namespace]:
    """A namespace for a fixture; skips where there can be none."""
    if shutil.which("nsenter") is None:
        pytest.skip("nsenter (util-linux) is not installed")
    opened = Namespace()
    try:
        opened.__enter__()
    except OSError as problem:
        pytest.skip(f"this system gives ordinary users no network namespace ({problem})")
    yield opened
    opened.__exit__()


if __name__ == "__main__":
    hold()
