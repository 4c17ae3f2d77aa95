"""A payload that Globus Transfer brought to staging: taken over, and never trusted."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions.render_recipe import render_recipe
from tests.functions.conftest import Run, Server, Site
from tests.functions.payloads import COLLECTION, Start, archive_of, content, fetched, refused


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
