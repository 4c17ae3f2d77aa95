"""A payload's way into a run by https, and what it may be: downloaded, and never trusted."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions._shared import downloads
from cib_flows.functions.build_image import build_image
from tests.functions.conftest import Answer, Apptainer, Server, Site
from tests.functions.payloads import Start, archive_of, content, fetched, refused


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


def test_a_signature_in_an_address_is_not_repeated(start: Start, web: Server) -> None:
    run = start(payload={"url": f"{web.url}/x?X-Amz-Signature=abc123&se=2030"})
    assert "abc123" not in refused(run, "payload_not_found")


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
