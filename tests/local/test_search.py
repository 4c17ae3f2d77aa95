"""The Search service through the unmodified ``globus_sdk.SearchClient``, and from a flow."""

from __future__ import annotations

from typing import Any

import globus_sdk
import pytest
from globus_sdk import AccessTokenAuthorizer, SearchClient, SearchQueryV1
from globus_sdk.testing import get_response_set

from cib_flows.local.identities import Identities

from .conftest import LocalGlobus, until


@pytest.fixture
def search(local_globus: LocalGlobus) -> SearchClient:
    return SearchClient(app=local_globus.app)


@pytest.fixture
def index(search: SearchClient) -> str:
    found: str = search.create_index("images", "what was built")["id"]
    return found


def entry(subject: str, visible_to: str = "public", id: str | None = None, **content: Any) -> Any:
    return {"subject": subject, "visible_to": [visible_to], "id": id, "content": content}


def fill(search: SearchClient, index: str) -> None:
    entries = [
        entry("image:a", name="pandas", size=3, tags=["lab", "new"], base={"os": "debian"}),
        entry("image:b", name="numpy", size=1, tags=["lab"], base={"os": "alpine"}),
        entry("image:c", name="torch", size=2, note="GPU pandas"),
    ]
    answer = search.ingest(index, {"ingest_type": "GMetaList", "ingest_data": {"gmeta": entries}})
    assert search.get_task(answer["task_id"])["state"] == "SUCCESS"


def subjects(result: Any) -> list[str]:
    return [item["subject"] for item in result["gmeta"]]


def refused(call: Any) -> globus_sdk.SearchAPIError:
    with pytest.raises(globus_sdk.SearchAPIError) as refusal:
        call()
    return refusal.value


def test_an_index_from_its_making_to_its_end(search: SearchClient, index: str) -> None:
    document = search.get_index(index)
    fixture = get_response_set("search.create_index").lookup("default").json
    assert isinstance(fixture, dict)
    assert set(fixture) <= set(document.data)
    assert document["permissions"] == ["owner"]
    assert index in [item["id"] for item in search.index_list()["index_list"]]
    assert search.update_index(index, display_name="new")["display_name"] == "new"
    assert search.delete_index(index)["acknowledged"]
    assert refused(lambda: search.search(index, "x")).code == "Conflict.IncompatibleIndexStatus"
    assert refused(lambda: search.delete_index(index)).http_status == 409
    assert search.reopen_index(index)["acknowledged"]
    assert search.search(index, "x")["total"] == 0


def test_words_find_entries(search: SearchClient, index: str) -> None:
    fill(search, index)
    assert subjects(search.search(index, "*")) == ["image:a", "image:b", "image:c"]
    assert subjects(search.search(index, "pandas")) == ["image:a", "image:c"]
    assert subjects(search.search(index, "gpu PANDAS")) == ["image:c"]
    page = search.search(index, "*", limit=1, offset=1)
    assert (subjects(page), page["total"], page["has_next_page"]) == (["image:b"], 3, True)
    (found,) = search.search(index, "numpy")["gmeta"]
    assert found["entries"][0]["content"]["base"] == {"os": "alpine"}


@pytest.mark.parametrize(
    ("filter_", "found"),
    [
        ({"type": "match_all", "field_name": "tags", "values": ["lab", "new"]}, ["image:a"]),
        ({"type": "match_any", "field_name": "tags", "values": ["lab"]}, ["image:a", "image:b"]),
        ({"type": "match_any", "field_name": "base.os", "values": ["alpine"]}, ["image:b"]),
        (
            {"type": "range", "field_name": "size", "values": [{"from": 2, "to": "*"}]},
            ["image:a", "image:c"],
        ),
        ({"type": "exists", "field_name": "note"}, ["image:c"]),
        (
            {"type": "not", "filter": {"type": "exists", "field_name": "note"}},
            ["image:a", "image:b"],
        ),
        ({"type": "like", "field_name": "name", "value": "t*"}, ["image:c"]),
    ],
)
def test_filters(search: SearchClient, index: str, filter_: Any, found: list[str]) -> None:
    fill(search, index)
    assert subjects(search.post_search(index, {"q": "*", "filters": [filter_]})) == found


def test_sorting_and_facets(search: SearchClient, index: str) -> None:
    fill(search, index)
    query = SearchQueryV1(q="*", sort=[{"field_name": "size", "order": "desc"}])
    assert subjects(search.post_search(index, query)) == ["image:a", "image:c", "image:b"]
    query = SearchQueryV1(q="*", facets=[{"name": "tags", "field_name": "tags", "type": "terms"}])
    (facet,) = search.post_search(index, query)["facet_results"]
    assert [(bucket["value"], bucket["count"]) for bucket in facet["buckets"]] == [
        ("lab", 2),
        ("new", 1),
    ]


