"""What a spec can say, each in a real image."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from .conda_channel import make_channel
from .conftest import PLAIN, LocalGlobus


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder and the loopback address it is served at."""
    folder = tmp_path_factory.mktemp("web")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_apt_environment_mounts_commands_and_verification(globus: LocalGlobus) -> None:
    value = 'it\'s {{ a }} "b" $HOME `id` % #c'
    container = globus.built(
        {
            "name": "many-things",
            **PLAIN,
            "apt": ["hello"],
            "environment": {"CIB_TEST_VALUE": value},
            "mounts": ["/scratch", "/service"],
            "commands": ["mkdir -p /opt/made", 'echo "made with $CIB_TEST_VALUE" > /opt/made/file'],
            "verify": {"commands": ["hello --greeting=yes | grep -q yes", "test -d /scratch"]},
        }
    )
    assert "Hello" in globus.inside(container, "hello")
    assert globus.inside(container, "printenv", "CIB_TEST_VALUE") == f"{value}\n"
    assert globus.inside(container, "cat", "/opt/made/file") == f"made with {value}\n"
    assert globus.inside(container, "ls", "-d", "/scratch", "/service").split() == [
        "/scratch",
        "/service",
    ]
    # what the build lent is not in the image
    assert globus.inside(container, "ls", "-A", "/mnt") == ""


def test_an_https_payload_is_checked_and_unpacked(
    globus: LocalGlobus, web: tuple[Path, str]
) -> None:
    folder, address = web
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        entry = tarfile.TarInfo("tool/run.sh")
        entry.mode, body = 0o755, b"#!/bin/sh\necho payload ran\n"
        entry.size = len(body)
        archive.addfile(entry, io.BytesIO(body))
    (folder / "tool.tar.gz").write_bytes(raw.getvalue())
    payload = {"url": f"{address}/tool.tar.gz", "destination": "/opt/tool"}
    right = hashlib.sha256(raw.getvalue()).hexdigest()
    container = globus.built({"name": "archived", **PLAIN, "payload": {**payload, "sha256": right}})
    assert globus.inside(container, "/opt/tool/tool/run.sh") == "payload ran\n"

    wrong = globus.build({"name": "archived", **PLAIN, "payload": {**payload, "sha256": "0" * 64}})
    assert wrong.code == 1
    assert wrong.document["failure"]["code"] == "payload_checksum"
    assert right in wrong.document["failure"]["sentence"]
    assert globus.leftovers() == []


def test_a_git_payload_is_pinned_to_its_commit(globus: LocalGlobus, web: tuple[Path, str]) -> None:
    folder, address = web
    work = folder / "work"
    work.mkdir()

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments],
            cwd=work, check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip

    git("init", "-q", "-b", "main")
    (work / "hello.txt").write_text("first\n")
    git("add", ".")
    git("commit", "-qm", "first")
    git("tag", "v1")
    (work / "hello.txt").write_text("second\n")
    git("commit", "-qam", "second")
    git("clone", "-q", "--bare", ".", "../repo.git")
    subprocess.run(["git", "update-server-info"], cwd=folder / "repo.git", check=True)
    spec = {"name": "cloned", **PLAIN, "payload": {"git": f"{address}/repo.git", "ref": "v1"}}
    container = globus.built(spec)
    assert globus.inside(container, "cat", "/payload/hello.txt") == "first\n"
    newest = globus.built({**spec, "payload": {"git": f"{address}/repo.git"}})
    assert globus.inside(newest, "cat", "/payload/hello.txt") == "second\n"
    assert newest["container_id"] != container["container_id"]
    assert globus.built(spec)["cached"] is True
    missing = globus.build({**spec, "payload": {**spec["payload"], "ref": "no-such-tag"}})  # type: ignore[dict-item]
    assert missing.document["failure"]["code"] == "payload_not_found"


def test_a_payload_comes_by_globus_transfer(globus: LocalGlobus, tmp_path: Path) -> None:
    source = tmp_path / "data"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "notes.txt").write_text("from a collection\n")
    added = globus.cli("local", "collection", "add", "data", str(source), "--json").document
    spec = {
        "name": "transferred",
        **PLAIN,
        "payload_collection": {"id": added["id"], "path": "/deep/"},
    }
    container = globus.built(spec)
    assert globus.inside(container, "cat", "/payload/notes.txt") == "from a collection\n"
    assert globus.built(spec)["cached"] is True
    missing = globus.build({**spec, "payload_collection": {"id": added["id"], "path": "/nothing/"}})
    assert missing.code == 1
    assert missing.document["failure"]["code"] == "transfer_failed"
    assert globus.leftovers() == []


def test_conda_packages_come_without_conda_in_the_base(
    globus: LocalGlobus, web: tuple[Path, str]
) -> None:
    folder, address = web
    if not (globus.tools and (globus.tools / "rattler").is_dir()):
        pytest.skip(
            "the site lends no rattler; deploy_scripts/test.sh puts it into the tools folder"
        )
    if not (folder / "channel").is_dir():
        make_channel(folder / "channel")
    spec = {"name": "conda-made", **PLAIN, "conda_channels": [f"{address}/channel"]}
    container = globus.built({**spec, "conda": ["hello-user[version='>=2']"]})
    assert globus.inside(container, "hello-program") == "hello from conda\n"
    missing = globus.build({**spec, "conda": ["no-such-conda-package"]})
    assert missing.document["failure"]["code"] == "conda_package_not_found"
    assert "no-such-conda-package" in missing.document["failure"]["sentence"]


