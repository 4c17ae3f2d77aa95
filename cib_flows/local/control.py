"""Start, stop and inspect the server of a home from another process."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cib_flows.errors import ServiceError
from cib_flows.local.compute.lines import kill_group, read_passport
from cib_flows.local.endpoint_files import install_endpoint
from cib_flows.local.home import Home, ServerRecord
from cib_flows.local.process import python_environment

__all__ = ["Started", "log_tail", "start", "stop"]

START_LIMIT = 60.0
STOP_LIMIT = 20.0


@dataclass(frozen=True)
class Started:
    """A running server, and whether it already ran before it was asked for."""

    record: ServerRecord
    already: bool


def start(
    home: Home,
    *,
    port: int | None = None,
    site: Mapping[str, Any] | None = None,
    compute_port: bool = True,
    broker: str | None = None,
    faults: str | None = None,
) -> Started:
    """Start the server of ``home`` in the background and wait until it answers.

    A running server is left as it is. ``site`` is merged over the home's default site profile; None
    keeps the profile that it has. ``broker`` is the URL of a RabbitMQ for endpoint daemons, or
    ``embedded``; None keeps what it has. ``faults`` (see :mod:`cib_flows.local.faults`) hold for
    this one start. Raises :class:`ServiceError` when the server does not come up.
    """
    home.prepare()
    with home.alone():
        running = _settled(home)
        if running is not None:
            return Started(running, already=True)
        install_endpoint(home, home.write_site(site))
        if broker is not None:
            home.write_broker(None if broker == "embedded" else broker)
        words = ["--port", str(port)] if port is not None else []
        words += [] if compute_port else ["--no-compute-port"]
        words += ["--faults", faults] if faults else []
        return Started(_launch(home, words), already=False)


def _launch(home: Home, words: list[str]) -> ServerRecord:
    """Begin a server process; returns when it answers, and leaves none behind that does not."""
    command = [sys.executable, "-m", "cib_flows.local.server", "--home", str(home.path), *words]
    reader, writer = os.pipe()
    answer = process = None
    try:
        with open(home.log_path, "ab") as log:
            process = subprocess.Popen(
                [*command, "--ready-fd", str(writer)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=home.path,
                env=python_environment(os.environ),
                pass_fds=[writer],
                start_new_session=True,
            )
        os.close(writer)
        writer = -1
        answer = _first_line(reader, START_LIMIT)
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
        # Also where whoever waits for it gives up, with Ctrl-C.
        if process is not None and (answer is None or "error" in answer):
            process.kill()
            process.wait()
    if answer is None or "error" in answer:
        raise ServiceError(
            (answer or {}).get("error")
            or "The local Globus did not come up; its log's last line is: "
            + (log_tail(home, 1) or "(nothing)"),
            hint=f"See {home.log_path}.",
        )
    record = home.running()
    if record is None:
        raise ServiceError(
            "The local Globus ended as soon as it was up.", hint=f"See {home.log_path}."
        )
    # The server outlives this process; without this, Python warns that a child was not waited for.
    process.returncode = 0
    return record


def _settled(home: Home) -> ServerRecord | None:
    """Where the server answers, once one that is coming up does, or that is ending has; None when
    none runs."""
    deadline = time.monotonic() + START_LIMIT
    while (record := home.running()) is None and home.is_locked():
        if time.monotonic() > deadline:
            raise ServiceError(
                "A server of this home neither answers nor ends.", hint=f"See {home.log_path}."
            )
        time.sleep(0.02)
    return record


def _first_line(descriptor: int, limit: float) -> dict[str, Any] | None:
    """The JSON line that the server writes when it answers; None when it ended or took too long."""
    deadline = time.monotonic() + limit
    received = b""
    while not received.endswith(b"\n"):
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        chunk = os.read(descriptor, 4096) if ready else b""
        if not chunk:
            return None
        received += chunk
    answer: dict[str, Any] = json.loads(received)
    return answer


def stop(home: Home, limit: float = STOP_LIMIT) -> bool:
    """Stop the server of ``home``; returns whether one ran. One that does not end in time is
    killed. Where a server was killed, what it left running is ended."""
    if not home.path.is_dir():
        return False
    with home.alone():
        record = _settled(home)
        if record is None or record.pid is None:
            if home.runs_dir.is_dir():
                _end_orphans(home)
            return False
        _end(home, record.pid, limit)
        return True


def _end(home: Home, pid: int, limit: float) -> None:
    for number, patience in ((signal.SIGTERM, limit), (signal.SIGKILL, 5.0)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if not home.is_locked():
                return
            time.sleep(0.02)
    raise ServiceError(f"The local Globus (process {pid}) does not end.")


def _end_orphans(home: Home) -> None:
    """End user endpoint processes that wait for the next server, those of further endpoints too."""
    for folder in (*home.runs_dir.iterdir(), *home.path.glob("endpoints/*/runs/*")):
        passport = read_passport(folder)
        if passport is not None:
            kill_group(passport.pid)


def log_tail(home: Home, lines: int = 20) -> str:
    """The last lines of the server's log."""
    try:
        with open(home.log_path, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - 200 * lines - 2000))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
