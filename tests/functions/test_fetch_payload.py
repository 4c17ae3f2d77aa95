"""A payload's way into a run: downloaded, cloned or taken over from Transfer, and never trusted."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions._shared import downloads
from cib_flows.functions.build_image import build_image
from cib_flows.functions.fetch_payload import fetch_payload
from cib_flows.functions.render_recipe import render_recipe
from tests.functions.conftest import Answer, Apptainer, Run, Server, Site

Start = Callable[..., Run]
COLLECTION = {"id": "6c54cade-bde5-45c1-bdea-f4bd71dba2cc", "path": "/~/my data.tar.gz"}


def fetched(run: Run) -> dict[str, Any]:
    result = fetch_payload(run.id, run.recipe_sha256)
    assert result["ok"] is True, result
    return result


def refused(run: Run, code: str) -> str:
    result = fetch_payload(run.id, run.recipe_sha256)
    assert result["ok"] is False
    assert result["error"]["code"] == code, result["error"]
    return str(result["error"]["message"])


def content(run: Run) -> dict[str, bytes]:
    root = run.work / "payload"
    return {
        str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()
    }


def archive_of(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as made:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return stream.getvalue()


# by https


def test_an_archive_is_unpacked_and_its_checksum_held(start: Start, web: Server) -> None:
    data = archive_of(a=b"1", b=b"22")
    web.answer = lambda *_: (200, {}, data)
    run = start(payload={"url": f"{web.url}/x.tar.gz", "sha256": hashlib.sha256(data).hexdigest()})
    assert run.rendered["payload_kind"] == "https"
    assert run.rendered["build_digest"] is None
    result = fetched(run)
    assert content(run) == {"a": b"1", "b": b"22"}
    assert (result["payload_files"], result["payload_bytes"], result["cached"]) == (2, 3, False)
    assert result["build_digest"]
    assert sorted(os.listdir(run.work)) == ["payload"]


def test_the_same_content_has_the_same_build_digest_wherever_it_comes_from(
    start: Start, web: Server
) -> None:
    web.answer = lambda *_: (200, {}, archive_of(a=b"1"))
    first = fetched(start(payload={"url": f"{web.url}/x.tar.gz"}))
    second = fetched(start(payload={"url": f"{web.url}/y.tgz?z=1"}))
    assert first["build_digest"] == second["build_digest"]
    elsewhere = fetched(start(payload={"url": f"{web.url}/x.tar.gz", "destination": "/srv/x"}))
    assert elsewhere["payload_digest"] == first["payload_digest"]
    assert elsewhere["build_digest"] != first["build_digest"]
    web.answer = lambda *_: (200, {}, archive_of(a=b"2"))
    assert fetched(start(payload={"url": f"{web.url}/x.tar.gz"}))["build_digest"] not in (
        first["build_digest"],
        elsewhere["build_digest"],
    )


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/models/a.txt?download=1", "a.txt"),
        ("/", "payload"),
        ("/..", "payload"),
        ("/a%2F..%2Fb", "a_2F.._2Fb"),
        ("/" + "a" * 500 + ".txt", "a" * 196 + ".txt"),
    ],
)
def test_a_plain_file_keeps_a_safe_name(start: Start, web: Server, path: str, name: str) -> None:
    web.answer = lambda *_: (200, {}, b"text")
    run = start(payload={"url": f"{web.url}{path}"})
    fetched(run)
    assert content(run) == {name: b"text"}


def test_a_wrong_checksum_is_refused_and_nothing_unpacked(start: Start, web: Server) -> None:
    web.answer = lambda *_: (200, {}, archive_of(a=b"1"))
    run = start(payload={"url": f"{web.url}/x.tar.gz", "sha256": "0" * 64})
    assert "0" * 64 in refused(run, "payload_checksum")
    assert content(run) == {}


@pytest.mark.parametrize(
    "headers",
    [{"Content-Length": "5000"}, {"Transfer-Encoding": "chunked"}],
    ids=["plain", "chunked"],
)
def test_a_download_that_breaks_off_is_a_network_failure(
    start: Start, web: Server, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "ATTEMPT_PAUSE_S", 0.0)
    body = b"5000\r\n" + b"x" * 100 if "Transfer-Encoding" in headers else b"x" * 100
    web.answer = lambda *_: (200, headers, body)
    message = refused(start(payload={"url": f"{web.url}/x"}), "network")
    assert "broke off after" in message


def test_a_missing_file_is_told_with_its_status(start: Start, web: Server) -> None:
    message = refused(start(payload={"url": f"{web.url}/x"}), "payload_not_found")
    assert "the server answered 404" in message


def test_a_download_stops_at_the_sites_limit(start: Start, site: Site, web: Server) -> None:
    site.set(payload_limit_bytes=1000)
    web.answer = lambda *_: (200, {}, b"x" * 5000)
    message = refused(start(payload={"url": f"{web.url}/x"}), "payload_refused")
    assert "limit of 1000 bytes" in message


def test_an_inner_address_is_refused_when_it_is_fetched(start: Start, other_web: Server) -> None:
    message = refused(start(payload={"url": f"{other_web.url}/x"}), "payload_refused")
    assert "must be fetched by https" in message
    assert other_web.requests == []


def test_a_changed_recipe_is_noticed(start: Start, web: Server) -> None:
    web.answer = lambda *_: (200, {}, b"x")
    run = start(payload={"url": f"{web.url}/x"})
    (run.folder / "image.def").write_text("Bootstrap: docker\nFrom: evil\n")
    assert "no longer" in refused(run, "recipe_changed")


def test_an_abort_ends_a_fetch_and_its_work_area(start: Start, web: Server) -> None:
    run = start(payload={"url": f"{web.url}/x"})

    def answer(*_: Any) -> Answer:
        (run.folder / "ABORT").write_text("")
        return 200, {}, b"x" * 100

    web.answer = answer
    assert refused(run, "aborted") == "The build was stopped on request."
    assert not run.work.exists()


# by git


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


def test_a_signature_in_an_address_is_not_repeated(start: Start, web: Server) -> None:
    run = start(payload={"url": f"{web.url}/x?X-Amz-Signature=abc123&se=2030"})
    assert "abc123" not in refused(run, "payload_not_found")


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


# by Globus Transfer


@pytest.fixture
def staging(site: Site, tmp_path: Path) -> Path:
    folder = tmp_path / "staging"
    folder.mkdir()
    site.set(
        staging={
            "collection_id": "0b54cade-bde5-45c1-bdea-f4bd71dba2cc",
            "collection_path": "/incoming/",
            "path": str(folder),
        }
    )
    return folder


@pytest.fixture
def delivered(start: Start, staging: Path) -> Callable[..., tuple[Run, Path]]:
    """A run, and where Transfer is to put its payload."""

    def make(**payload: Any) -> tuple[Run, Path]:
        run = start(payload_collection=COLLECTION, payload=payload)
        assert run.rendered["payload_kind"] == "collection"
        place = Path(run.rendered["staging"]["path"])
        assert run.rendered["staging"]["collection_path"] == f"/incoming/{run.id}/{place.name}"
        assert place.parent == staging / run.id
        return run, place

    return make


def test_a_delivered_archive_is_unpacked_and_the_staging_place_emptied(
    delivered: Callable[..., tuple[Run, Path]], staging: Path
) -> None:
    run, place = delivered()
    place.write_bytes(archive_of(a=b"1"))
    fetched(run)
    assert content(run) == {"a": b"1"}
    assert list(staging.iterdir()) == []


def test_a_delivered_file_has_the_name_it_had_at_its_source(
    site: Site, delivered: Callable[..., tuple[Run, Path]]
) -> None:
    data = b"no archive"
    run, place = delivered(sha256=hashlib.sha256(data).hexdigest())
    place.write_bytes(data)
    fetched(run)
    assert content(run) == {"my_data.tar.gz": data}


def test_a_delivered_folder_is_taken_over(delivered: Callable[..., tuple[Run, Path]]) -> None:
    run, place = delivered()
    (place / "sub").mkdir(parents=True)
    (place / "sub" / "a").write_bytes(b"1")
    (place / "link").symlink_to("sub/a")
    result = fetched(run)
    assert content(run) == {"link": b"1", "sub/a": b"1"}
    assert (run.work / "payload" / "link").is_symlink()
    assert result["payload_files"] == 1


def test_a_delivered_folder_with_a_link_to_elsewhere_is_refused(
    delivered: Callable[..., tuple[Run, Path]], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("x")
    run, place = delivered()
    place.mkdir()
    (place / "link").symlink_to(tmp_path / "secret")
    assert "link that leaves it: link" in refused(run, "payload_refused")


def test_a_folder_that_becomes_a_link_while_it_is_copied_is_not_followed(
    delivered: Callable[..., tuple[Run, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "token").write_text("secret")
    run, place = delivered()
    (place / "sub").mkdir(parents=True)
    (place / "sub" / "a").write_bytes(b"1")
    make_folder = os.mkdir

    def swap(path: str, *given: Any, **named: Any) -> None:
        make_folder(path, *given, **named)
        if path.endswith("payload/sub"):
            shutil.rmtree(place / "sub")
            (place / "sub").symlink_to(secrets)

    monkeypatch.setattr(os, "mkdir", swap)
    fetched(run)
    assert content(run) == {}


def test_a_file_that_becomes_a_link_after_it_was_looked_at_is_refused(
    delivered: Callable[..., tuple[Run, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("secret")
    run, place = delivered()
    place.write_bytes(b"1")
    size_of = os.path.getsize

    def swap(path: Any) -> int:
        size = size_of(path)
        if path == str(place):
            place.unlink()
            place.symlink_to(tmp_path / "token")
        return size

    monkeypatch.setattr(os.path, "getsize", swap)
    assert "cannot be read" in refused(run, "payload_refused")
    assert content(run) == {}


def test_a_payload_from_staging_loses_all_modes_but_the_execute_bit(
    delivered: Callable[..., tuple[Run, Path]],
) -> None:
    run, place = delivered()
    place.mkdir()
    for name, mode in (("tool", 0o4711), ("shut", 0o600)):
        (place / name).write_bytes(b"x")
        (place / name).chmod(mode)
    fetched(run)
    modes = {p.name: oct(p.stat().st_mode & 0o7777) for p in (run.work / "payload").iterdir()}
    assert modes == {"tool": "0o755", "shut": "0o644"}


@pytest.mark.parametrize("kind", ["link", "pipe", "too large"])
def test_something_odd_in_the_staging_place_is_refused(
    delivered: Callable[..., tuple[Run, Path]], site: Site, tmp_path: Path, kind: str
) -> None:
    run, place = delivered()
    if kind == "link":
        place.symlink_to("/etc/passwd")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        site.set(payload_limit_bytes=10)
        place.write_bytes(b"x" * 11)
    refused(run, "payload_refused")


def test_a_place_that_the_endpoint_does_not_see_is_named_on_both_sides(
    delivered: Callable[..., tuple[Run, Path]],
) -> None:
    run, place = delivered()
    message = refused(run, "payload_not_visible")
    assert str(place) in message
    assert f"/incoming/{run.id}/{place.name}" in message


def test_without_a_staging_collection_a_collection_payload_is_refused_at_once(
    site: Site, registry: Server, run_id: str
) -> None:
    spec = {"name": "demo", "base": {"image": "debian:12"}, "worker": "none"}
    result = render_recipe({**spec, "payload_collection": COLLECTION}, run_id)
    assert result["error"]["code"] == "payload_not_visible"


# a base image that the payload brings


def test_a_tar_archive_may_be_the_base_itself(start: Start, web: Server) -> None:
    data = archive_of(**{"manifest.json": b"[]"})
    web.answer = lambda *_: (200, {}, data)
    run = start(
        base={"bootstrap": "docker-archive", "image": "/payload/mine.tar"},
        payload={"url": f"{web.url}/download?id=7"},
    )
    assert run.rendered["base"] == "/payload/mine.tar"
    first = fetched(run)
    assert (run.work / "base").read_bytes() == data
    assert content(run) == {}, "it is not in the image a second time"
    digest = json.loads((run.folder / "plan.json").read_text())["base"]["digest"]
    assert digest == "sha256:" + hashlib.sha256(data).hexdigest()
    web.answer = lambda *_: (200, {}, archive_of(**{"manifest.json": b"[1]"}))
    other = start(
        base={"bootstrap": "docker-archive", "image": "/payload/mine.tar"},
        payload={"url": f"{web.url}/download?id=7"},
    )
    assert fetched(other)["build_digest"] != first["build_digest"]


def test_a_base_beside_other_files_of_a_payload(
    start: Start, web: Server, site: Site, apptainer: Apptainer, tmp_path: Path
) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        made.writestr("images/base.sif", b"SIF")
        made.writestr("code.py", b"x")
    web.answer = lambda *_: (200, {}, stream.getvalue())
    run = start(
        base={"bootstrap": "localimage", "image": "/opt/code/images/base.sif"},
        payload={"url": f"{web.url}/all.zip", "destination": "/opt/code"},
    )
    fetched(run)
    assert content(run) == {"code.py": b"x"}
    site.set(tmpdir=str(tmp_path / "node"))
    built = build_image(run.id, run.recipe_sha256)
    assert built["ok"] is True, built
    recipe = Path(apptainer.asked["argv"][-1]).read_text()
    assert f"Bootstrap: localimage\nFrom: {run.work}/base\n" in recipe


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
