"""A server of a home that dies when it is told to, over and over, as a process of its own each time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests

from cib_flows.local.home import Home
from cib_flows.local.process import python_environment

# Imports the server once and then forks, so that each life begins in milliseconds.
NURSERY = """
import json, os, signal, sys
from cib_flows.local import server
from globus_sdk.scopes import ScopeParser  # what the server imports when a consent is given

signal.signal(signal.SIGCHLD, signal.SIG_DFL)
for line in sys.stdin:
    words, log = json.loads(line)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.setsid()
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        os._exit(server.main([*words, "--ready-fd", str(writer)]))
    os.close(writer)
    with os.fdopen(reader) as ready:
        ready.readline()
    print(pid, flush=True)
    sys.stdin.readline()
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Died(Exception):
    """The server was killed while a request was under way, or before it."""


class Nursery:
    """Begins servers of one home, one after the other."""

    def __init__(self, home: Home) -> None:
        self.home = home
        home.prepare()
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=python_environment(os.environ),
        )
        self._pid: int | None = None
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {home.token()}"

    def begin(self, faults: str = "") -> None:
        """Begin a server; when this returns it answers, or has died already."""
        assert self._pid is None
        words = ["--home", str(self.home.path), "--no-compute-port"]
        words += ["--faults", faults] if faults else []
        self._pid = int(self._ask([words, str(self.home.log_path)]))

    def end(self, number: int = signal.SIGTERM) -> int:
        """Wait for the server's end after this signal; returns how it ended."""
        assert self._pid is not None
        os.kill(self._pid, number)
        self._pid = None
        return int(self._ask("the last one's exit code"))

    def close(self) -> None:
        if self._pid is not None:
            self.end(signal.SIGKILL)
        self._session.close()
        self._process.communicate()

    def _ask(self, question: Any) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    # -- what a client does --------------------------------------------------------------------

    def call(self, method: str, path: str, **options: Any) -> Any:
        """The JSON answer of the server. Raises :class:`Died`."""
        record = self.home.last_record()
        assert record is not None
        try:
            answer = self._session.request(method, record.url + path, timeout=30, **options)
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError) as problem:
            raise Died from problem
        assert answer.ok, (method, path, answer.status_code, answer.text)
        return answer.json()

    def get(self, path: str, **parameters: Any) -> Any:
        return self.call("GET", path, params=parameters)

    def post(self, path: str, body: Any = None) -> Any:
        return self.call("POST", path, json=body or {})

    def log_tail(self) -> str:
        return Path(self.home.log_path).read_text()[-4000:]
