"""A payload from a git repository: pinned, fetched, and never trusted."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions.render_recipe import render_recipe
from tests.functions.conftest import Answer, Server, Site
from tests.functions.payloads import Start, content, fetched, refused


def git(folder: Path, *arguments: str) -> str:
    environment = {
        "PATH": os.environ["PATH"],
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        **{
            f"GIT_{who}_{what}": "x"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }
    return subprocess.run(
        ["git", *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A bare repository with two commits on ``main``, a branch ``dev`` and an annotated tag ``v1``."""
    work = tmp_path / "clone"
    work.mkdir()
    git(work, "init", "-q", "-b", "main", ".")
    (work / "a.py").write_text("first\n")
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "first")
    git(work, "tag", "-a", "-m", "one", "v1")
    (work / "a.py").write_text("second\n")
    (work / ".gitattributes").write_text("*.py filter=evil\n")
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "second")
    git(work, "branch", "dev", "v1")
    bare = tmp_path / "served" / "project.git"
    git(tmp_path, "clone", "-q", "--bare", str(work), str(bare))
    git(bare, "update-server-info")
    return bare


def smart(root: Path, server: Callable[[], Server]) -> Callable[[str, str, dict[str, str]], Answer]:
    """git's own CGI program."""

    def answer(method: str, target: str, headers: dict[str, str]) -> Answer:
        path, _, query = target.partition("?")
        done = subprocess.run(
            ["git", "http-backend"],
            input=server().body,
            capture_output=True,
            env={
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_GLOBAL": "/dev/null",
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": method,
                "CONTENT_TYPE": headers.get("content-type", ""),
                "HTTP_CONTENT_ENCODING": headers.get("content-encoding", ""),
                "GIT_PROTOCOL": headers.get("git-protocol", ""),
                "REMOTE_ADDR": "127.0.0.1",
            },
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().splitlines())
        return int(fields.pop("Status", "200").split()[0]), fields, body

    return answer


def dumb(root: Path) -> Callable[[str, str, dict[str, str]], Answer]:
    """A plain file server."""

    def answer(_: str, target: str, __: dict[str, str]) -> Answer:
        path = root / target.partition("?")[0].lstrip("/")
        return (200, {}, path.read_bytes()) if path.is_file() else (404, {}, b"")

    return answer


@pytest.fixture(params=["smart", "dumb"])
def forge(request: pytest.FixtureRequest, repository: Path, web: Server) -> Server:
    root = repository.parent
    web.answer = smart(root, lambda: web) if request.param == "smart" else dumb(root)
    return web


@pytest.mark.parametrize(
    ("ref", "text"),
    [(None, "second\n"), ("main", "second\n"), ("v1", "first\n"), ("dev", "first\n")],
)
def test_a_branch_or_tag_is_pinned_to_its_commit_and_fetched(
    start: Start, forge: Server, repository: Path, ref: str | None, text: str
) -> None:
    payload = {"git": f"{forge.url}/project.git"} | ({"ref": ref} if ref else {})
    run = start(payload=payload)
    plan = (run.folder / "plan.json").read_text()
    assert git(repository, "rev-parse", f"{ref or 'HEAD'}^{{commit}}") in plan
    fetched(run)
    assert content(run)["a.py"].decode() == text
    assert not (run.work / "payload" / ".git").exists()


def test_a_branch_that_moves_during_a_run_does_not_move_the_run(
    start: Start, forge: Server, repository: Path, tmp_path: Path
) -> None:
    run = start(payload={"git": f"{forge.url}/project.git", "ref": "main"})
    work = tmp_path / "clone"
    (work / "a.py").write_text("third\n")
    git(work, "commit", "-q", "-a", "-m", "third")
    git(work, "push", "-q", str(repository), "main")
    git(repository, "update-server-info")
    fetched(run)
    assert content(run)["a.py"] == b"second\n"


def test_a_full_commit_is_taken_as_it_is(start: Start, forge: Server, repository: Path) -> None:
    commit = git(repository, "rev-parse", "v1^{commit}")
    run = start(payload={"git": f"{forge.url}/project.git", "ref": commit})
    fetched(run)
    assert content(run) == {"a.py": b"first\n"}


def test_an_unknown_commit_is_told(start: Start, forge: Server) -> None:
    run = start(payload={"git": f"{forge.url}/project.git", "ref": "f" * 40})
    assert "has no commit " + "f" * 40 in refused(run, "payload_not_found")


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"path": "/project.git", "ref": "nope"}, "payload_not_found", "no branch or tag 'nope'"),
        (
            {"path": "/project.git", "ref": "abc1234"},
            "payload_not_found",
            "no branch or tag 'abc1234'",
        ),
        ({"path": "/missing.git"}, "payload_not_found", "git could not read"),
    ],
)
def test_what_does_not_exist_is_told_before_anything_is_built(
    site: Site, registry: Server, forge: Server, fields: dict[str, str], code: str, words: str
) -> None:
    payload = {**fields, "git": forge.url + fields["path"]}
    del payload["path"]
    spec = {"name": "demo", "base": {"image": "debian:12"}, "worker": "none", "payload": payload}
    result = render_recipe(spec, str(uuid.uuid4()))
    assert result["error"]["code"] == code
    assert words in result["error"]["message"]


