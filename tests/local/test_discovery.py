"""Containers made known in a search index and found there."""

from __future__ import annotations

from typing import Any

import pytest
from globus_sdk import SearchClient

from cib_flows.discovery import publish_records, search_containers
from cib_flows.errors import UsageError
from cib_flows.profiles import Globus, connect_as

from .conftest import LocalGlobus

ENDPOINT = "5f4f6f2e-6f8a-4cf0-8b0e-0d6c1f1f0b01"


class Shelf:
    """A catalogue of two, as an endpoint would answer."""

    def __init__(self, globus: Globus) -> None:
        self.globus = globus
        self.endpoint_id = ENDPOINT
        self.records = {name: self.record(name, "3.0") for name in ("pandas", "torch")}

    @staticmethod
    def record(name: str, version: str) -> dict[str, Any]:
        return {
            "container_id": f"id-{name}",
            "name": name,
            "path": f"/images/{name}.sif",
            "packages": {name: version},
            "base": {"image": "debian:12"},
            "endpoint_id": ENDPOINT,
        }

    def list(self) -> list[dict[str, Any]]:
        return list(self.records.values())

    def show(self, reference: str) -> dict[str, Any]:
        return self.records[reference.removeprefix("id-")]


@pytest.fixture
def index(local_globus: LocalGlobus) -> str:
    return str(SearchClient(app=local_globus.app).create_index("images", "ours")["id"])


@pytest.fixture
def shelf(local_globus: LocalGlobus, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("GLOBUS_SDK_ENVIRONMENT", "local")
    return Shelf(connect_as(local_globus.app))


def test_a_published_container_is_found_by_its_package(shelf: Any, index: str) -> None:
    assert publish_records(shelf, index, ["public"]) == 2
    (found,) = search_containers(shelf.globus, index, "torch")
    assert (found["container_id"], found["endpoint_id"]) == ("id-torch", ENDPOINT)
    assert found["packages"] == ["torch==3.0"]
    assert search_containers(shelf.globus, index, "nothing") == []


def test_publishing_again_replaces_what_was_there(shelf: Any, index: str) -> None:
    publish_records(shelf, index, ["public"])
    shelf.records["torch"]["packages"] = {"torch": "4.0"}
    assert publish_records(shelf, index, ["public"], ["torch"]) == 1
    (found,) = search_containers(shelf.globus, index, "torch")
    assert found["packages"] == ["torch==4.0"]


@pytest.mark.parametrize("visible_to", [["everybody"], []])
def test_who_may_find_them_must_be_said(shelf: Any, index: str, visible_to: list[str]) -> None:
    with pytest.raises(UsageError):
        publish_records(shelf, index, visible_to)
    assert search_containers(shelf.globus, index, "torch") == []