def test_conda_and_pip_make_one_environment(globus: LocalGlobus, web: tuple[Path, str]) -> None:
    """conda brings Python itself, from an environment.yml, and pip's packages go into the very same prefix."""
    folder, address = web
    if not (globus.tools and (globus.tools / "rattler").is_dir()):
        pytest.skip(
            "the site lends no rattler; deploy_scripts/test.sh puts it into the tools folder"
        )
    if not (folder / "channel").is_dir():
        make_channel(folder / "channel")
    spec = {
        "name": "one-environment",
        **PLAIN,
        "conda_environment": f"channels:\n- {address}/channel\n"
        "dependencies:\n- python=3.11\n- hello-user\n- pip:\n  - six==1.16.0\n",
        "pip": ["toolz"],
    }
    container = globus.built(spec)
    assert globus.inside(container, "hello-program") == "hello from conda\n"
    shown = "import six, sys, toolz; print(sys.prefix, six.__version__, six.__file__)"
    prefix, version, place = globus.inside(container, "python3", "-c", shown).split()
    assert (prefix, version) == ("/opt/cib/conda", "1.16.0")
    assert place.startswith("/opt/cib/conda/lib/python3.11/site-packages/")
    listed = globus.inside(container, "/bin/sh", "-c", "ls -d /opt/cib/venv || echo no venv")
    assert listed == "no venv\n"


def test_a_gpu_is_there_for_conda_only_when_the_spec_says_so(
    globus: LocalGlobus, web: tuple[Path, str]
) -> None:
    folder, address = web
    if not (globus.tools and (globus.tools / "rattler").is_dir()):
        pytest.skip(
            "the site lends no rattler; deploy_scripts/test.sh puts it into the tools folder"
        )
    if not (folder / "channel").is_dir():
        make_channel(folder / "channel")
    spec = {
        "name": "gpu-image",
        **PLAIN,
        "conda": ["gpu-program"],
        "conda_channels": [f"{address}/channel"],
    }
    refused = globus.build(spec)
    assert refused.document["failure"]["code"] == "conda_package_not_found"
    container = globus.built({**spec, "machine": {"gpu": {"kind": "cuda", "version": "12.4"}}})
    assert globus.inside(container, "cat", "/opt/cib/conda/share/gpu.txt") == "hi\n"


