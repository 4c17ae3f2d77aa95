"""What is offered of a container that shall travel, and what keeps it from travelling."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions.end_publication import end_publication
from cib_flows.functions.offer_container import offer_container

from .deliveries import (
    COLLECTIONS,
    Sites,
    made,
    ok,
    refused,
    sites,
)

__all__ = ["made", "sites"]  # fixtures


def test_what_is_offered_are_second_names_of_the_same_files(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    offer = ok(offer_container(run_id, "demo:v1"))
    folder = sites.folder / "here" / "staging" / offer["folder"].removeprefix("/stage/")
    assert sorted(os.listdir(folder)) == sorted(offer["files"])
    assert len(offer["files"]) == 6
    image = folder / f"{made['sha256']}.sif"
    assert os.path.samefile(image, made["path"]), "no copy was made"
    assert offer["collection_id"] == COLLECTIONS["here"]
    assert (offer["name"], offer["tag"], offer["bytes"]) == ("demo", "v1", len("an image"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o500
    ended = ok(end_publication(run_id, [{"name": "delta", "ok": True}]))
    assert ended["sentence"] == "The container is registered at one destination."
    assert sites.staged("here") == []
    assert Path(made["path"]).read_text() == "an image"


def test_a_root_on_a_collection_is_offered_where_it_lies(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    sites.at("here", root_collection={"collection_id": "cc", "collection_path": "/projects/x"})
    offer = ok(offer_container(run_id, made["container_id"]))
    assert (offer["collection_id"], offer["folder"]) == ("cc", "/projects/x/images/demo/")
    assert sites.staged("here") == []


def test_a_container_of_a_shared_catalogue_travels_too(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    shared = str(sites.folder / "here" / "root")
    before = sorted(path for path in Path(shared).rglob("*"))
    sites.at(
        "there",
        shared_roots=[shared],
        root_collection={"collection_id": "cc", "collection_path": "/"},
    )
    offer = ok(offer_container(run_id, "demo:v1"))
    assert offer["collection_id"] == COLLECTIONS["there"], "the shared root is on no collection"
    assert any(name.endswith(".sif") for name in sites.staged("there"))
    assert sorted(path for path in Path(shared).rglob("*")) == before, "it is only read"


def test_a_damaged_container_does_not_travel(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    path = Path(made["path"])
    path.chmod(0o644)
    path.write_text("an inage")
    refused(offer_container(run_id, "demo:v1"), "image_changed")
    assert sites.staged("here") == []


@pytest.mark.parametrize("container", ["demo:none", "../../etc/passwd", "", "demo:v1/../x"])
def test_what_names_no_container_is_refused(
    sites: Sites, made: dict[str, Any], run_id: str, container: str
) -> None:
    refused(offer_container(run_id, container), "container_not_found")


@pytest.mark.parametrize("name", ["../x", "Demo:v1", "demo:v1;x", "a/b", "x" * 65])
def test_an_illegal_name_for_the_destinations_is_refused_before_anything_is_done(
    sites: Sites, made: dict[str, Any], run_id: str, name: str
) -> None:
    refused(offer_container(run_id, "demo:v1", name), "illegal_name")
    assert sites.staged("here") == []


def test_a_site_without_staging_says_what_is_missing(
    sites: Sites, made: dict[str, Any], run_id: str
) -> None:
    sites.at("here", staging=None)
    assert "names no staging collection" in refused(
        offer_container(run_id, "demo"[:4] + ":v1"), "site_invalid"
    )
