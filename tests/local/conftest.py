"""A local Globus of the tests' own, and the unmodified SDK clients that talk to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import globus_sdk
import pytest
from globus_sdk import ClientApp, GlobusAppConfig

from cib_flows.local import control
from cib_flows.local.home import Home
from cib_flows.local.transfer.collections import Collections

REPOSITORY = Path(__file__).resolve().parents[2]
JSON_DATA = "globus_compute_sdk.serialize.JSONData"


@dataclass
class LocalGlobus:
    """A running home and clients for it."""

    home: Home
    environment: dict[str, str]

    def __post_init__(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            point_sdk_at(self, patch)
            self._make_clients()

    def _make_clients(self) -> None:
        client = self.home.client()
        # In memory: two homes in one test session must not share a file of tokens.
        self.app = ClientApp(
            "tests",
            client_id=client.client_id,
            client_secret=client.client_secret,
            config=GlobusAppConfig(token_storage="memory"),
        )
        self.endpoint_id = client.endpoint_id
        self.staging_id = client.staging_collection_id
        self.compute_v2 = globus_sdk.ComputeClientV2(app=self.app)
        self.compute_v3 = globus_sdk.ComputeClientV3(app=self.app)
        self.transfer = globus_sdk.TransferClient(app=self.app)
        self.flows = globus_sdk.FlowsClient(app=self.app)

    @property
    def url(self) -> str:
        return self.environment["GLOBUS_SDK_SERVICE_URL_AUTH"]

    def register(self, source: str) -> str:
        """Register source text, as ``register_source_code`` does; its only function is the entry."""
        name = source.split("def ")[-1].split("(")[0]
        body = {"function_name": name, "function_code": source, "serialized": False}
        function_id: str = self.compute_v3.register_function(body)["function_uuid"]
        return function_id

    def submit(self, function_id: str, *args: Any, **body: Any) -> list[str]:
        """Submit one task with JSON arguments; returns the ids of the submission's tasks."""
        document = {
            "tasks": {function_id: [pack(list(args), {})]},
            "user_endpoint_config": {"profile": "control"},
            "result_serializers": [JSON_DATA],
            **body,
        }
        answer = self.compute_v3.submit(self.endpoint_id, document)
        found: list[str] = answer["tasks"][function_id]
        return found

    def finished(self, task_id: str) -> dict[str, Any]:
        """The task's document once it is complete."""

        def poll() -> dict[str, Any] | None:
            document: dict[str, Any] = self.compute_v2.get_task(task_id).data  # type: ignore[assignment]
            return document if document["status"] in ("success", "failed") else None

        return until(poll)

    def call(self, source: str, *args: Any, **body: Any) -> dict[str, Any]:
        """Register, submit, wait: the task's document."""
        return self.finished(self.submit(self.register(source), *args, **body)[0])


def value(document: dict[str, Any]) -> Any:
    """What a successful task returned."""
    assert document["status"] == "success", document
    return json.loads(document["result"].removeprefix("11\n"))


def pack(args: list[Any], kwargs: dict[str, Any]) -> str:
    """Arguments as the SDK's JSON strategy packs them."""
    buffers = ["11\n" + json.dumps(args), "11\n" + json.dumps(kwargs)]
    return "".join(f"{len(buffer)}\n{buffer}" for buffer in buffers)


def until(poll: Callable[[], Any], limit: float = 60.0) -> Any:
    """The first true answer of ``poll``: for what another process does, where nothing can be awaited."""
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        found = poll()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"nothing came of {poll} in {limit} s")


@pytest.fixture(autouse=True, scope="session")
def no_foreign_globus() -> Iterator[None]:
    """None of the variables that point the clients of whoever runs the tests at some Globus."""
    held = {name: os.environ.pop(name) for name in list(os.environ) if _is_ours(name)}
    yield
    os.environ.update(held)


def _is_ours(name: str) -> bool:
    return name.startswith(("GLOBUS_", "CIB_FLOWS_"))


def start(path: Path, **options: Any) -> LocalGlobus:
    home = Home(path)
    control.start(home, **options)
    return LocalGlobus(home, home.environment())


def point_sdk_at(globus: LocalGlobus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the SDK finds every service, for the clients that are made from now on."""
    for name, text in globus.environment.items():
        if name.startswith("GLOBUS_SDK_"):
            monkeypatch.setenv(name, text)


@pytest.fixture(autouse=True)
def _sdk_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "local_globus" in request.fixturenames:
        point_sdk_at(request.getfixturevalue("local_globus"), monkeypatch)


@pytest.fixture(scope="session")
def local_globus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGlobus]:
    """One home for the tests that leave no trace the others would notice. Has port 5000 if it is
    free. An ``apptainer`` that only records its call stands first on its PATH."""
    folder = tmp_path_factory.mktemp("globus")
    shim = folder / "bin" / "apptainer"
    shim.parent.mkdir()
    shim.write_text(APPTAINER_SHIM.format(python=sys.executable, calls=folder / "calls"))
    shim.chmod(0o755)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{shim.parent}{os.pathsep}{path}"
    try:
        found = start(folder / "home")
    finally:
        os.environ["PATH"] = path
    yield found
    control.stop(found.home)


@pytest.fixture
def own_globus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., LocalGlobus]]:
    """Starts homes for tests that kill, stop or change theirs. Not on port 5000."""
    started: list[LocalGlobus] = []

    def make(name: str = "home", **options: Any) -> LocalGlobus:
        found = start(tmp_path / name, **{"compute_port": False, **options})
        started.append(found)
        point_sdk_at(found, monkeypatch)
        return found

    yield make
    for found in started:
        control.stop(found.home)


# Runs what follows the image, on the host, and notes how it was called.
APPTAINER_SHIM = """#!{python}
import json, os, sys
words = sys.argv[1:]
with open({calls!r}, "a") as stream:
    stream.write(json.dumps(words) + chr(10))
image = next(word for word in words if word.endswith(".sif"))
command = words[words.index(image) + 1:]
os.environ["SHIM_IMAGE"] = image
os.execvp(command[0], command)
""".replace("{calls!r}", "'{calls}'")


def run_client(environment: dict[str, str], program: str, tmp_path: Path) -> str:
    """Run a program in a process of its own, with nothing but what ``local env`` prints."""
    clean = {name: text for name, text in os.environ.items() if not _is_ours(name)}
    search = os.pathsep.join(filter(None, [str(REPOSITORY), clean.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **clean,
            **environment,
            "HOME": str(tmp_path),
            "GLOBUS_COMPUTE_USER_DIR": str(tmp_path / "compute"),
            "PYTHONPATH": search,
        },
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(local_globus: LocalGlobus, tmp_path: Path) -> tuple[str, Path]:
    """A collection of this test's own: its id and its folder."""
    path = tmp_path / "data"
    path.mkdir()
    added = Collections.of_home(local_globus.home).add(f"data-{uuid.uuid4()}", path)
    return added.id, path
