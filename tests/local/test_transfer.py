"""The Transfer service, through the unmodified ``globus_sdk.TransferClient``."""

from __future__ import annotations

import hashlib
import os
import signal
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import globus_sdk
import pytest
from globus_sdk import DeleteData, TransferData
from globus_sdk.testing import get_response_set

from cib_flows.local.identities import Identities
from cib_flows.local.transfer.collections import Collections

from .conftest import LocalGlobus, until
from .transfers import ended, faulty, refused, transfer


@pytest.fixture
def staging(local_globus: LocalGlobus) -> Path:
    return local_globus.home.staging_dir


def test_a_folder_arrives_as_it_was(
    local_globus: LocalGlobus, folder: tuple[str, Path], staging: Path
) -> None:
    source, path = folder
    (path / "a" / "b").mkdir(parents=True)
    (path / "a" / "one.txt").write_text("one")
    (path / "a" / "b" / "two.bin").write_bytes(os.urandom(5_000_000))
    (path / "a" / "run.sh").write_text("#!/bin/sh\n")
    (path / "a" / "run.sh").chmod(0o755)
    name = uuid.uuid4().hex
    task = transfer(local_globus, source, local_globus.staging_id, ("/a/", f"/{name}/payload/"))
    assert task["status"] == "SUCCEEDED"
    assert (task["files"], task["files_transferred"], task["directories"]) == (3, 3, 2)
    assert task["bytes_transferred"] == task["bytes_checksummed"] == 5_000_000 + 3 + 10
    arrived = staging / name / "payload"
    for file in ("one.txt", "b/two.bin", "run.sh"):
        assert (arrived / file).read_bytes() == (path / "a" / file).read_bytes()
    assert os.access(arrived / "run.sh", os.X_OK)
    moved = local_globus.transfer.task_successful_transfers(task["task_id"])
    assert {found["destination_path"] for found in moved} == {
        f"/{name}/payload/{file}" for file in ("one.txt", "b/two.bin", "run.sh")
    }
    leftovers = [found for found in arrived.rglob("*") if found.name.endswith(".part")]
    assert leftovers == []


def test_the_task_document_has_the_keys_of_the_service(
    local_globus: LocalGlobus, folder: tuple[str, Path]
) -> None:
    source, path = folder
    (path / "x").write_text("x")
    task = transfer(local_globus, source, source, ("/x", "/y"), label="mine")
    example = get_response_set("transfer.task_list").lookup("default").json
    assert isinstance(example, dict)
    assert set(example["DATA"][0]) <= set(task)
    assert task["label"] == "mine"
    listed = local_globus.transfer.task_list()
    assert set(example) == set(listed.data)
    assert task["task_id"] in [found["task_id"] for found in listed]


def test_a_file_into_a_folder_keeps_its_name(
    local_globus: LocalGlobus, folder: tuple[str, Path]
) -> None:
    source, path = folder
    (path / "x.txt").write_text("x")
    task = transfer(local_globus, source, source, ("/x.txt", "/sub/"))
    assert task["status"] == "SUCCEEDED"
    assert (path / "sub" / "x.txt").read_text() == "x"


def test_the_same_submission_id_is_the_same_task(
    local_globus: LocalGlobus, folder: tuple[str, Path]
) -> None:
    source, path = folder
    (path / "x").write_text("x")
    data = TransferData(source_endpoint=source, destination_endpoint=source)
    data["submission_id"] = local_globus.transfer.get_submission_id()["value"]
    data.add_item("/x", "/y")
    first, second = (local_globus.transfer.submit_transfer(data)["task_id"] for _ in range(2))
    assert first == second


def test_links_below_a_folder_are_left_out(
    local_globus: LocalGlobus, folder: tuple[str, Path]
) -> None:
    source, path = folder
    (path / "a").mkdir()
    (path / "a" / "file").write_text("x")
    (path / "a" / "inside").symlink_to("file")
    (path / "a" / "outside").symlink_to("/etc/passwd")
    (path / "a" / "folder").symlink_to("/etc")
    task = transfer(local_globus, source, source, ("/a", "/b"))
    assert task["status"] == "SUCCEEDED"
    assert os.listdir(path / "b") == ["file"]
    task = transfer(
        local_globus, source, source, ("/a", "/c"), additional_fields={"recursive_symlinks": "copy"}
    )
    assert sorted(os.listdir(path / "c")) == ["file", "inside"]