def test_scrolling_reaches_every_entry_once(search: SearchClient, index: str) -> None:
    fill(search, index)
    pages = search.paginated.scroll(index, {"q": "*", "limit": 2})
    assert [subjects(page) for page in pages] == [["image:a", "image:b"], ["image:c"]]


def test_entries_are_replaced_and_deleted(search: SearchClient, index: str) -> None:
    fill(search, index)
    search.ingest(
        index, {"ingest_type": "GMetaEntry", "ingest_data": entry("image:a", id="2", name="second")}
    )
    found = search.get_subject(index, "image:a")["entries"]
    assert [item["entry_id"] for item in found] == [None, "2"]
    search.ingest(
        index, {"ingest_type": "GMetaEntry", "ingest_data": entry("image:a", id="2", name="third")}
    )
    (found,) = search.get_entry(index, "image:a", entry_id="2")["entries"]
    assert found["content"] == {"name": "third"}
    search.delete_entry(index, "image:a", entry_id="2")
    assert len(search.get_subject(index, "image:a")["entries"]) == 1
    search.delete_subject(index, "image:a")
    assert refused(lambda: search.get_subject(index, "image:a")).http_status == 404
    search.delete_by_query(index, {"q": "torch"})
    assert subjects(search.search(index, "*")) == ["image:b"]
    search.batch_delete_by_subject(index, ["image:b", "image:none"])
    assert search.search(index, "*")["total"] == 0
    assert len(search.get_task_list(index)["task_list"]) == 7


def test_what_makes_no_sense_is_refused(search: SearchClient, index: str) -> None:
    for call in (
        lambda: search.create_index("", "x"),
        lambda: search.ingest(
            index, {"ingest_type": "GMetaEntry", "ingest_data": {"subject": "a"}}
        ),
        lambda: search.ingest(index, {"ingest_type": "Else", "ingest_data": {}}),
        lambda: search.post_search(index, {"q": 3}),
        lambda: search.post_search(index, {"q": "*", "limit": -1}),
        lambda: search.post_search(index, {"q": "*", "unknown": 1}),
        lambda: search.post_search(index, {"filters": [{"type": "geo_shape", "field_name": "a"}]}),
    ):
        assert refused(call).code == "BadRequest.ValidationError"
    assert refused(lambda: search.get_index("no-such")).code == "NotFound.NoSuchIndex"


def test_others_see_what_they_may(
    local_globus: LocalGlobus, search: SearchClient, index: str
) -> None:
    alice = Identities.of_home(local_globus.home).add("alice@example.org")
    hers = SearchClient(authorizer=AccessTokenAuthorizer(alice.token))
    urn = alice.identity.urn
    gmeta = [entry("open"), entry("hers", urn), entry("mine", "urn:globus:auth:identity:x")]
    search.ingest(index, {"ingest_type": "GMetaList", "ingest_data": {"gmeta": gmeta}})
    assert subjects(hers.search(index, "*")) == ["open", "hers"]
    one = {"ingest_type": "GMetaEntry", "ingest_data": entry("new")}
    assert refused(lambda: hers.ingest(index, one)).http_status == 403
    assert refused(lambda: hers.delete_index(index)).http_status == 403
    role = search.create_role(index, {"role_name": "writer", "principal": urn})
    hers.ingest(index, one)
    assert [item["role_name"] for item in search.get_role_list(index)["role_list"]] == [
        "owner",
        "writer",
    ]
    search.delete_role(index, role["id"])
    assert refused(lambda: hers.ingest(index, one)).http_status == 403


def test_a_flow_ingests_and_deletes(
    local_globus: LocalGlobus, search: SearchClient, index: str
) -> None:
    body = {"search_index": index, "subject": "from a flow"}
    definition = {
        "StartAt": "Ingest",
        "States": {
            "Ingest": {
                "Type": "Action",
                "ActionUrl": "https://actions.globus.org/search/ingest",
                "Parameters": {**body, "visible_to": ["public"], "content": {"name": "x"}},
                "ResultPath": "$.ingested",
                "Next": "Delete",
            },
            "Delete": {
                "Type": "Action",
                "ActionUrl": "https://actions.globus.org/search/delete",
                "Parameters": {**body, "delete_by": "subject"},
                "ResultPath": "$.deleted",
                "End": True,
            },
        },
    }
    flow = local_globus.flows.create_flow("search", definition, {})
    run_id = globus_sdk.SpecificFlowClient(flow["id"], app=local_globus.app).run_flow({})["run_id"]

    def ended() -> Any:
        run = local_globus.flows.get_run(run_id)
        return run.data if run["status"] != "ACTIVE" else None

    run = until(ended)
    assert run["status"] == "SUCCEEDED", run
    output = run["details"]["output"]
    assert output["ingested"]["details"]["message"] == "Ingested 1 entries"
    assert output["deleted"]["details"]["message"] == "Deleted 1 entries"
    assert search.search(index, "*")["total"] == 0