def test_files_labels_and_a_runscript(globus: LocalGlobus) -> None:
    label = 'it\'s 100 % # of {what} "we" $(id) \\ hold'
    container = globus.built(
        {
            "name": "worded",
            **PLAIN,
            "labels": {"org.example.note": label, "B": "%setup"},
            "files": [
                {
                    "path": "/usr/local/bin/greet",
                    "content": '#!/bin/sh\nprintf "<%s>" "it\'s" "$@"\n',
                    "executable": True,
                },
                {"path": "/etc/cib-test/plain", "content": "%setup\n{{ x }}\n\nend"},
            ],
            "runscript": ["greet", "two words"],
            "verify": {"commands": ["test -x /usr/local/bin/greet"]},
        }
    )
    assert globus.inside(container, "a  b", "") == "<it's><two words><a  b><>"
    exec_ = ["apptainer", "--silent", "exec", container["path"], "cat", "/etc/cib-test/plain"]
    written = subprocess.run(exec_, capture_output=True, text=True, check=True).stdout
    assert written == "%setup\n{{ x }}\n\nend"
    shown = subprocess.run(
        ["apptainer", "inspect", "--json", container["path"]],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    labels = json.loads(shown)["data"]["attributes"]["labels"]
    assert labels["org.example.note"] == label
    assert labels["B"] == "%setup"
    assert labels["cib-flows.name"] == "worded"


def test_a_payload_installs_what_it_asks_for(globus: LocalGlobus, web: tuple[Path, str]) -> None:
    folder, address = web
    files = {
        "apt.txt": "hello\n",
        "requirements.txt": "six==1.16.0  # old on purpose\n-r more.txt\n",
        "more.txt": "toolz\n",
        "pyproject.toml": "[project]\nname = 'cib-demo'\nversion = '1.2'\ndependencies = ['idna']\n"
        "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n"
        "[tool.setuptools]\npy-modules = ['cib_demo']\n",
        "cib_demo.py": "import idna, six, toolz\nWORD = 'installed'\n",
        "postBuild": "#!/bin/sh\nset -e\npython3 -c 'import cib_demo; print(cib_demo.WORD)' > /payload/made.txt\n",
        "start": '#!/bin/sh\nexport CIB_STARTED=yes\nexec "$@"\n',
    }
    (folder / "repo.tar.gz").write_bytes(archive(files))
    spec = {
        "name": "installed",
        **PLAIN,
        "payload": {"url": f"{address}/repo.tar.gz", "install": True},
        "verify": {"imports": ["cib_demo"], "commands": ["hello | grep -q Hello"]},
    }
    container = globus.built(spec)
    assert globus.inside(container, "cat", "/payload/made.txt") == "installed\n"
    assert globus.inside(container, "printenv", "CIB_STARTED") == "yes\n"
    words = ["two words", "it's", ""]
    assert globus.inside(container, "printf", "<%s>", *words) == "<two words><it's><>"
    shown = "import six, importlib.metadata as m; print(six.__version__, m.version('cib-demo'))"
    assert globus.inside(container, "python3", "-c", shown) == "1.16.0 1.2\n"

    # another source, the same environment: nothing of it is installed again
    files["cib_demo.py"] = "import idna, six, toolz\nWORD = 'changed'\n"
    (folder / "repo.tar.gz").write_bytes(archive(files))
    changed = globus.built(spec)
    assert changed["container_id"] != container["container_id"]
    builds = sorted(
        (globus.root / "runs").glob("*/build.json"), key=lambda path: path.stat().st_mtime
    )
    assert json.loads(builds[-1].read_text())["stage"] == "whole"
    assert globus.inside(changed, "cat", "/payload/made.txt") == "changed\n"

    files["postBuild"] = "#!/bin/sh\necho about to fail\nexit 7\n"
    (folder / "repo.tar.gz").write_bytes(archive(files))
    failed = globus.build(spec)
    assert failed.document["failure"]["code"] == "post_build_failed"
    assert "ended with status 7" in failed.document["failure"]["sentence"]

    files["requirements.txt"] = "--index-url https://evil.example/\n"
    (folder / "repo.tar.gz").write_bytes(archive(files))
    refused = globus.build(spec)
    assert refused.document["failure"]["code"] == "payload_refused"
    assert "'requirements.txt, line 1'" in refused.document["failure"]["sentence"]
    assert globus.leftovers() == []


def test_a_payloads_environment_may_bring_its_own_python(
    globus: LocalGlobus, web: tuple[Path, str]
) -> None:
    folder, address = web
    if not (globus.tools and (globus.tools / "rattler").is_dir()):
        pytest.skip(
            "the site lends no rattler; deploy_scripts/test.sh puts it into the tools folder"
        )
    if not (folder / "channel").is_dir():
        make_channel(folder / "channel")
    files = {
        "binder/environment.yml": f"channels: ['{address}/channel']\n"
        "dependencies:\n  - python=3.11\n  - hello-user\n  - pip:\n    - six\n",
        "binder/requirements.txt": "toolz\n",
        "binder/postBuild": "#!/bin/sh\nhello-program > made.txt\n",
        "requirements.txt": "this-is-not-read\n",
    }
    (folder / "own.tar.gz").write_bytes(archive(files))
    payload = {"url": f"{address}/own.tar.gz", "install": True}
    container = globus.built({"name": "own-python", **PLAIN, "payload": payload})
    shown = "import six, sys, toolz; print(sys.prefix)"
    assert globus.inside(container, "python3", "-c", shown) == "/opt/cib/conda\n"
    assert globus.inside(container, "cat", "/payload/made.txt") == "hello from conda\n"

    line = ["containers", "test", container["container_id"], "--json", "--"]
    tried = globus.cli(*line, "/bin/sh", "-c", 'printf "<%s>" "$@" >&2; exit 9', "sh", "a  b", "")
    assert tried.code == 9
    assert tried.document["command"][:2] == ["apptainer", "exec"]
    assert container["path"] in tried.document["command"]
    assert "<a  b><>" in tried.errors


def archive(files: dict[str, str]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as made:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(text), 0o755 if text.startswith("#!") else 0o644
            made.addfile(entry, io.BytesIO(text.encode()))
    return raw.getvalue()


@pytest.mark.parametrize("bootstrap", ["docker-archive", "oci-archive"])
def test_a_base_may_come_with_the_payload(
    globus: LocalGlobus, web: tuple[Path, str], bootstrap: str
) -> None:
    """As 'docker save' and 'podman save' leave it on somebody's own computer."""
    folder, address = web
    if not shutil.which("skopeo"):
        pytest.skip("skopeo makes the archive for this test")
    site = json.loads((globus.folder / "site.json").read_text())
    registry = site.get("registry_mirrors", {}).get("docker.io", "docker.io")
    source = f"docker://{registry}/library/python:3.11-slim"
    secure = "false" if registry != "docker.io" else "true"
    target = f"{bootstrap}:{folder}/{bootstrap}.tar"
    command = ["skopeo", "copy", "-q", f"--src-tls-verify={secure}", source, target]
    subprocess.run(command, check=True)
    container = globus.built(
        {
            "name": f"from-{bootstrap}",
            "base": {"bootstrap": bootstrap, "image": "/payload/mine.tar"},
            "payload": {"url": f"{address}/{bootstrap}.tar"},
            "worker": "none",
        }
    )
    assert "Python 3.11" in globus.inside(container, "python3", "--version")
    assert globus.inside(container, "ls", "-A", "/payload") == ""
