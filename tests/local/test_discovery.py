"""Containers made known in a search index and found there."""

from __future__ import annotations

from typing import Any

import pytest
from globus_sdk import AccessTokenAuthorizer, SearchClient

from cib_flows.discovery import (
    publish_records,
    search_containers,
    withdraw_missing,
    withdraw_records,
)
from cib_flows.errors import NotFoundError, UsageError
from cib_flows.local.identities import Identities
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
        if reference.removeprefix("id-") not in self.records:
            raise NotFoundError(f"There is no container {reference!r}.")
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


def test_what_is_gone_is_taken_out_and_what_others_published_stays(
    shelf: Any, index: str, local_globus: LocalGlobus
) -> None:
    publish_records(shelf, index, ["public"])
    elsewhere = Shelf(shelf.globus)
    elsewhere.endpoint_id = "6f4f6f2e-6f8a-4cf0-8b0e-0d6c1f1f0b02"
    publish_records(elsewhere, index, ["public"])  # type: ignore[arg-type]
    assert len(search_containers(shelf.globus, index, "torch")) == 2
    del shelf.records["torch"]
    assert withdraw_missing(shelf, index) == 1
    assert withdraw_missing(shelf, index) == 0
    (left,) = search_containers(shelf.globus, index, "torch")
    assert left["endpoint_id"] == elsewhere.endpoint_id
    assert withdraw_records(shelf, index, ["pandas"]) == 1
    (left,) = search_containers(shelf.globus, index, "pandas")
    assert left["endpoint_id"] == elsewhere.endpoint_id
    with pytest.raises(NotFoundError):
        withdraw_records(shelf, index, ["torch"])
    # by its whole id, a container may be gone
    assert withdraw_records(shelf, index, [elsewhere.endpoint_id]) == 1
    with pytest.raises(NotFoundError):
        withdraw_missing(shelf, "5f4f6f2e-6f8a-4cf0-8b0e-0d6c1f1f0bff")


def test_who_may_not_see_a_container_does_not_find_it(
    shelf: Any, index: str, local_globus: LocalGlobus
) -> None:
    alice = Identities.of_home(local_globus.home).add("alice@example.org")
    publish_records(shelf, index, [alice.identity.urn], ["pandas"])
    publish_records(shelf, index, ["urn:globus:auth:identity:nobody"], ["torch"])
    client = SearchClient(authorizer=AccessTokenAuthorizer(alice.token))
    hers = client.search(index, "*")["gmeta"]
    assert [item["subject"] for item in hers] == ["urn:cib-flows:container:id-pandas"]
    # and one may change one's mind
    publish_records(shelf, index, ["public"], ["torch"])
    assert len(client.search(index, "*")["gmeta"]) == 2


@pytest.mark.parametrize(
    "query",
    [
        '" OR * ) {"',
        "name:* AND endpoint_id:*",
        "\x00\x1b[31m",
        "torch' --",
        "%00&limit=9",
        "ü ✓ " * 100,
    ],
)
def test_hostile_words_find_nothing_and_break_nothing(shelf: Any, index: str, query: str) -> None:
    publish_records(shelf, index, ["public"])
    assert search_containers(shelf.globus, index, query) == []
    assert len(search_containers(shelf.globus, index, "torch")) == 1


def test_a_query_is_no_book(shelf: Any, index: str) -> None:
    with pytest.raises(UsageError, match="at most 1000 characters"):
        search_containers(shelf.globus, index, "x" * 1001)


@pytest.mark.parametrize(
    "content",
    [
        "text",
        {"name": "evil"},
        {"container_id": "i", "name": "evil\x1b]0;owned\x07", "endpoint_id": "e", "path": "/p"},
        {"container_id": ["i"], "name": "evil", "endpoint_id": "e", "path": "/p"},
    ],
)
def test_what_others_wrote_into_an_index_is_not_believed(
    shelf: Any, index: str, local_globus: LocalGlobus, content: Any
) -> None:
    content = content if isinstance(content, dict) else {"evil": content}
    data = {"subject": "urn:cib-flows:container:x", "visible_to": ["public"], "content": content}
    SearchClient(app=local_globus.app).ingest(
        index, {"ingest_type": "GMetaEntry", "ingest_data": data}
    )
    assert search_containers(shelf.globus, index, "evil") == []
