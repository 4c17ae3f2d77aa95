"""Two sites, and a container that goes from one to the other as the flow would bring it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions import receive_container as receive_module
from cib_flows.functions._shared.catalogue import Catalogue
from cib_flows.functions._shared.trust import (
    PROVENANCE_ENDING,
    SBOM_ENDING,
    put_beside,
    seal,
)
from cib_flows.functions.expect_container import expect_container
from cib_flows.functions.offer_container import offer_container
from cib_flows.functions.receive_container import receive_container

from .catalogues import published

ENDPOINT = "11111111-1111-4111-8111-111111111111"
DESTINATION = {"name": "delta", "endpoint": ENDPOINT}


COLLECTIONS = {
    "here": "aaaaaaaa-0000-4000-8000-000000000001",
    "there": "bbbbbbbb-0000-4000-8000-000000000002",
}


@dataclass
class Sites:
    """Two sites, of which one at a time is the one that functions run at."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def at(self, name: str, **fields: Any) -> Path:
        """Go to the site; returns its root."""
        root, staging = self.folder / name / "root", self.folder / name / "staging"
        for path in (root, staging):
            path.mkdir(parents=True, exist_ok=True)
        profile = {
            "name": name,
            "root": str(root),
            "staging": {
                "collection_id": COLLECTIONS[name],
                "collection_path": "/stage/",
                "path": str(staging),
            },
            **fields,
        }
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(profile))
        self.monkeypatch.setenv("CIB_FLOWS_SITE", str(path))
        return root

    def staged(self, name: str) -> list[str]:
        staging = self.folder / name / "staging"
        return sorted(str(p.relative_to(staging)) for p in staging.rglob("*"))


@pytest.fixture
def sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sites:
    made = Sites(tmp_path, monkeypatch)
    made.at("there")
    made.at("here")
    # what is proved by running it is tested with the real engine; here it says which file it was given
    monkeypatch.setattr(
        receive_module,
        "prove_file",
        lambda site, path, sha256, *_: {
            "python": "3.11",
            "packages": {},
            "imports": [],
            "of": sha256,
        },
    )
    return made


@pytest.fixture
def made(sites: Sites) -> dict[str, Any]:
    root = sites.at("here")
    record = published(root, "an image", "v1")
    catalogue = Catalogue(str(root))
    for ending in (SBOM_ENDING, PROVENANCE_ENDING, ".lock.json"):
        put_beside(catalogue, "demo", record["sha256"], ending, f'{{"document": "{ending}"}}')
    seal(catalogue, "demo", record["sha256"], None)
    return record


def ok(result: dict[str, Any]) -> dict[str, Any]:
    assert result["ok"], result
    assert len(json.dumps(result)) < 8192
    return result


def refused(result: dict[str, Any], code: str) -> str:
    assert not result["ok"]
    assert result["error"]["code"] == code, result
    return str(result["error"]["message"])


def carried(sites: Sites, offer: dict[str, Any], place: dict[str, Any], run_id: str) -> Path:
    """Do what Transfer does: copy what the source's collection has to where the destination's has it."""
    start = sites.folder / "here" / "staging" / offer["folder"].removeprefix("/stage/")
    goal = sites.folder / "there" / "staging" / place["folder"].removeprefix("/stage/")
    assert run_id in offer["folder"]
    assert run_id in place["folder"]
    for name in offer["files"]:
        (goal / name).write_bytes((start / name).read_bytes())
    return goal


def brought(
    sites: Sites, run_id: str, **policy: Any
) -> tuple[dict[str, Any], dict[str, Any], Path]:
    """An offer, where the destination expects it, and the folder with the files in it."""
    sites.at("here")
    offer = ok(offer_container(run_id, "demo:v1"))
    sites.at("there", **policy)
    place = ok(expect_container(run_id, offer, DESTINATION))
    return offer, place, carried(sites, offer, place, run_id)


def received(
    offer: dict[str, Any], place: dict[str, Any], run_id: str, **more: Any
) -> dict[str, Any]:
    return receive_container(run_id, offer, DESTINATION, place["place"], **more)


def nothing_is_left(sites: Sites, root: Path) -> None:
    assert sites.staged("there") == []
    assert not list((root / "work").glob("*"))
    assert not list((root / "images").rglob("*.*"))
    assert not list((root / "tags").rglob("*.json"))
