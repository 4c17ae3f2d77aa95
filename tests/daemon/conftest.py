"""The unmodified ``globus-compute-endpoint`` daemon, beside a local Globus, in a network of their
own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

from .namespace import Namespace, own_network

REPOSITORY = Path(__file__).resolve().parents[2]
ENDPOINT_FILES = REPOSITORY / "deploy_scripts" / "endpoints" / "local"

# The daemon renders this for control, build and run alike; short heartbeats keep the tests short.
HEARTBEAT_S = 5


@pytest.fixture(scope="session")
def namespace() -> Iterator[Namespace]:
    yield from own_network()


@dataclass
class Machine:
    """Runs programs in the namespace, with a home of its own and nothing of the caller's Globus."""

    namespace: Namespace
    folder: Path
    environment: dict[str, str]

    def run(self, *command: str, limit: float = 300.0) -> str:
        done = subprocess.run(
            self.namespace.inside(list(command)),
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=limit,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def python(self, program: str, limit: float = 300.0) -> Any:
        """What the program reports, as JSON, on the last line that it prints."""
        return json.loads(self.run(sys.executable, "-c", program, limit=limit).splitlines()[-1])

    def cib_flows(self, *words: str) -> dict[str, Any]:
        program = "from cib_flows.cli import main; main()"
        found: dict[str, Any] = json.loads(
            self.run(sys.executable, "-c", program, *words, "--json")
        )
        return found

    def start(self, *command: str, log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.namespace.inside(list(command)),
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # at its end, a daemon ends its whole process group
            stdout=log,
            stderr=log,
        )


@pytest.fixture
def machine(namespace: Namespace, tmp_path: Path) -> Machine:
    clean = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith(("GLOBUS_", "CIB_FLOWS_", "XDG_"))
    }
    clean |= {
        "HOME": str(tmp_path),
        "CIB_FLOWS_HOME": str(tmp_path / "globus"),
        "GLOBUS_COMPUTE_USER_DIR": str(tmp_path / "compute"),
        "PYTHONPATH": str(REPOSITORY),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{clean.get('PATH', '/usr/bin:/bin')}",
    }
    return Machine(namespace, tmp_path, clean)


@dataclass
class Daemon:
    """A running endpoint daemon."""

    machine: Machine
    endpoint_id: str
    process: subprocess.Popen[bytes]
    log_path: Path

    @property
    def log(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@dataclass
class Stage:
    """A local Globus in the namespace, and what a test starts beside it."""

    machine: Machine
    home: Path
    daemons: list[Daemon]

    def environment(self) -> dict[str, str]:
        found: dict[str, str] = self.machine.cib_flows("local", "env")
        return found

    def start_globus(self, *options: str) -> dict[str, Any]:
        return self.machine.cib_flows("local", "start", *options)

    def start_daemon(
        self, name: str = "site", edit: Callable[[Path], None] | None = None
    ) -> Daemon:
        """Configure an endpoint as an administrator does (the repository's files for a local one, a
        ``config.yaml`` for the site), and run its daemon until the service says it is online."""
        folder = Path(self.machine.environment["GLOBUS_COMPUTE_USER_DIR"]) / name
        folder.mkdir(parents=True)
        for file in ("config.yaml", "user_config_template.yaml.j2", "user_config_schema.json"):
            shutil.copy(self.home / "endpoint" / file, folder / file)
        for file in ("config.yaml", "user_config_template.yaml.j2"):
            target = folder / file
            text = target.read_text().replace(
                "heartbeat_period: 30", f"heartbeat_period: {HEARTBEAT_S}"
            )
            target.write_text(text)
        (folder / "user_environment.yaml").write_text(
            json.dumps({"CIB_FLOWS_SITE": str(self.home / "site.json")})
        )
        if edit is not None:
            edit(folder)
        self.machine.environment |= self.environment()
        log_path = folder / "daemon.out"
        with log_path.open("wb") as log:
            process = self.machine.start("globus-compute-endpoint", "start", name, log=log)
        found = self.machine.python(WAIT_ONLINE.replace("NAME", name))
        daemon = Daemon(self.machine, found, process, folder / "endpoint.log")
        self.daemons.append(daemon)
        return daemon

    def stop(self) -> None:
        for daemon in self.daemons:
            daemon.stop()
        self.machine.cib_flows("local", "stop")


WAIT_ONLINE = """
import json, time, globus_sdk
from globus_sdk import ClientApp, GlobusAppConfig
import os
app = ClientApp("t", client_id=os.environ["GLOBUS_COMPUTE_CLIENT_ID"],
                client_secret=os.environ["GLOBUS_COMPUTE_CLIENT_SECRET"],
                config=GlobusAppConfig(token_storage="memory"))
compute = globus_sdk.ComputeClientV2(app=app)
end = time.monotonic() + 90
while time.monotonic() < end:
    listed = compute.get("/v2/endpoints").data
    found = [entry["uuid"] for entry in listed if entry["name"] == "NAME"]
    if found and compute.get_endpoint_status(found[0])["status"] == "online":
        print(json.dumps(found[0]))
        break
    time.sleep(0.2)
else:
    raise SystemExit(f"the daemon did not come online: {listed}")
"""


@pytest.fixture
def stage(machine: Machine, tmp_path: Path) -> Iterator[Stage]:
    built = Stage(machine, tmp_path / "globus", [])
    yield built
    built.stop()


RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # where Debian puts it; not on the PATH


@pytest.fixture
def rabbitmq(machine: Machine, tmp_path: Path) -> Iterator[str]:
    """A RabbitMQ in the namespace; its URL. A user's process, with all its files in the test's
    folder."""
    if not RABBITMQ.exists():
        pytest.skip("rabbitmq-server is not installed (deploy_scripts/rabbitmq.sh installs it)")
    folder = tmp_path / "rabbitmq"
    folder.mkdir()
    (folder / "plugins").write_text("[].\n")
    settings = {
        "HOME": str(folder),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": "tests@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_CONFIG_FILE": str(folder / "none"),
    }
    broker = Machine(machine.namespace, folder, {**machine.environment, **settings})
    with (folder / "broker.out").open("wb") as log:
        # The port mapper that RabbitMQ would start by itself is a daemon, and would stay.
        mapper = broker.start("epmd", log=log)
        process = broker.start(str(RABBITMQ), log=log)
    try:
        broker.run(sys.executable, "-c", WAIT_RABBITMQ)
        yield "amqp://guest:guest@127.0.0.1:5672/%2F"
    finally:
        # The server is a script with the Erlang machine below it.
        for started in (process, mapper):
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()


WAIT_RABBITMQ = """
import time, pika
end = time.monotonic() + 90
while True:
    try:
        pika.BlockingConnection(pika.URLParameters("amqp://guest:guest@127.0.0.1:5672/%2F")).close()
        break
    except pika.exceptions.AMQPConnectionError:
        if time.monotonic() > end:
            raise
        time.sleep(0.3)
"""
