"""Images that no run of ours built, and images that are proved once more."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions.list_containers import list_containers
from cib_flows.functions.register_container import register_container
from cib_flows.functions.register_image import register_image
from cib_flows.functions.verify_container import verify_container
from cib_flows.functions.verify_image import verify_image

from .catalogues import ok, refused
from .conftest import Apptainer, Run, Site

ENDPOINT = "5f4f6f2e-6f8a-4cf0-8b0e-0d6c1f1f0b01"
SIF = b"#!/usr/bin/env run-singularity\n".ljust(32, b"\0") + b"SIF_MAGIC\0 one"


@pytest.fixture
def staging(site: Site, tmp_path: Path) -> Path:
    folder = tmp_path / "staging"
    folder.mkdir()
    site.set(staging={"collection_id": ENDPOINT, "collection_path": "/stage", "path": str(folder)})
    return folder


@pytest.fixture(autouse=True)
def engine(apptainer: Apptainer) -> Apptainer:
    return apptainer


def test_an_image_that_came_by_transfer_is_proved_and_registered(site: Site, staging: Path) -> None:
    (staging / "theirs.sif").write_bytes(SIF)
    result = ok(register_image("/stage/theirs.sif", "theirs:v1", ENDPOINT))
    sha256 = hashlib.sha256(SIF).hexdigest()
    assert result["path"] == str(site.root / "images" / "theirs" / f"{sha256}.sif")
    assert result["executor"] == {
        "endpoint_id": ENDPOINT,
        "user_endpoint_config": {"container_uri": result["path"]},
    }
    assert Path(result["path"]).read_bytes() == SIF
    found = ok(list_containers("theirs:v1"))["container"]
    assert found["container_id"] == result["container_id"]
    record = json.loads(Path(result["record_path"]).read_text())
    assert record["verification"]["arguments_pass_through"] is True
    assert record["origin"]["file"] == str(staging / "theirs.sif")
    assert list(staging.iterdir()) == []
    for left in ("work", "runs"):
        assert list((site.root / left).iterdir()) == []


def test_a_record_that_came_along_is_taken_over_and_proved(
    site: Site, staging: Path, start: Callable[..., Run], apptainer: Apptainer
) -> None:
    spec = json.loads(
        (start(verify={"commands": ["echo proved"]}).folder / "spec.json").read_text()
    )
    sha256 = hashlib.sha256(SIF).hexdigest()
    (staging / "demo.sif").write_bytes(SIF)
    record = {"sha256": sha256, "spec": spec, "recipe": "Bootstrap: x", "account": "someone else"}
    (staging / "demo.json").write_text(json.dumps(record))
    result = ok(register_image(str(staging / "demo.sif"), "demo:latest", ENDPOINT))
    kept = json.loads(Path(result["record_path"]).read_text())
    assert kept["recipe"] == "Bootstrap: x"
    assert kept["account"] != "someone else"
    assert kept["verification"]["commands"][0]["output"] == "proved\n"
    assert list(staging.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "worker"),
    [
        (
            '{"globus-compute-endpoint": "4.16.0", "parsl": "2026.9.7"}',
            {"globus-compute-endpoint": "4.16.0", "parsl": "2026.9.7"},
        ),
        ('{"parsl": "2026.9.7"}', None),
        ("{}", None),
        ('["parsl"]', None),
        ("no Python of that name", None),
    ],
)
def test_the_worker_in_an_image_of_which_nothing_is_told_is_found_out(
    site: Site, staging: Path, apptainer: Apptainer, said: str, worker: dict[str, str] | None
) -> None:
    """An Executor compares it with the endpoint; one that does not fit would wait for ever."""
    apptainer.program("python3", f"#!/bin/sh\necho '{said}'\n")
    (staging / "theirs.sif").write_bytes(SIF)
    ok(register_image("/stage/theirs.sif", "theirs:v1", ENDPOINT))
    assert ok(list_containers("theirs:v1"))["container"].get("worker") == worker


def test_a_record_of_another_image_is_not_believed(site: Site, staging: Path) -> None:
    (staging / "demo.sif").write_bytes(SIF)
    (staging / "demo.json").write_text(json.dumps({"sha256": "0" * 64, "recipe": "not its own"}))
    result = ok(register_image(str(staging / "demo.sif"), "demo:latest", ENDPOINT))
    assert "recipe" not in json.loads(Path(result["record_path"]).read_text())


def test_a_file_below_the_root_moves_into_the_catalogue(site: Site) -> None:
    place = site.root / "images" / "mine.sif"
    place.parent.mkdir()
    place.write_bytes(SIF)
    result = ok(register_image(str(place), "mine:v1", ENDPOINT))
    assert not place.exists()
    # again, from where it now lies, as when its record was lost
    os.unlink(result["record_path"])
    again = ok(register_image(result["path"], "mine:v1", ENDPOINT, sha256=result["sha256"]))
    assert again["container_id"] == result["container_id"]
    assert Path(result["path"]).read_bytes() == SIF


def test_a_containers_image_registered_under_another_name_stays_its_own(site: Site) -> None:
    place = site.root / "mine.sif"
    place.write_bytes(SIF)
    first = ok(register_image(str(place), "mine:v1", ENDPOINT))
    second = ok(register_image(first["path"], "other:v1", ENDPOINT))
    assert second["path"] != first["path"]
    for found in (first, second, ok(register_image(first["path"], "other:v1", ENDPOINT))):
        assert Path(found["path"]).read_bytes() == SIF
    listed = ok(list_containers())["containers"]
    assert [row.get("image_is_missing") for row in listed] == [None, None]


@pytest.mark.parametrize("given", ["{folder}/mine.sif", "/mine.sif"])
def test_staging_that_is_a_whole_collection_may_be_named_either_way(
    site: Site, staging: Path, given: str
) -> None:
    where = {"collection_id": ENDPOINT, "collection_path": "/", "path": str(staging)}
    site.set(staging=where)
    (staging / "mine.sif").write_bytes(SIF)
    ok(register_image(given.format(folder=staging), "mine:v1", ENDPOINT))


def test_registering_the_same_again_is_no_conflict(site: Site, staging: Path) -> None:
    for _ in range(2):
        (staging / "mine.sif").write_bytes(SIF)
        ok(register_image("/stage/mine.sif", "mine:v1", ENDPOINT))
    assert list(staging.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda root, out: out / "elsewhere.sif", "source_not_found"),
        (lambda root, out: root / "images" / "missing.sif", "source_not_found"),
        (lambda root, out: root / "images", "source_not_found"),
        (lambda root, out: Path("relative.sif"), "source_not_found"),
        (lambda root, out: root / "images" / ".." / ".." / "elsewhere.sif", "source_not_found"),
        (lambda root, out: root / "work" / "x.sif", "source_not_found"),
        (lambda root, out: root / "images" / "text.sif", "image_unreadable"),
        (lambda root, out: root / "images" / "out.sif", "source_not_found"),
        (lambda root, out: root / "images" / "in.sif", "source_not_found"),
    ],
)
def test_other_files_are_left_alone(
    site: Site, tmp_path: Path, make: Callable[[Path, Path], Path], code: str
) -> None:
    images = site.root / "images"
    images.mkdir()
    (site.root / "work").mkdir()
    for path in (tmp_path / "elsewhere.sif", site.root / "work" / "x.sif", images / "real.sif"):
        path.write_bytes(SIF)
    (images / "text.sif").write_text("not an image")
    (images / "out.sif").symlink_to(tmp_path / "elsewhere.sif")
    (images / "in.sif").symlink_to(images / "real.sif")
    result = register_image(str(make(site.root, tmp_path)), "demo:v1", ENDPOINT)
    assert refused(result) == code
    assert (tmp_path / "elsewhere.sif").exists()
    assert ok(list_containers())["total"] == 0


def test_a_name_that_is_taken_and_a_wrong_sum_are_refused_and_the_file_stays(
    site: Site, staging: Path
) -> None:
    (staging / "a.sif").write_bytes(SIF)
    ok(register_image("/stage/a.sif", "demo:v1", ENDPOINT))
    (staging / "b.sif").write_bytes(SIF + b"other")
    assert refused(register_image("/stage/b.sif", "demo:v1", ENDPOINT)) == "already_exists"
    assert refused(register_image("/stage/b.sif", "Demo:v1", ENDPOINT)) == "illegal_name"
    wrong = register_image("/stage/b.sif", "demo:v2", ENDPOINT, sha256="0" * 64)
    assert refused(wrong) == "image_changed"
    assert (staging / "b.sif").exists()
    moved = ok(register_image("/stage/b.sif", "demo:v1", ENDPOINT, move=True))
    assert ok(list_containers("demo:v1"))["container"]["container_id"] == moved["container_id"]


def test_an_image_that_does_not_run_is_not_registered(
    site: Site, staging: Path, apptainer: Apptainer
) -> None:
    apptainer.control(answers=[{"to": "/bin/sh", "status": 255, "errors": "FATAL: no squashfs"}])
    (staging / "a.sif").write_bytes(SIF)
    assert refused(register_image("/stage/a.sif", "demo:v1", ENDPOINT)) == "image_unreadable"
    assert ok(list_containers())["total"] == 0
    assert (staging / "a.sif").exists()


def registered(built: Callable[..., tuple[Run, str]], **fields: Any) -> dict[str, Any]:
    run, sha256 = built(**fields)
    proof = ok(verify_image(run.id, sha256))
    return ok(register_container(run.id, ENDPOINT, sha256, proof["verification_sha256"]))


def test_a_container_is_proved_again(site: Site, built: Callable[..., tuple[Run, str]]) -> None:
    made = registered(built, verify={"commands": ["echo fine"]})
    before = Path(made["record_path"]).read_text()
    result = ok(verify_container("demo"))
    verification = json.loads(Path(result["verification_path"]).read_text())
    assert verification["commands"][0]["output"] == "fine\n"
    assert verification["sif_sha256"] == made["sha256"]
    assert Path(made["record_path"]).read_text() == before
    events = ok(list_containers(history="demo"))["events"]
    assert (events[0]["event"], events[0]["ok"]) == ("verified", True)


def test_a_changed_byte_and_a_broken_check_are_noticed_and_noted(
    site: Site, built: Callable[..., tuple[Run, str]], apptainer: Apptainer
) -> None:
    made = registered(built, verify={"commands": ["echo fine"]})
    apptainer.control(answers=[{"to": "echo fine", "status": 3}])
    assert refused(verify_container("demo")) == "verify_command_failed"
    apptainer.control()
    os.chmod(made["path"], 0o644)
    Path(made["path"]).write_text("SIF 0ne")
    assert refused(verify_container(made["container_id"])) == "image_changed"
    codes = [event.get("code") for event in ok(list_containers(history="demo"))["events"]]
    assert codes[:2] == ["image_changed", "verify_command_failed"]
    assert not any((site.root / "work").iterdir())