def test_sync_leaves_out_what_is_there(local_globus: LocalGlobus, folder: tuple[str, Path]) -> None:
    source, path = folder
    (path / "a").mkdir()
    (path / "a" / "same").write_text("same")
    (path / "a" / "other").write_text("new")
    (path / "b").mkdir()
    (path / "b" / "same").write_text("same")
    (path / "b" / "other").write_text("old")
    task = transfer(local_globus, source, source, ("/a", "/b"), sync_level="checksum")
    assert (task["files_skipped"], task["files_transferred"]) == (1, 1)
    assert (path / "b" / "other").read_text() == "new"


@pytest.mark.parametrize(("level", "copied"), [(0, 0), (1, 1), (2, 2), (3, 2)])
def test_each_sync_level_looks_closer(
    local_globus: LocalGlobus, folder: tuple[str, Path], level: int, copied: int
) -> None:
    source, path = folder
    # Beside what is the same: another size, a newer file of the same size and other content.
    for name, there, here in (
        ("same", "s", "s"),
        ("size", "old!", "new"),
        ("content", "old", "new"),
    ):
        for side, text in (("b", there), ("a", here)):
            (path / side).mkdir(exist_ok=True)
            (path / side / name).write_text(text)
    for name in ("same", "size", "content"):
        os.utime(path / "b" / name, (1, 1) if name == "content" else (2_000_000_000, 2_000_000_000))
    task = transfer(local_globus, source, source, ("/a", "/b"), sync_level=level)
    assert task["files_transferred"] == copied


def test_filter_rules_choose_what_is_taken(
    local_globus: LocalGlobus, folder: tuple[str, Path]
) -> None:
    source, path = folder
    for name in ("a/keep.txt", "a/drop.tgz", "a/skipped/inner.txt", "b/extra.txt", "b/mine.tgz"):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name)
    data = TransferData(
        source_endpoint=source, destination_endpoint=source, delete_destination_extra=True
    )
    data.add_filter_rule("*.tgz", method="exclude", type="file")
    data.add_filter_rule("skipped", method="exclude", type="dir")
    data.add_item("/a", "/b")
    task = ended(local_globus, local_globus.transfer.submit_transfer(data)["task_id"])
    assert task["status"] == "SUCCEEDED", task
    assert sorted(os.listdir(path / "b")) == ["keep.txt", "mine.tgz"]
    assert task["filter_rules"][0]["name"] == "*.tgz"


def test_what_is_deleted_as_extra_is_not_followed(
    local_globus: LocalGlobus, folder: tuple[str, Path], tmp_path: Path
) -> None:
    source, path = folder
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("p")
    (path / "a" / "same").mkdir(parents=True)
    (path / "b" / "same" / "old").mkdir(parents=True)
    (path / "b" / "link").symlink_to(outside)
    task = transfer(local_globus, source, source, ("/a", "/b"), delete_destination_extra=True)
    assert task["status"] == "SUCCEEDED", task
    assert sorted(os.listdir(path / "b")) == ["same"]
    assert os.listdir(path / "b" / "same") == []
    assert (outside / "precious").exists()


def test_a_task_ends_at_its_deadline(local_globus: LocalGlobus, folder: tuple[str, Path]) -> None:
    source, _ = folder
    soon = (datetime.now(timezone.utc) + timedelta(seconds=0.7)).isoformat()
    task = transfer(local_globus, source, source, ("/missing", "/b"), deadline=soon)
    assert (task["status"], task["fatal_error"]["code"]) == ("FAILED", "EXPIRED")
    assert refused(
        lambda: transfer(local_globus, source, source, ("/a", "/b"), deadline="2000-01-01 00:00:00")
    ) == (400, "ClientError.BadRequest")


