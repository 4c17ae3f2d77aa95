"""A lock of a real image, and the same image again from it."""

from __future__ import annotations

import hashlib
import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from .conda_channel import make_channel
from .conftest import PLAIN, LocalGlobus

SPEC: dict[str, Any] = {
    **PLAIN,
    "name": "locked",
    "apt": ["file"],
    "pip": ["six"],
    "commands": ["date > /var/log/built"],
}


@pytest.fixture(scope="module")
def lock(globus: LocalGlobus) -> dict[str, Any]:
    globus.built(SPEC)
    answer = globus.cli("containers", "lock", "locked")
    assert answer.code == 0, answer.errors
    found: dict[str, Any] = json.loads(answer.output)
    return found


def by_name(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in entries}


def test_a_lock_names_versions_and_hashes(globus: LocalGlobus, lock: dict[str, Any]) -> None:
    assert lock["base"]["digest"].startswith("sha256:")
    six = by_name(lock["pip"])["six"]
    shown = globus.cli("containers", "show", "locked", "--json").document
    inside = globus.inside(
        shown["container"], "python3", "-c", "import six; print(six.__version__)"
    )
    assert six["version"] == inside.strip()
    assert six["hashes"]
    debian = by_name(lock["debian"])
    said = globus.inside(shown["container"], "dpkg-query", "-W", "-f", "${Version}", "file")
    assert debian["file"]["version"] == said
    assert len(debian["file"]["sha256"]) == 64


def test_the_same_image_again_is_content_identical(
    globus: LocalGlobus, lock: dict[str, Any]
) -> None:
    again = globus.cli("build", "--locked", "locked:latest", "--json")
    assert again.code == 0, again.errors
    assert (again.document["name"], again.document["tag"]) == ("locked", "latest-locked")
    assert again.document["cached"] is False
    compared = globus.cli(
        "containers", "diff", "locked:latest", "locked:latest-locked", "--content"
    )
    assert compared.code == 0, compared.errors
    assert "content-identical" in compared.output
    assert "pip:" not in compared.output


def test_an_older_version_is_installed_where_the_lock_says_so(
    globus: LocalGlobus, lock: dict[str, Any]
) -> None:
    older = json.loads(json.dumps(lock))
    six = by_name(older["pip"])["six"]
    six["version"] = "1.16.0"
    six["hashes"] = ["sha256:8abb2f1d86890a2dfb989f9a77cfcfd3e47c2a354b01111771326f8aa26e0254"]
    answer = globus.cli("build", "--locked", written(globus, older), "--json")
    assert answer.code == 0, answer.errors
    compared = globus.cli("containers", "diff", "locked:latest", "locked:latest-locked").output
    assert f"six {by_name(lock['pip'])['six']['version']} -> 1.16.0" in compared

    six["hashes"] = ["sha256:" + "0" * 64]
    answer = globus.cli("build", "--locked", written(globus, older), "--json")
    assert answer.code == 1
    assert answer.document["failure"]["code"] == "pip_failed"
    assert "sha256" in answer.document["failure"]["sentence"]


def test_a_version_that_is_gone_is_named(globus: LocalGlobus, lock: dict[str, Any]) -> None:
    gone = json.loads(json.dumps(lock))
    by_name(gone["debian"])["file"]["version"] = "1:0.1-1"
    answer = globus.cli("build", "--locked", written(globus, gone), "--json")
    assert answer.code == 1
    failure = answer.document["failure"]
    assert failure["code"] == "lock_mismatch"
    assert "debian file:" in failure["sentence"]


def written(globus: LocalGlobus, lock: dict[str, Any]) -> str:
    path: Path = globus.folder / "lock.json"
    path.write_text(json.dumps(lock))
    return str(path)


def test_conda_packages_are_locked_by_build_and_sha256(
    globus: LocalGlobus, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if globus.tools is None or not (globus.tools / "rattler").is_dir():
        pytest.skip("py-rattler is not in the site's tools")
    folder = tmp_path_factory.mktemp("channel")
    make_channel(folder / "channel")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        channel = f"http://127.0.0.1:{server.server_port}/channel"
        globus.built(
            {**PLAIN, "name": "conda-locked", "conda": ["hello-user"], "conda_channels": [channel]}
        )
        found = globus.cli("containers", "lock", "conda-locked", "--json").document["lock"]
        package = folder / "channel" / "noarch" / "hello-user-2.1-0.tar.bz2"
        assert by_name(found["conda"])["hello-user"] == {
            "name": "hello-user",
            "version": "2.1",
            "build": "0",
            "channel": channel,
            "subdir": "noarch",
            "sha256": hashlib.sha256(package.read_bytes()).hexdigest(),
        }
        again = globus.cli("build", "--locked", "conda-locked", "--json")
        assert again.code == 0, again.errors
    finally:
        server.shutdown()
        server.server_close()