def test_git_does_not_follow_a_redirect_into_the_inner_network(
    site: Site, registry: Server, web: Server, other_web: Server
) -> None:
    web.answer = lambda _, path, __: (301, {"Location": other_web.url + path}, b"")
    spec = {"name": "demo", "base": {"image": "debian:12"}, "worker": "none"}
    result = render_recipe({**spec, "payload": {"git": f"{web.url}/x.git"}}, str(uuid.uuid4()))
    assert result["error"]["code"] == "payload_not_found"
    assert other_web.requests == []


def test_a_repository_runs_none_of_the_users_git_configuration(
    start: Start, forge: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    marker = tmp_path / "ran"
    (home / ".gitconfig").write_text(
        f'[filter "evil"]\n\tsmudge = touch {marker}\n\trequired = true\n'
    )
    monkeypatch.setenv("HOME", str(home))
    fetched(start(payload={"git": f"{forge.url}/project.git"}))
    assert not marker.exists()


def test_a_password_of_the_endpoints_account_is_not_shown_to_a_specs_server(
    site: Site, registry: Server, web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login service password s3cret\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    web.answer = lambda *_: (401, {"WWW-Authenticate": 'Basic realm="x"'}, b"")
    spec = {"name": "demo", "base": {"image": "debian:12"}, "worker": "none"}
    result = render_recipe({**spec, "payload": {"git": f"{web.url}/x.git"}}, str(uuid.uuid4()))
    assert result["error"]["code"] == "payload_not_found"
    assert web.requests
    assert not any("authorization" in headers for _, _, headers in web.requests)


def test_a_repository_beyond_the_sites_limit_is_not_fetched_to_its_end(
    start: Start, site: Site, forge: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(payload={"git": f"{forge.url}/project.git"})
    endless = tmp_path / "bin" / "git"
    endless.parent.mkdir()
    endless.write_text(
        f"""#!/bin/sh
case " $* " in *" fetch "*) ;; *) exec {shutil.which("git")} "$@" ;; esac
for i in $(seq 200); do head -c 100000 /dev/zero >> big; sleep 0.1; done
exit 1
"""
    )
    endless.chmod(0o755)
    monkeypatch.setenv("PATH", f"{endless.parent}:{os.environ['PATH']}")
    site.set(payload_limit_bytes=50_000)
    assert "limit of 50000 bytes" in refused(run, "payload_refused")


def test_an_abort_ends_git_under_way(start: Start, forge: Server) -> None:
    run = start(payload={"git": f"{forge.url}/project.git"})
    stuck, answer = threading.Event(), forge.answer

    def hang(*asked: Any) -> Answer:
        (run.folder / "ABORT").write_text("")
        stuck.wait(30)
        return answer(*asked)

    forge.answer = hang
    try:
        assert refused(run, "aborted") == "The build was stopped on request."
    finally:
        stuck.set()
    assert not run.work.exists()


def test_a_repository_with_a_link_that_leaves_it_is_refused(
    start: Start, web: Server, tmp_path: Path, repository: Path
) -> None:
    work = tmp_path / "clone"
    (work / "secrets").symlink_to("/etc/passwd")
    git(work, "add", "secrets")
    git(work, "commit", "-q", "-m", "link")
    git(work, "push", "-q", str(repository), "main")
    git(repository, "update-server-info")
    web.answer = smart(repository.parent, lambda: web)
    run = start(payload={"git": f"{web.url}/project.git"})
    assert "link that leaves it: secrets" in refused(run, "payload_refused")


@pytest.mark.parametrize("image", ["/payload/no.tar", "/payload/link.tar", "/payload/folder"])
def test_a_base_that_the_payload_does_not_hold_is_told(
    start: Start, forge: Server, repository: Path, tmp_path: Path, image: str
) -> None:
    work = tmp_path / "clone"
    (work / "folder").mkdir()
    (work / "folder" / "x").write_text("x")
    (work / "link.tar").symlink_to("a.py")
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "more")
    git(work, "push", "-q", str(repository), "main")
    git(repository, "update-server-info")
    run = start(
        base={"bootstrap": "docker-archive", "image": image},
        payload={"git": f"{forge.url}/project.git"},
    )
    assert image.removeprefix("/payload/") in refused(run, "base_not_found")
