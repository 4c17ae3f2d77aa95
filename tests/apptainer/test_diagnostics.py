"""Known causes provoked for real: on nodes, file systems, indexes and registries that are as bad as it takes."""

from __future__ import annotations

import http.server
import io
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tarfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cib_flows import ContainerSpec
from cib_flows.functions._shared.diagnostics import diagnose

from .conda_channel import make_channel
from .conftest import PLAIN, REPOSITORY

# What a flow does, without the flow: the steps one after another, and the report of the first that fails.
STEPS = """
import json, sys, uuid
from cib_flows.functions.render_recipe import render_recipe
from cib_flows.functions.fetch_payload import fetch_payload
from cib_flows.functions.build_image import build_image
from cib_flows.functions.report_failure import report_failure
spec, run = json.loads(sys.argv[1]), sys.argv[2]
outputs = []
def step(function, *arguments):
    outputs.append({"step": function.__name__, "output": function(run, *arguments)})
    return outputs[-1]["output"]["ok"]
outputs.append({"step": "render_recipe", "output": render_recipe(spec, run)})
if outputs[0]["output"]["ok"]:
    sha256 = outputs[0]["output"]["recipe_sha256"]
    has_payload = outputs[0]["output"]["payload_kind"] != "none"
    (not has_payload or step(fetch_payload, sha256)) and step(build_image, sha256)
report = report_failure(run, None, None, outputs)
print(json.dumps({"built": len(outputs) > 1 and outputs[-1]["output"]["ok"], **report}))
"""
IN_NAMESPACE = ["unshare", "--user", "--map-current-user", "--keep-caps"]
NO_USERNS = [
    *IN_NAMESPACE, "sh", "-c", 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"', "sh",
]  # fmt: skip
DEFINITION = "Bootstrap: docker\nFrom: {image}\n\n%post\n    true\n"


