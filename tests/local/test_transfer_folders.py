"""What a collection shows of its folder, without any task: listings, names, and nothing outside of it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from globus_sdk import TransferData
from globus_sdk.testing import get_response_set

from cib_flows.errors import UsageError
from cib_flows.local import control
from cib_flows.local.transfer.collections import Collections

from .conftest import LocalGlobus, until
from .transfers import ended, faulty, refused


def test_ls_stat_mkdir_rename(local_globus: LocalGlobus, folder: tuple[str, Path]) -> None:
    source, path = folder
    client = local_globus.transfer
    (path / "b.txt").write_text("four")
    assert client.operation_mkdir(source, "/a")["code"] == "DirectoryCreated"
    listing = client.operation_ls(source, path="/")
    assert [(entry["name"], entry["type"]) for entry in listing] == [
        ("a", "dir"),
        ("b.txt", "file"),
    ]
    assert [
        entry["name"] for entry in client.operation_ls(source, orderby="name DESC", limit=1)
    ] == ["b.txt"]
    found = client.operation_stat(source, "/b.txt").data
    example = get_response_set("transfer.operation_stat").lookup("default").json
    assert isinstance(found, dict)
    assert isinstance(example, dict)
    assert set(example) == set(found)
    assert found["size"] == 4
    assert client.operation_rename(source, "/b.txt", "/a/c.txt")["code"] == "FileRenamed"
    assert (path / "a" / "c.txt").read_text() == "four"
    for call, code in (
        (lambda: client.operation_stat(source, "/b.txt"), "NotFound"),
        (lambda: client.operation_ls(source, "/nowhere"), "NotFound"),
        (lambda: client.operation_mkdir(source, "/a"), "ExternalError.MkdirFailed.Exists"),
        (
            lambda: client.operation_ls(source, "/a/c.txt"),
            "ExternalError.DirListingFailed.NotDirectory",
        ),
    ):
        assert refused(call)[1] == code


ESCAPES = ["/../x", "/a/../../x", "/out/passwd", "/out", "/passwd", "/~/../x"]


@pytest.mark.parametrize("escape", ESCAPES)
def test_no_path_leaves_its_collection(
    local_globus: LocalGlobus, folder: tuple[str, Path], escape: str
) -> None:
    source, path = folder
    (path / "a").mkdir()
    (path / "out").symlink_to("/etc")
    (path / "passwd").symlink_to("/etc/passwd")
    client = local_globus.transfer
    for call in (
        lambda: client.operation_stat(source, escape),
        lambda: client.operation_ls(source, escape),
        lambda: client.operation_mkdir(source, escape + "/new"),
        lambda: client.operation_rename(source, "/a", escape + "/new"),
    ):
        assert refused(call) == (403, "EndpointPermissionDenied")
    data = TransferData(source_endpoint=source, destination_endpoint=source)
    data.add_item(escape, "/stolen")
    task_id = client.submit_transfer(data)["task_id"]
    assert until(lambda: faulty(local_globus, task_id))["nice_status"] == "PERMISSION_DENIED"
    client.cancel_task(task_id)
    ended(local_globus, task_id)
    assert not (path / "stolen").exists()


def test_a_collection_is_there_as_soon_as_it_is_declared(
    local_globus: LocalGlobus, tmp_path: Path
) -> None:
    collections = Collections.of_home(local_globus.home)
    name = f"named-{uuid.uuid4()}"
    added = collections.add(name, tmp_path)
    assert collections.add(name, tmp_path) == added, "declared twice, it is one"
    assert local_globus.transfer.get_endpoint(added.id)["display_name"] == name
    assert [found["id"] for found in local_globus.transfer.endpoint_search(name)] == [added.id]
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(UsageError, match="choose another name"):
        collections.add(name, other)
    with pytest.raises(UsageError, match="not a folder"):
        collections.add("file", tmp_path / "nothing")


def test_an_unknown_collection_is_not_found(local_globus: LocalGlobus) -> None:
    nobody = str(uuid.uuid4())
    assert refused(lambda: local_globus.transfer.get_endpoint(nobody)) == (404, "EndpointNotFound")
    assert refused(lambda: local_globus.transfer.operation_ls(nobody)) == (404, "EndpointNotFound")


def test_a_site_may_put_staging_elsewhere(
    own_globus: Callable[..., LocalGlobus], tmp_path: Path
) -> None:
    globus = own_globus()
    control_site = globus.home.site()
    elsewhere = tmp_path / "shared"
    elsewhere.mkdir()
    control_site["staging"]["path"] = str(elsewhere)
    control.stop(globus.home)
    again = own_globus(site=control_site)
    again.transfer.operation_mkdir(again.staging_id, "/run1")
    assert os.listdir(elsewhere) == ["run1"]