def test_tasks_are_their_owners(local_globus: LocalGlobus, folder: tuple[str, Path]) -> None:
    source, path = folder
    (path / "a").write_text("a")
    task = transfer(local_globus, source, source, ("/a", "/b"))
    alice = Identities.of_home(local_globus.home).add("alice@example.org")
    hers = globus_sdk.TransferClient(authorizer=globus_sdk.AccessTokenAuthorizer(alice.token))
    for ask in (
        lambda: hers.get_task(task["task_id"]),
        lambda: hers.cancel_task(task["task_id"]),
        lambda: hers.task_event_list(task["task_id"]).data,
    ):
        assert refused(ask) == (403, "PermissionDenied")
    data = TransferData(source_endpoint=source, destination_endpoint=source)
    data.add_item("/a", "/c")
    own = hers.submit_transfer(data)["task_id"]
    assert [item["task_id"] for item in hers.task_list()] == [own]
    assert own not in [item["task_id"] for item in local_globus.transfer.task_list()]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("name:~*.sif", ["a.sif", "b.sif"]),
        ("name:a.sif,d", ["a.sif", "d"]),
        ("name:!~*.sif/type:file", ["c.txt"]),
        ("type:dir", ["d"]),
        ("size:>3/type:file", ["b.sif"]),
    ],
)
def test_listings_are_filtered(
    local_globus: LocalGlobus, folder: tuple[str, Path], text: str, names: list[str]
) -> None:
    source, path = folder
    (path / "d").mkdir()
    for name, size in (("a.sif", 1), ("b.sif", 5), ("c.txt", 1)):
        (path / name).write_text("x" * size)
    found = local_globus.transfer.operation_ls(source, path="/", filter=text)
    assert [item["name"] for item in found] == names
    assert refused(
        lambda: local_globus.transfer.operation_ls(source, path="/", filter="colour:red")
    ) == (400, "ClientError.BadRequest")


def test_an_external_checksum_must_be_right(
    local_globus: LocalGlobus, folder: tuple[str, Path]
) -> None:
    source, path = folder
    (path / "x").write_text("x")
    right = hashlib.sha256(b"x").hexdigest()
    for number, (digest, status) in enumerate(((right, "SUCCEEDED"), ("0" * 64, "FAILED"))):
        data = TransferData(source_endpoint=source, destination_endpoint=source)
        data.add_item("/x", f"/y{number}", external_checksum=digest, checksum_algorithm="SHA256")
        task = ended(local_globus, local_globus.transfer.submit_transfer(data)["task_id"])
        assert task["status"] == status
    assert task["fatal_error"]["code"] == "VERIFY_CHECKSUM"
    assert not (path / "y1").exists()


def test_a_missing_file_is_tried_again_and_then_named(
    local_globus: LocalGlobus, folder: tuple[str, Path]
) -> None:
    source, _ = folder
    task = transfer(local_globus, source, source, ("/nowhere", "/x"))
    assert task["status"] == "FAILED"
    assert task["faults"] > 1
    assert task["fatal_error"]["code"] == "FILE_NOT_FOUND"
    assert "nowhere" in task["fatal_error"]["description"]
    events = local_globus.transfer.task_event_list(task["task_id"])
    assert [event["code"] for event in events][-1] == "STARTED"
    assert sum(event["is_error"] for event in events) == task["faults"]


def test_a_file_that_appears_meanwhile_is_taken(
    local_globus: LocalGlobus, folder: tuple[str, Path]
) -> None:
    source, path = folder
    data = TransferData(source_endpoint=source, destination_endpoint=source)
    data.add_item("/late", "/y")
    task_id = local_globus.transfer.submit_transfer(data)["task_id"]
    waiting = until(lambda: faulty(local_globus, task_id))
    assert waiting["status"] == "ACTIVE"
    assert waiting["nice_status"] == "FILE_NOT_FOUND"
    (path / "late").write_text("here")
    assert ended(local_globus, task_id)["status"] == "SUCCEEDED"
    assert (path / "y").read_text() == "here"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_permission_problem_shows_while_the_task_is_active(
    local_globus: LocalGlobus, folder: tuple[str, Path]
) -> None:
    source, path = folder
    (path / "closed").mkdir(mode=0o000)
    data = TransferData(source_endpoint=source, destination_endpoint=source)
    data.add_item("/closed", "/open")
    task_id = local_globus.transfer.submit_transfer(data)["task_id"]
    waiting = until(lambda: faulty(local_globus, task_id))
    assert (waiting["status"], waiting["nice_status"]) == ("ACTIVE", "PERMISSION_DENIED")
    (path / "closed").chmod(0o755)
    assert ended(local_globus, task_id)["status"] == "SUCCEEDED"