@dataclass
class Site:
    """A site of its own; ``within`` are the words that make its build node worse than this machine."""

    folder: Path
    fields: dict[str, Any] = field(default_factory=dict)
    within: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "containers"

    def start(self, run: str, **spec: Any) -> subprocess.Popen[str]:
        profile = {
            **_machine(),
            "root": str(self.root),
            "mksquashfs_args": "-comp zstd -Xcompression-level 1",
            **self.fields,
        }
        path = self.folder / "site.json"
        path.write_text(json.dumps(profile))
        full = ContainerSpec.from_dict({"name": "broken", **PLAIN, **spec}).to_dict()
        return subprocess.Popen(
            [*self.within, sys.executable, "-c", STEPS, json.dumps(full), run],
            env={**os.environ, "CIB_FLOWS_SITE": str(path), "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def failed(self, **spec: Any) -> dict[str, Any]:
        """What is reported of the build, which must fail and leave nothing behind."""
        return self.report_of(self.start(str(uuid.uuid4()), **spec))

    def report_of(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        output, errors = process.communicate(timeout=600)
        if not output and self.within:
            pytest.skip(f"this machine cannot be made worse by {self.within[0]}: {errors[-300:]}")
        report: dict[str, Any] = json.loads(output)
        assert report["built"] is False, report
        assert report["sentence"].count("\n") == 0
        assert list((self.root / "work").glob("*")) == []
        assert not (self.root / "images").exists() or not list((self.root / "images").iterdir())
        return report

    def apptainer(self, image: str, *options: str, **environment: str) -> str:
        """What Apptainer itself says of a build there, when nobody looked at the node before."""
        (self.folder / "plain.def").write_text(DEFINITION.format(image=image))
        command = ["apptainer", "build", "--force", *options,
                   str(self.folder / "plain.sif"), str(self.folder / "plain.def")]  # fmt: skip
        done = subprocess.run(
            [*self.within, *command],
            env={**os.environ, "APPTAINER_NOCOLOR": "1", **environment},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
        assert done.returncode != 0
        assert "unshare: " not in done.stderr
        return done.stdout + done.stderr


def _machine() -> dict[str, Any]:
    path = os.environ.get("CIB_TEST_SITE")
    found: dict[str, Any] = json.loads(Path(path).read_text()) if path else {}
    return found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    if os.geteuid() == 0:
        pytest.skip("images are built as an ordinary user; deploy_scripts/test.sh drops to one")
    if not shutil.which("apptainer"):
        pytest.skip("Apptainer is not installed; deploy_scripts/install_apptainer.sh does it")
    return Site(tmp_path)


@pytest.fixture
def base() -> str:
    """Where a small base image is, for Apptainer itself."""
    return _machine().get("registry_mirrors", {}).get("docker.io", "docker.io") + (
        "/library/python:3.11-slim"
    )


@contextmanager
def serving(handler: Callable[..., Any], context: ssl.SSLContext | None = None) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def tmpfs(place: Path, options: str) -> list[str]:
    """Words before a command that let it see a file system of its own at ``place``."""
    place.mkdir()
    script = f'mount -t tmpfs -o {options} tmpfs "{place}" && exec "$@"'
    return [*IN_NAMESPACE, "--mount", "sh", "-c", script, "sh"]


def test_a_disk_that_is_full_while_the_base_is_unpacked(site: Site, tmp_path: Path) -> None:
    """Its bytes would do, so nobody refuses it before; its inodes do not."""
    place = tmp_path / "small"
    site.within = tmpfs(place, "size=2g,nr_inodes=1500")
    site.fields = {"tmpdir": str(place), "fakeroot": "ignore-subuid"}
    report = site.failed()
    assert report["error"]["code"] == "disk_full"
    assert "no space left on device" in report["error"]["log_tail"]
    assert "'tmpdir'" in report["error"]["hint"]


def test_a_cache_of_base_images_that_is_full(site: Site, tmp_path: Path) -> None:
    place = tmp_path / "small"
    site.within = tmpfs(place, "size=4m")
    site.fields = {"cachedir": str(place), "fakeroot": "ignore-subuid"}
    report = site.failed()
    assert report["error"]["code"] == "disk_full"
    assert f"cache of base images has no space left: {place}/cache/blob" in report["sentence"]
    assert "'cachedir'" in report["error"]["hint"]


def test_a_disk_that_a_command_fills(site: Site, tmp_path: Path) -> None:
    place = tmp_path / "small"
    site.within = tmpfs(place, "size=2100m")
    site.fields = {"tmpdir": str(place), "fakeroot": "ignore-subuid"}
    # as a program does that cleans up after itself
    command = "head -c 4G /dev/zero > /data || { rm /data; exit 1; }"
    report = site.failed(commands=[command])
    assert report["error"]["code"] == "disk_full"
    assert "head -c 4G" in report["sentence"]
    assert "'tmpdir'" in report["error"]["hint"]


def test_a_temporary_folder_that_forbids_programs(site: Site, tmp_path: Path, base: str) -> None:
    place = tmp_path / "noexec"
    site.within = tmpfs(place, "size=3g,noexec")
    site.fields = {"tmpdir": str(place), "fakeroot": "ignore-subuid"}
    report = site.failed()
    assert report["error"]["code"] == "apptainer_unusable"
    assert str(place) in report["sentence"]
    said = site.apptainer(base, "--fakeroot", "--ignore-subuid", APPTAINER_TMPDIR=str(place))
    code, sentence, _ = diagnose(said)
    assert code == "apptainer_unusable"
    assert str(place) in sentence


def test_a_node_without_user_namespaces(site: Site, base: str) -> None:
    site.within = NO_USERNS
    report = site.failed()
    assert report["error"]["code"] == "apptainer_unusable"
    assert "max_user_namespaces is 0" in report["sentence"]
    for options in ([], ["--fakeroot", "--ignore-subuid"]):
        code, sentence, hint = diagnose(site.apptainer(base, *options))
        assert code == "apptainer_unusable"
        assert "user namespaces" in sentence
        assert "another node" in hint


def test_a_build_that_is_killed(site: Site) -> None:
    run = str(uuid.uuid4())
    process = site.start(run, commands=["echo now it; echo works; sleep 300"])
    log = site.root / "runs" / run / "build.log"
    while "\nworks" not in (log.read_text() if log.exists() else ""):
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    found = [pid for pid in _processes(f"{run}/image.sif.new") if _is_engine(pid)]
    assert found
    os.kill(found[0], signal.SIGKILL)
    report = site.report_of(process)
    assert report["error"]["code"] == "build_killed"
    assert "SIGKILL" in report["sentence"]
    assert "memory" in report["error"]["hint"]
    assert _processes(run) == []


def _processes(word: str) -> list[int]:
    """Processes, in the order of their beginning, with ``word`` among their arguments."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if folder.name.isdigit() and word in words:
            found.append(int(folder.name))
    return sorted(found)


def _is_engine(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].endswith(b"apptainer")


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "registry_denied"),
        (403, "registry_denied"),
        (404, "base_not_found"),
        (429, "registry_rate_limit"),
    ],
)
def test_a_registry_that_refuses(site: Site, status: int, code: str) -> None:
    class Refusing(Quiet):
        def do_GET(self) -> None:
            body = b"" if self.path == "/v2/" else b'{"errors": []}'
            self.send_response(200 if self.path == "/v2/" else status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - as the standard library names it

    with serving(Refusing) as host:
        site.fields = {"payload_hosts": [host]}
        report = site.failed(base={"image": f"{host}/group/image:1"})
        assert report["error"]["code"] == code
        assert host in report["sentence"]
        # and what Apptainer says, whom the registry may refuse later than us
        assert diagnose(site.apptainer(f"{host}/group/image:1"))[0] == code


@pytest.mark.parametrize("with_uv", [True, False])
def test_an_index_whose_certificate_nobody_knows(site: Site, tmp_path: Path, with_uv: bool) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with serving(Quiet, context) as host:
        site.fields = {"pip_index_url": f"https://{host}/simple", **_tools(with_uv)}
        report = site.failed(pip=["six"])
    assert report["error"]["code"] == "network"
    assert "certificate is not trusted" in report["sentence"]
    assert "'ca_bundle'" in report["error"]["hint"]


def _tools(with_uv: bool) -> dict[str, Any]:
    return {} if with_uv else {"tools": None}


@pytest.mark.parametrize("with_uv", [True, False])
def test_an_index_whose_name_does_not_resolve(site: Site, with_uv: bool) -> None:
    site.fields = {"pip_index_url": "https://no-such-host.invalid/simple", **_tools(with_uv)}
    report = site.failed(pip=["six"])
    assert report["error"]["code"] == "network"
    assert "could not be resolved" in report["sentence"]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """An index with a package to be compiled, and one that is for a Python of the future."""
    folder = tmp_path / "index"
    setup = 'from setuptools import Extension, setup\nsetup(ext_modules=[Extension("cib_c", ["c.c"])])\n'
    project = (
        '[project]\nname = "cib-compiled"\nversion = "1.0"\n'
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
    )
    about = "Metadata-Version: 2.1\nName: {}\nVersion: 1.0\n"
    _sdist(folder, "cib_compiled", {
        "setup.py": setup, "pyproject.toml": project, "PKG-INFO": about.format("cib-compiled"),
        "c.c": "#include <Python.h>\n",
    })  # fmt: skip
    _sdist(folder, "cib_newer", {
        "pyproject.toml": '[project]\nname = "cib-newer"\nversion = "1.0"\nrequires-python = ">=3.99"\n',
        "PKG-INFO": about.format("cib-newer") + "Requires-Python: >=3.99\n",
    }, ' data-requires-python="&gt;=3.99"')  # fmt: skip
    _sdist(folder, "cib_changed", {"PKG-INFO": about.format("cib-changed")}, fragment="0" * 64)
    with serving(partial(Quiet, directory=str(folder))) as host:
        yield f"http://{host}/simple"


def _sdist(
    folder: Path, name: str, files: dict[str, str], attribute: str = "", fragment: str = ""
) -> None:
    """A source package and its page, which says the sha256 ``fragment`` of it."""
    sha256 = f"#sha256={fragment}" if fragment else ""
    page = folder / "simple" / name.replace("_", "-")
    page.mkdir(parents=True)
    (page / "index.html").write_text(
        f'<html><body><a href="{name}-1.0.tar.gz{sha256}"{attribute}>{name}-1.0.tar.gz</a></body></html>'
    )
    with tarfile.open(page / f"{name}-1.0.tar.gz", "w:gz") as archive:
        for path, text in files.items():
            entry = tarfile.TarInfo(f"{name}-1.0/{path}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))


@pytest.mark.parametrize("with_uv", [True, False])
def test_a_package_that_needs_a_compiler(site: Site, index: str, with_uv: bool) -> None:
    site.fields = {"pip_extra_index_urls": [index], **_tools(with_uv)}
    report = site.failed(pip=["cib-compiled"])
    assert report["error"]["code"] == "pip_failed"
    assert "no compiler" in report["sentence"]
    assert "gcc" in report["sentence"]
    assert "'build-essential'" in report["error"]["hint"]


@pytest.mark.parametrize("with_uv", [True, False])
def test_a_package_for_a_python_of_the_future(site: Site, index: str, with_uv: bool) -> None:
    site.fields = {"pip_extra_index_urls": [index], **_tools(with_uv)}
    report = site.failed(pip=["cib-newer"])
    assert report["error"]["code"] == "pip_package_not_found"
    assert ">=3.99" in report["sentence"]


@pytest.mark.parametrize("with_uv", [True, False])
def test_a_package_that_was_changed_on_the_way(site: Site, index: str, with_uv: bool) -> None:
    site.fields = {"pip_extra_index_urls": [index], **_tools(with_uv)}
    report = site.failed(pip=["cib-changed"])
    assert report["error"]["code"] == "pip_failed"
    assert "sha256" in report["sentence"]


def test_conda_packages_that_conflict(site: Site, tmp_path: Path) -> None:
    if not (Path(_machine().get("tools") or "/nowhere") / "rattler").is_dir():
        pytest.skip(
            "the site lends no rattler; deploy_scripts/test.sh puts it into the tools folder"
        )
    channel = make_channel(tmp_path / "channel")
    with serving(partial(Quiet, directory=str(channel.parent))) as host:
        site.fields = {"payload_hosts": [host]}
        report = site.failed(
            conda=["hello-user", "old-user"], conda_channels=[f"http://{host}/channel"]
        )
        assert report["error"]["code"] == "conda_failed"
        assert "together" in report["sentence"]
        missing = site.failed(conda=["hello-user"], conda_channels=[f"http://{host}/nothing"])
    assert missing["error"]["code"] == "conda_failed"
    assert "channel cannot be read" in missing["sentence"]


def test_a_git_requirement_in_an_image_without_git(site: Site) -> None:
    report = site.failed(pip=["cib-nothing @ git+https://127.0.0.1:9/x.git"])
    assert report["error"]["code"] == "pip_failed"
    assert "no git" in report["sentence"]
    assert report["error"]["hint"] == "Add 'git' to 'apt'."


def test_a_name_that_apt_would_read_as_a_pattern(site: Site) -> None:
    report = site.failed(apt=["libstdc++6", "libpng1."])
    assert report["error"]["code"] == "apt_package_not_found"
    assert "'libpng1.'" in report["sentence"]
    assert "for regex" not in Path(report["error"]["log_path"]).read_text()


def test_a_damaged_payload(site: Site, tmp_path: Path) -> None:
    folder = tmp_path / "web"
    folder.mkdir()
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        entry = tarfile.TarInfo("data")
        entry.size = 100_000
        archive.addfile(entry, io.BytesIO(os.urandom(100_000)))
    (folder / "data.tar.gz").write_bytes(raw.getvalue()[:60_000])
    with serving(partial(Quiet, directory=str(folder))) as host:
        site.fields = {"payload_hosts": [host]}
        report = site.failed(payload={"url": f"http://{host}/data.tar.gz"})
    assert report["error"]["code"] == "payload_refused"
    assert "damaged" in report["sentence"]


def test_words_that_mksquashfs_does_not_take(site: Site) -> None:
    site.fields = {"mksquashfs_args": "-comp nonsense"}
    report = site.failed()
    assert report["error"]["code"] == "site_invalid"
    assert "mksquashfs" in report["sentence"]
    assert "'mksquashfs_args'" in report["error"]["hint"]


def test_an_unknown_cause_shows_the_logs_end_and_no_guess(site: Site) -> None:
    report = site.failed(mounts=["/etc/passwd/inner"])
    assert report["error"]["code"] == "build_failed"
    assert "exit status 255" in report["sentence"]
    assert "Not a directory" in report["error"]["log_tail"]
    assert "last lines" in report["error"]["hint"]
    assert Path(report["error"]["log_path"]).read_text().count("Not a directory") == 1
