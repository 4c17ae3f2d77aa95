"""A site on a temporary folder, servers on loopback, and an ``apptainer`` that does as it is told."""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions._shared import downloads, node_check
from cib_flows.functions._shared.site import load_site
from cib_flows.functions.build_image import build_image
from cib_flows.functions.render_recipe import render_recipe
from tests.functions.unsteady import Unsteady, serve_unsteady

Answer = tuple[int, dict[str, str], bytes]
BASE_DIGEST = "sha256:" + "a" * 64
NO_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


@pytest.fixture(scope="session")
def _no_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine that knows its version and nothing else: starting the real one for that takes its time."""
    folder = tmp_path_factory.mktemp("engine")
    (folder / "apptainer").write_text("#!/bin/sh\necho apptainer version 1.4.5\n")
    (folder / "apptainer").chmod(0o755)
    (folder / "no-certificates").write_text("")
    return folder


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch, _no_engine: Path) -> None:
    """Nothing of the machine that runs the tests: no proxies, no site, no other Apptainer."""
    for name in list(os.environ):
        if name.lower() in NO_PROXIES or name.startswith(
            ("APPTAINER", "SINGULARITY", "CIB_FLOWS_")
        ):
            monkeypatch.delenv(name)
    # root may not build, and may run these tests, which start no engine
    monkeypatch.setattr(node_check, "is_real_root", lambda: False)
    monkeypatch.setenv("PATH", f"{_no_engine}:{os.environ['PATH']}")
    # the public certificates take longer to read than most tests, and no test asks a public server
    monkeypatch.setenv("SSL_CERT_FILE", str(_no_engine / "no-certificates"))


@dataclass
class Site:
    """A site profile in a file, named by the environment; ``set`` changes it."""

    path: Path
    root: Path
    fields: dict[str, Any] = field(default_factory=dict)

    def set(self, **fields: Any) -> None:
        self.fields.update(fields)
        self.path.write_text(json.dumps(self.fields))

    def loaded(self) -> dict[str, Any]:
        return load_site()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    root = tmp_path / "root"
    root.mkdir()
    made = Site(tmp_path / "site.json", root)
    made.set(root=str(root), name="test")
    monkeypatch.setenv("CIB_FLOWS_SITE", str(made.path))
    return made


@pytest.fixture
def run_id() -> str:
    return str(uuid.uuid4())


@dataclass
class Server:
    """An HTTP server on loopback; ``answer`` decides, ``requests`` remembers (method, path, headers)."""

    host: str
    requests: list[tuple[str, str, dict[str, str]]]
    answer: Callable[[str, str, dict[str, str]], Answer]
    body: bytes = b""

    @property
    def url(self) -> str:
        return f"http://{self.host}"


def serve(answer: Callable[[str, str, dict[str, str]], Answer]) -> Iterator[Server]:
    requests: list[tuple[str, str, dict[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer_request(self) -> None:
            headers = {key.lower(): value for key, value in self.headers.items()}
            requests.append((self.command, self.path, headers))
            length = int(headers.get("content-length", "0"))
            made.body = self.rfile.read(length)
            status, given, body = made.answer(self.command, self.path, headers)
            self.send_response(status)
            if not {"Content-Length", "Transfer-Encoding"} & given.keys():
                self.send_header("Content-Length", str(len(body)))
            for key, value in given.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    for method in ("GET", "HEAD", "POST"):
        setattr(Handler, f"do_{method}", Handler.answer_request)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = Server(f"127.0.0.1:{server.server_port}", requests, answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def web(site: Site) -> Iterator[Server]:
    """A server that the site's profile lists."""
    for made in serve(lambda *_: (404, {}, b"")):
        site.set(payload_hosts=[made.host])
        yield made


@pytest.fixture
def other_web() -> Iterator[Server]:
    """A server that no site knows."""
    yield from serve(lambda *_: (200, {}, b"secret of the inner network"))


@pytest.fixture
def registry(site: Site) -> Iterator[Server]:
    """A mirror of Docker Hub in which every tag exists."""

    def answer(_: str, path: str, __: dict[str, str]) -> Answer:
        if path.endswith("/missing"):
            return 404, {}, b""
        return 200, {"Docker-Content-Digest": BASE_DIGEST}, b"{}"

    for made in serve(answer):
        site.set(registry_mirrors={"docker.io": made.host})
        yield made


@dataclass
class Run:
    """One run that has been rendered, as a flow would have it."""

    id: str
    site: Site
    rendered: dict[str, Any]

    @property
    def folder(self) -> Path:
        return self.site.root / "runs" / self.id

    @property
    def work(self) -> Path:
        return self.site.root / "work" / self.id

    @property
    def recipe_sha256(self) -> str:
        return str(self.rendered["recipe_sha256"])


@pytest.fixture
def start(site: Site, registry: Server) -> Callable[..., Run]:
    """Render a spec, of which the fields given replace those of a minimal plain image."""

    def started(**fields: Any) -> Run:
        spec = {"name": "demo", "base": {"image": "debian:12-slim"}, "worker": "none", **fields}
        run_id = str(uuid.uuid4())
        rendered = render_recipe(spec, run_id)
        assert rendered["ok"] is True, rendered
        return Run(run_id, site, rendered)

    return started


