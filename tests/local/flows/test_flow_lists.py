"""Lists of flows, runs and log entries: filtered, ordered and paged as the hosted service does."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from flow_testing import PASS, FlowsServer, identity, known_answer, one_state, refusal
from globus_sdk import FlowsAPIError
from globus_sdk.testing.data.flows import (
    list_flows,
    list_runs,
)


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


def marker(state: dict[str, Any]) -> str:
    """A marker that the service never made."""
    return encoded(json.dumps(state))


def test_flows_are_listed_in_pages_in_the_order_asked_for(server: FlowsServer, me: str) -> None:
    client = server.client(me)
    titles = [f"flow {number:02}" for number in range(25)]
    for title in titles:
        client.create_flow(title, PASS, {})
    first = client.list_flows(orderby="title ASC", filter_roles="flow_owner")
    assert set(known_answer(list_flows, "default")) == set(first.data)
    assert (len(first["flows"]), first["limit"], first["has_next_page"]) == (20, 20, True)
    pages = client.paginated.list_flows(orderby=["title DESC", "id ASC"], filter_roles="flow_owner")
    assert [flow["title"] for flow in pages.items()] == titles[::-1]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"filter_fulltext": "with APPT"}, ["Build images"]),
        ({"filter_fulltext": "hpc"}, []),
        ({"filter_keywords": "hp"}, ["Build images"]),
        ({"filter_title": "images,files"}, ["Move files", "Build images"]),
        ({"filter_title": ["images", "files"]}, ["Move files", "Build images"]),
        ({"filter_subtitle": "sub"}, ["Move files"]),
        ({"filter_description": "nothing of that"}, []),
        ({"orderby": "title ASC,updated_at DESC"}, ["Build images", "Move files"]),
        ({"per_page": 1}, ["Move files"]),
        ({"per_page": 1, "page": 2}, ["Build images"]),
        ({"filter_roles": "flow_administrators"}, []),
    ],
    ids=str,
)
def test_flows_are_found_by_what_is_asked(
    server: FlowsServer, me: str, query: dict[str, Any], found: list[str]
) -> None:
    client = server.client(me)
    client.create_flow("Build images", PASS, {}, description="with Apptainer", keywords=["HPC"])
    client.create_flow("Move files", PASS, {}, subtitle="Subtitle")
    given = {"filter_roles": "flow_owner", **query}
    assert [flow["title"] for flow in client.list_flows(query_params=given)] == found


def test_a_flow_is_found_by_its_owner_and_id(server: FlowsServer, me: str) -> None:
    client = server.client(me)
    flow = client.create_flow("T", PASS, {})
    for text in (flow["id"], identity(me).urn, flow["id"].upper()[:13]):
        listed = client.list_flows(filter_fulltext=text, filter_roles="flow_owner")
        assert [found["id"] for found in listed] == [flow["id"]]


def test_a_marker_holds_the_query(server: FlowsServer, me: str) -> None:
    client = server.client(me)
    for number in range(5):
        client.create_flow(f"flow {number}", PASS, {})
    query = {"filter_roles": "flow_owner", "orderby": "title ASC", "per_page": 2}
    first = client.list_flows(query_params=query)
    second = client.list_flows(marker=first["marker"], filter_fulltext="nothing at all")
    assert [flow["title"] for flow in second] == ["flow 2", "flow 3"]


def test_runs_are_found_by_what_is_asked(server: FlowsServer, me: str) -> None:
    client = server.client(me)
    flow_id = client.create_flow(f"A flow of {me}", PASS, {})["id"]
    rest = one_state({"Type": "Wait", "Seconds": 86_400, "End": True})
    resting = client.create_flow("Rests", rest, {})["id"]
    runs = []
    for flow, label in ((flow_id, "Beta"), (flow_id, "alpha"), (resting, "Gamma")):
        runs.append(server.flow_client(flow, me).run_flow({}, label=label)["run_id"])
    begin = client.get_run(runs[1])["start_time"]
    for run_id in runs[:2]:
        while client.get_run(run_id)["status"] == "ACTIVE":
            pass

    def found(**query: Any) -> list[str]:
        listed = client.list_runs(query_params={"filter_roles": "run_owner", **query})
        return [run["label"] for run in listed]

    assert found() == ["Gamma", "alpha", "Beta"]
    assert found(filter_status="ACTIVE") == ["Gamma"]
    assert found(filter_status="SUCCEEDED,FAILED") == ["alpha", "Beta"]
    assert found(filter_label="ALPH,bet") == ["alpha", "Beta"]
    assert found(filter_flow_title=me.upper()) == ["alpha", "Beta"]
    assert found(orderby="label ASC") == ["alpha", "Beta", "Gamma"]
    assert found(orderby="status DESC,label DESC") == ["Beta", "alpha", "Gamma"]
    assert found(filter_start_time=begin) == ["Gamma", "alpha"]
    assert found(filter_start_time=f",{begin}") == ["Beta"]
    assert found(filter_completion_time="2020-01-01,") == ["alpha", "Beta"]
    assert found(per_page=1, page=3) == ["Beta"]
    pages = []
    query = {"filter_roles": "run_owner", "orderby": "label DESC", "per_page": 2}
    page = client.list_runs(query_params=query)
    pages.append([run["label"] for run in page])
    pages.append([run["label"] for run in client.list_runs(marker=page["marker"])])
    assert pages == [["Gamma", "Beta"], ["alpha"]]
    server.client(me).cancel_run(runs[2])


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"orderby": "owner ASC"}, "orderby"),
        ({"orderby": "label UP"}, "orderby"),
        ({"filter_status": "DONE"}, "filter_status"),
        ({"filter_start_time": "yesterday"}, "filter_start_time"),
        ({"page": 0}, "page"),
        ({"per_page": 1000}, "per_page"),
        ({"page": "9" * 5000}, "page"),
        ({"marker": "x"}, "marker"),
        ({"marker": marker({"place": 10**30, "query": {}})}, "marker"),
        ({"marker": marker({"place": 0, "query": {"per_page": []}})}, "marker"),
    ],
)
def test_a_list_that_cannot_be_made_names_the_parameter(
    server: FlowsServer, query: dict[str, Any], field: str
) -> None:
    server.begin(PASS)
    with pytest.raises(FlowsAPIError) as error:
        server.client().list_runs(query_params=query)
    assert refusal(error)["error"]["detail"][0]["loc"] == [field]


def test_runs_are_listed_newest_first_in_pages_and_by_flow(server: FlowsServer, me: str) -> None:
    client = server.client(me)
    one = client.create_flow("one", PASS, {})["id"]
    two = client.create_flow("two", PASS, {})["id"]
    started = [
        server.flow_client(flow_id, me).run_flow({})["run_id"] for flow_id in [one] * 22 + [two]
    ]
    first = client.list_runs()
    assert set(known_answer(list_runs, "default")) == set(first.data)
    assert [run["run_id"] for run in client.paginated.list_runs().items()] == started[::-1]
    assert [run["run_id"] for run in client.list_runs(filter_flow_id=two)] == started[-1:]
    both = client.paginated.list_runs(filter_flow_id=[one, two], filter_roles="run_owner")
    assert len(list(both.items())) == 23
    assert list(client.list_runs(filter_roles="run_manager")) == []


def test_log_pages_in_both_orders(server: FlowsServer) -> None:
    states = {f"S{number}": {"Type": "Pass", "Next": f"S{number + 1}"} for number in range(9)}
    definition = {"StartAt": "S0", "States": {**states, "S9": {"Type": "Pass", "End": True}}}
    run_id = server.run(definition)["run_id"]
    client = server.client()
    first = client.get_run_logs(run_id)
    assert (len(first["entries"]), first["limit"], first["has_next_page"]) == (10, 10, True)
    forward = list(client.paginated.get_run_logs(run_id).items())
    backward = list(client.paginated.get_run_logs(run_id, limit=7, reverse_order=True).items())
    assert len(forward) == 22
    assert backward == forward[::-1]
    assert [entry["time"] for entry in forward] == sorted(entry["time"] for entry in forward)
    last = client.get_run_logs(run_id, limit=100)
    assert (last["has_next_page"], "marker" in last.data) == (False, False)


@pytest.mark.parametrize(
    "query",
    [
        *({"limit": limit} for limit in (0, 101, "x", "9" * 5000)),
        *({"marker": text} for text in ("x", encoded("a"), encoded("after:99999999999999999999"))),
    ],
)
def test_a_bad_page_is_refused(server: FlowsServer, query: dict[str, Any]) -> None:
    run_id = server.run(PASS)["run_id"]
    with pytest.raises(FlowsAPIError) as error:
        server.client().get_run_logs(run_id, query_params=query)
    assert error.value.http_status == 422


def test_a_role_that_does_not_exist_cannot_be_filtered_for(server: FlowsServer) -> None:
    client = server.client()
    for call in (client.list_flows, client.list_runs, client.list_web_inputs):
        with pytest.raises(FlowsAPIError) as refusal:
            call(filter_roles="owner")  # type: ignore[operator]
        assert refusal.value.http_status == 422
        assert (refusal.value.raw_json or {})["error"]["detail"][0]["loc"] == ["filter_roles"]


@pytest.mark.parametrize(
    "role", ["run_owner", "run_manager", "run_monitor", "flow_run_manager", "flow_run_monitor"]
)
def test_every_role_of_the_sdk_can_be_filtered_for(server: FlowsServer, role: str) -> None:
    assert server.client("nobody").list_runs(filter_roles=role)["runs"] == []
