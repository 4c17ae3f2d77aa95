"""A user endpoint process's line to its server: pipes at first, a socket once a server was
replaced."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from cib_flows.local.compute import framing

__all__ = ["SOCKET", "Channel"]

SOCKET = "control.sock"  # in the run folder
ORPHAN_LIMIT = 900.0  # how long results are kept for a server that does not come back
LOOK_S = 0.5


class Channel:
    """The line to the server, kept away from the prints of users' functions."""

    def __init__(self) -> None:
        self._reader: BinaryIO = os.fdopen(os.dup(0), "rb")
        self._writer: Any = os.fdopen(os.dup(1), "wb", buffering=0)
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None
        self._folder = ""
        self._nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(self._nothing, 0)
        os.dup2(2, 1)
        # Pool workers are forked: while one held a pipe, the server would not learn of our end.
        os.register_at_fork(after_in_child=self._let_go)

    def _let_go(self) -> None:
        for held in (self._reader, self._writer, self._listener):
            if held is not None:
                os.dup2(self._nothing, held.fileno(), inheritable=False)

    def listen(self) -> None:
        """Be found by the next server, in the current folder."""
        self._folder = os.getcwd()
        if self._listener is not None:
            return
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The relative name: an absolute one may be longer than a socket's address can be.
        self._listener.bind(SOCKET)
        self._listener.listen(1)

    def receive(self) -> framing.Message | None:
        """The server's next message; None once it is gone."""
        try:
            return framing.read(self._reader)
        except OSError:
            return None

    def send(self, message: framing.Message) -> None:
        """Send to the server; to one that is gone, nothing is sent."""
        data = memoryview(framing.encode(message))
        with self._lock:
            try:
                while data:
                    data = data[self._writer.write(data) :]
            except OSError:
                pass  # the end of what it sends says so too

    def wait_for_server(self, under_way: Callable[[], bool]) -> bool:
        """Wait until another server connects; False when none came for long after the work was
        done, or when the home was removed."""
        assert self._listener is not None
        self._listener.settimeout(LOOK_S)
        deadline: float | None = None
        while True:
            try:
                connection, _ = self._listener.accept()
                break
            except TimeoutError:
                if not os.path.exists(os.path.join(self._folder, SOCKET)):
                    return False
            if not under_way():
                deadline = deadline or time.monotonic() + ORPHAN_LIMIT
                if time.monotonic() > deadline:
                    return False
        connection.settimeout(None)
        with self._lock:
            old = (self._reader, self._writer)
            self._reader = connection.makefile("rb")
            self._writer = connection.makefile("wb", buffering=0)
        for stream in old:
            stream.close()
        return True