SHIM = r"""#!{python}
import json, os, sys, time
here = os.path.dirname(os.path.abspath(__file__))
control = json.load(open(here + "/control.json"))
words = sys.argv[1:]
if words == ["--version"]:
    print("apptainer version 1.4.5-shim")
elif words[0] == "build":
    json.dump({{"argv": words, "environment": dict(os.environ), "umask": os.umask(0)}}, open(here + "/asked.json", "w"))
    exchange = [w.split(":")[0] for w in words if w.endswith(":/mnt")][0]
    for name, text in control.get("files", {{}}).items():
        open(os.path.join(exchange, name), "w").write(text)
    for name in control.get("pipes", []):
        os.mkfifo(os.path.join(exchange, name))
    for name in control.get("folders", []):
        os.mkdir(os.path.join(exchange, name))
    here_now = os.open(exchange, os.O_RDONLY)
    for _ in range(control.get("deep", 0)):
        os.mkdir("d", dir_fd=here_now)
        here_now, above = os.open("d", os.O_RDONLY, dir_fd=here_now), here_now
        os.close(above)
    for name, target in control.get("links", {{}}).items():
        os.symlink(target, os.path.join(exchange, name))
    sys.stderr.buffer.write(control.get("log", "").encode())
    sys.stderr.flush()
    while control.get("hangs"):
        time.sleep(0.05)
    if "image" in control:
        open(words[-2], "w").write(control["image"])
    sys.exit(control.get("status", 0))
elif words[:2] == ["sif", "list"]:
    if not open(words[2]).read().startswith("SIF"):
        sys.exit("FATAL: not a SIF")
    print("4 |1 |NONE |61440-31502336 |FS (Squashfs/*System/amd64)")
elif words[0] == "run":
    image = [n for n, word in enumerate(words) if word.endswith(".sif")][0]
    # the image has the mount points that it should have, unless a test says otherwise
    command = [w for w in words[image + 1:] if w[:2] != "d:" or w[2:] in control.get("lacks", [])]
    with open(here + "/ran.jsonl", "a") as ran:
        ran.write(json.dumps(words) + "\n")
    for answer in control.get("refuses", []):
        if answer["to"] in words[:image]:
            sys.exit(answer["errors"])
    for answer in control.get("answers", []):
        if answer["to"] in command:
            sys.stdout.write(answer.get("output", ""))
            sys.stderr.write(answer.get("errors", ""))
            sys.exit(answer.get("status", 0))
    environment = {{"PATH": here + "/image:/usr/bin:/bin", "HOME": "/nonexistent",
                   "LC_ALL": "C.UTF-8", "PYTHONNOUSERSITE": "1", **control.get("environment", {{}})}}
    os.execvpe(command[0], command, environment)
"""


@dataclass
class Apptainer:
    """A stand-in on PATH: ``control`` says what it shall do, ``asked`` what it was asked for."""

    folder: Path

    def control(self, **fields: Any) -> None:
        (self.folder / "control.json").write_text(json.dumps(fields))

    @property
    def asked(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "asked.json").read_text())
        return found

    @property
    def ran(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "ran.jsonl").read_text().splitlines()]

    def program(self, name: str, text: str) -> None:
        """A program that the image has, before those of this machine."""
        place = self.folder / "image"
        place.mkdir(exist_ok=True)
        (place / name).write_text(text)
        (place / name).chmod(0o755)


@pytest.fixture
def apptainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Apptainer:
    folder = tmp_path / "bin"
    folder.mkdir()
    made = Apptainer(folder)
    made.control(image="SIF one")
    (folder / "apptainer").write_text(SHIM.format(python=sys.executable))
    (folder / "apptainer").chmod(0o755)
    # not this machine's own packages
    made.program("dpkg", "#!/bin/sh\n")
    made.program("dpkg-query", "#!/bin/sh\necho 'debian=libc6 2.36-9+deb12u10 amd64 installed'\n")
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return made


@pytest.fixture
def built(start: Callable[..., Run], apptainer: Apptainer) -> Callable[..., tuple[Run, str]]:
    """Render a spec and let the stand-in build it; the run and the image's sha256."""

    count = itertools.count(1)

    def make(**fields: Any) -> tuple[Run, str]:
        # two unfinished runs of one image would wait for each other
        number = next(count)
        run = start(**{"name": "demo" if number == 1 else f"demo-{number}", **fields})
        result = build_image(run.id, run.recipe_sha256)
        assert result["ok"] is True, result
        return run, str(result["sif_sha256"])

    return make


@pytest.fixture
def unsteady(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Unsteady]:
    """A server that the site's profile lists, and pauses that take no time."""
    monkeypatch.setattr(downloads, "ATTEMPT_PAUSE_S", 0.0)
    for made in serve_unsteady():
        site.set(payload_hosts=[made.host])
        yield made