def test_a_canceled_task_stops(local_globus: LocalGlobus, folder: tuple[str, Path]) -> None:
    source, _ = folder
    data = TransferData(source_endpoint=source, destination_endpoint=source)
    data.add_item("/never", "/y")
    task_id = local_globus.transfer.submit_transfer(data)["task_id"]
    assert local_globus.transfer.cancel_task(task_id)["code"] == "Canceled"
    task = ended(local_globus, task_id)
    assert (task["status"], task["fatal_error"]["code"]) == ("FAILED", "CANCELED")
    assert local_globus.transfer.cancel_task(task_id)["code"] == "TaskComplete"


def test_delete(local_globus: LocalGlobus, folder: tuple[str, Path]) -> None:
    source, path = folder
    (path / "a" / "b").mkdir(parents=True)
    (path / "keep").write_text("x")
    data = DeleteData(endpoint=source, recursive=True, ignore_missing=True)
    data.add_item("/a")
    data.add_item("/never-was")
    task = ended(local_globus, local_globus.transfer.submit_delete(data)["task_id"])
    assert (task["status"], task["type"]) == ("SUCCEEDED", "DELETE")
    assert os.listdir(path) == ["keep"]
    data = DeleteData(endpoint=source, recursive=True)
    data.add_item("/")
    task = ended(local_globus, local_globus.transfer.submit_delete(data)["task_id"])
    assert task["status"] == "FAILED"
    assert os.listdir(path) == ["keep"]


def test_a_task_that_a_killed_server_left_is_taken_up(
    own_globus: Callable[..., LocalGlobus], tmp_path: Path
) -> None:
    globus = own_globus()
    folder = tmp_path / "data"
    folder.mkdir()
    source = Collections.of_home(globus.home).add("data", folder).id
    data = TransferData(source_endpoint=source, destination_endpoint=source)
    data.add_item("/late", "/y")
    task_id = globus.transfer.submit_transfer(data)["task_id"]
    record = globus.home.running()
    assert record is not None
    assert record.pid is not None
    os.kill(record.pid, signal.SIGKILL)
    until(lambda: not globus.home.is_locked())
    (folder / "late").write_text("here")
    assert ended(own_globus(), task_id)["status"] == "SUCCEEDED"
    assert (folder / "y").read_text() == "here"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "ClientError.BadRequest"),
        ({"source_endpoint": "S", "destination_endpoint": "S", "DATA": []}, "NoTransferItems"),
        ({"source_endpoint": "S", "destination_endpoint": "S", "DATA": [{}]}, "BadRequest"),
        (
            {
                "source_endpoint": "S",
                "destination_endpoint": "nobody",
                "DATA": [{"source_path": "/x", "destination_path": "/y"}],
            },
            "EndpointNotFound",
        ),
        (
            {
                "source_endpoint": "S",
                "destination_endpoint": "S",
                "sync_level": 9,
                "DATA": [{"source_path": "/x", "destination_path": "/y"}],
            },
            "BadRequest",
        ),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(
    local_globus: LocalGlobus, body: dict[str, Any], code: str
) -> None:
    body = {name: local_globus.staging_id if text == "S" else text for name, text in body.items()}
    body["submission_id"] = str(uuid.uuid4())
    status, found = refused(lambda: local_globus.transfer.submit_transfer(body))
    assert status in (400, 404)
    assert code in str(found)
