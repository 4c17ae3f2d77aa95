"""``containers publish`` at the wire: sites by name, what the flow is given, and what is told of each site."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import responses
from click.testing import CliRunner, Result

from cib_flows.cli import main
from cib_flows.containers import Container
from cib_flows.deployment_record import (
    DeployedFlow,
    Deployment,
    RegisteredFunction,
    save_deployment,
)
from cib_flows.errors import NotFoundError, UsageError
from cib_flows.flow_source import PUBLISH_FLOW
from cib_flows.profiles import Globus
from cib_flows.publishing import PublishRun, attach_run, publish
from cib_flows.sites import Site, find_site, read_sites, sites_path

from .conftest import BUILD_ENDPOINT

FLOWS = "https://flows.automate.globus.org"
COMPUTE = "https://compute.api.globus.org"
FLOW_ID = "24bc4997-b483-4c25-a19c-64b0afc00744"
RUN = "44444444-4444-4444-8444-444444444444"
DELTA = "11111111-1111-4111-8111-111111111111"
POLARIS = "22222222-2222-4222-8222-222222222222"
COLLECTION = "33333333-3333-4333-8333-333333333333"
SITES = f"""
delta:
  endpoint: {DELTA}
  collection: {COLLECTION}
  path: /scratch/cib/
polaris:
  endpoint: {POLARIS}
  run_endpoint: {DELTA}
"""
CONTAINER = {
    "container_id": "c0ffee00-0000-5000-8000-000000000000",
    "name": "demo",
    "tag": "v1",
    "path": "/there/demo.sif",
    "sha256": "a" * 64,
    "bytes": 112279552,
    "record_path": "/there/demo.json",
    "executor": {
        "endpoint_id": DELTA,
        "user_endpoint_config": {"container_uri": "/there/demo.sif"},
    },
}
OUTCOMES = [
    {"name": "delta", "endpoint_id": DELTA, "ok": True, "present": False, "container": CONTAINER},
    {
        "name": "polaris",
        "endpoint_id": POLARIS,
        "ok": False,
        "sentence": "The site polaris has 3 MiB free.",
        "code": "disk_full",
        "hint": "Make room.",
        "failed_step": "expect_container",
    },
]


# -- sites ----------------------------------------------------------------------------------------


@pytest.fixture
def sites_file() -> Path:
    path = sites_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SITES)
    return path


def test_a_site_of_the_file_is_a_destination_of_the_flow(sites_file: Path) -> None:
    sites = read_sites()
    assert sites["delta"].destination() == {
        "name": "delta",
        "endpoint": DELTA,
        "collection": {"id": COLLECTION, "path": "/scratch/cib/"},
    }
    assert sites["polaris"].destination() == {
        "name": "polaris",
        "endpoint": POLARIS,
        "run_endpoint": DELTA,
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- delta", "does not hold names of sites"),
        ("delta: x", "The site 'delta'"),
        ("delta: {collection: 1}", "The site 'delta'"),
        (f"delta: {{endpoint: {DELTA}, folder: /x}}", "The site 'delta'"),
        ("delta: {endpoint: here}", "'endpoint' of the site 'delta'"),
        ("delta: {endpoint: null}", "'endpoint' of the site 'delta'"),
        (f"delta: {{endpoint: {DELTA}, path: /x}}", "needs a 'collection'"),
        (f"delta: {{endpoint: {DELTA}, collection: {COLLECTION}, path: x}}", "must begin with '/'"),
        ("delta: [", "cannot be read"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "sites.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_sites(path)


def test_without_a_file_there_are_no_names_but_a_named_file_must_be_there(tmp_path: Path) -> None:
    assert read_sites() == {}
    with pytest.raises(UsageError, match="There is no file"):
        read_sites(tmp_path / "none.yaml")


def test_a_word_is_a_site_an_id_or_the_name_of_an_endpoint(
    globus: Globus, cloud: responses.RequestsMock
) -> None:
    cloud.get(
        f"{COMPUTE}/v2/endpoints",
        json=[
            {"uuid": DELTA, "name": "delta", "display_name": "Delta at NCSA"},
            {"uuid": POLARIS, "name": "twice"},
            {"uuid": DELTA, "name": "twice"},
        ],
    )
    known = {"delta": Site("delta", POLARIS)}
    assert find_site(globus, "delta", known).endpoint_id == POLARIS
    assert find_site(globus, "delta", {}).endpoint_id == DELTA
    assert find_site(globus, "Delta at NCSA", {}).endpoint_id == DELTA
    assert find_site(globus, DELTA.upper(), {}) == Site(DELTA.upper(), DELTA)
    with pytest.raises(UsageError, match="2 endpoints are called 'twice'"):
        find_site(globus, "twice", {})
    with pytest.raises(NotFoundError, match="There is no site 'aurora'"):
        find_site(globus, "aurora", {})


# -- a run ----------------------------------------------------------------------------------------


@pytest.fixture
def deployed(globus: Globus, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    monkeypatch.setenv("CIB_FLOWS_PROFILE", "globus")
    further = {PUBLISH_FLOW: DeployedFlow(FLOW_ID, "")}
    functions = {"drop_delivery": RegisteredFunction(DELTA, "")}
    record = Deployment("f", "", BUILD_ENDPOINT, BUILD_ENDPOINT, functions, further=further)
    save_deployment(globus, record)
    monkeypatch.setattr("cib_flows.publishing.ensure_deployed", lambda globus, flow: record)
    return record


def entry(code: str, state: str, at: float, **details: Any) -> dict[str, Any]:
    time = f"2026-11-20T12:00:{at:09.6f}+00:00"
    return {
        "time": time,
        "code": code,
        "description": state,
        "details": {"state_name": state, **details},
    }


def entries(outcomes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    task = {"kwargs": {"outcomes": outcomes}}
    report = {
        "sentence": "The container could not be published to polaris (It is full).",
        "failed": 1,
    }
    found = [
        entry("ActionStarted", "OfferContainer", 0, input={"endpoint_id": BUILD_ENDPOINT}),
        entry("ActionStarted", "ExpectContainer", 1, input={"endpoint_id": DELTA}),
        entry("ActionStarted", "TransferImage", 2, input={}),
        entry("ActionCompleted", "TransferImage", 14.5),
        entry("ActionStarted", "ReceiveContainer", 15, input={"endpoint_id": DELTA}),
        entry("ActionCompleted", "ReceiveContainer", 19.25),
        entry("ActionStarted", "ExpectContainer", 20, input={"endpoint_id": POLARIS}),
        entry("ActionStarted", "EndPublication", 22, input={"tasks": [task]}),
    ]
    output = {"details": {"results": [{"output": report}]}}
    return [*found, entry("ActionCompleted", "EndPublication", 23, output=output)]


def answers(cloud: responses.RequestsMock, status: str, outcomes: list[dict[str, Any]]) -> None:
    cloud.post(f"{FLOWS}/flows/{FLOW_ID}/run", json={"run_id": RUN, "status": "ACTIVE"})
    run = {"run_id": RUN, "flow_id": FLOW_ID, "status": status, "details": {"code": "FlowFailed"}}
    cloud.get(f"{FLOWS}/runs/{RUN}", json=run)
    log = {"entries": entries(outcomes), "has_next_page": False}
    cloud.get(f"{FLOWS}/runs/{RUN}/log", json=log)
    for endpoint, state in ((DELTA, "online"), (POLARIS, "offline")):
        cloud.get(f"{COMPUTE}/v2/endpoints/{endpoint}/status", json={"status": state})


def sent(cloud: responses.RequestsMock) -> dict[str, Any]:
    (call,) = [c for c in cloud.calls if str(c.request.url).endswith("/run")]
    body: dict[str, Any] = json.loads(call.request.body or "")
    return body


def published(*words: str) -> Result:
    return CliRunner().invoke(main, ["containers", "publish", "demo:v1", *words])


def test_what_the_flow_is_given(
    deployed: Deployment, cloud: responses.RequestsMock, sites_file: Path
) -> None:
    answers(cloud, "SUCCEEDED", OUTCOMES[:1])
    answer = published("--to", "delta,polaris", "--to", "delta", "--as", "v2", "--move")
    assert answer.exit_code == 0, answer.output
    body = sent(cloud)
    assert body["body"] == {
        "container": "demo:v1",
        "source_endpoint": BUILD_ENDPOINT,
        "destinations": [site.destination() for site in read_sites().values()],
        "name_tag": "v2",
        "move": True,
    }
    assert body["label"] == "demo:v1 to delta, polaris"


def test_a_site_that_is_offline_has_its_turn_last(
    deployed: Deployment, cloud: responses.RequestsMock, sites_file: Path
) -> None:
    answers(cloud, "SUCCEEDED", OUTCOMES[:1])
    assert published("--to", "polaris,delta").exit_code == 0
    assert [d["name"] for d in sent(cloud)["body"]["destinations"]] == ["delta", "polaris"]


def test_at_once_every_site_has_a_run_of_its_own(
    deployed: Deployment, cloud: responses.RequestsMock, sites_file: Path
) -> None:
    answers(cloud, "SUCCEEDED", OUTCOMES[:1])
    answer = published("--to", "polaris,delta", "--at-once", "--as", "v2", "--json")
    assert answer.exit_code == 0, answer.output
    calls = [c for c in cloud.calls if str(c.request.url).endswith("/run")]
    bodies = [json.loads(call.request.body or "")["body"] for call in calls]
    assert [[d["name"] for d in body["destinations"]] for body in bodies] == [
        ["polaris"],
        ["delta"],
    ]
    assert {body["name_tag"] for body in bodies} == {"v2"}
    document = json.loads(answer.stdout)
    assert document["ok"] is True
    assert [run["deliveries"][0]["ok"] for run in document["runs"]] == [True, True]


def test_at_once_one_that_fails_ends_with_1_and_the_others_are_told(
    deployed: Deployment, cloud: responses.RequestsMock, sites_file: Path
) -> None:
    answers(cloud, "FAILED", OUTCOMES)
    answer = published("--to", "polaris,delta", "--at-once")
    assert answer.exit_code == 1
    assert [line.split()[:2] for line in answer.stdout.splitlines()] == [
        ["delta", "registered"],
        ["polaris", "failed"],
    ] * 2
    assert answer.stderr.count("Error: The container could not be published to polaris") == 2


def test_at_once_those_that_were_started_are_named_when_one_cannot_be(
    deployed: Deployment, cloud: responses.RequestsMock, sites_file: Path
) -> None:
    cloud.post(f"{FLOWS}/flows/{FLOW_ID}/run", json={"run_id": RUN, "status": "ACTIVE"})
    refusal = {"error": {"code": "FORBIDDEN", "detail": "You may not start it."}}
    cloud.post(f"{FLOWS}/flows/{FLOW_ID}/run", json=refusal, status=403)
    answer = published("--to", "polaris,delta", "--at-once")
    assert answer.exit_code != 0
    assert f"Started before, and going on: {RUN}." in answer.stderr


def test_a_container_is_published_from_where_it_is_registered(
    deployed: Deployment, globus: Globus, cloud: responses.RequestsMock, sites_file: Path
) -> None:
    answers(cloud, "SUCCEEDED", OUTCOMES[:1])
    container = Container.from_output(globus, {**CONTAINER, "endpoint_id": POLARIS})
    (delivery,) = container.publish("delta", Site("mine", DELTA), name_tag="v2")
    assert delivery.container is not None
    assert delivery.container.endpoint_id == DELTA
    body = sent(cloud)["body"]
    assert (body["container"], body["source_endpoint"]) == ("demo:v1", POLARIS)
    assert [d["name"] for d in body["destinations"]] == ["delta", "mine"]


def test_a_site_may_be_named_by_its_parts(
    deployed: Deployment, cloud: responses.RequestsMock
) -> None:
    answers(cloud, "SUCCEEDED", OUTCOMES[:1])
    words = ("--endpoint", DELTA, "--collection", COLLECTION, "--path", "/scratch")
    assert published(*words).exit_code == 0
    collection = {"id": COLLECTION, "path": "/scratch"}
    assert sent(cloud)["body"]["destinations"] == [
        {"name": DELTA, "endpoint": DELTA, "collection": collection}
    ]


def test_each_site_has_its_line_and_one_that_failed_ends_with_1(
    deployed: Deployment, cloud: responses.RequestsMock, sites_file: Path
) -> None:
    answers(cloud, "FAILED", OUTCOMES)
    answer = published("--to", "delta,polaris")
    assert answer.exit_code == 1
    delta, polaris = answer.stdout.splitlines()
    assert delta.startswith("delta             registered  demo:v1 is c0ffee00")
    assert delta.endswith("(107 MiB, transferred in 12.5 s, registered in 4.2 s)")
    assert polaris == "polaris           failed      The site polaris has 3 MiB free."
    assert "Error: The container could not be published to polaris (It is full)." in answer.stderr


def test_the_same_for_programs(
    deployed: Deployment, cloud: responses.RequestsMock, sites_file: Path
) -> None:
    answers(cloud, "FAILED", OUTCOMES)
    answer = published("--to", "delta,polaris", "--json")
    assert answer.exit_code == 1
    document = json.loads(answer.stdout)
    assert (document["ok"], document["status"]) == (False, "FAILED")
    delta, polaris = document["deliveries"]
    assert delta["container"]["executor"] == CONTAINER["executor"]
    assert (delta["transfer_s"], delta["register_s"]) == (12.5, 4.25)
    assert (polaris["container"], polaris["code"], polaris["transfer_s"]) == (
        None,
        "disk_full",
        None,
    )
    assert document["failure"]["sentence"].startswith("The container could not be published")


def test_a_run_that_was_started_is_a_publication_again_when_it_is_looked_up(
    deployed: Deployment, globus: Globus, cloud: responses.RequestsMock
) -> None:
    answers(cloud, "FAILED", OUTCOMES)
    run = attach_run(globus, RUN)
    assert isinstance(run, PublishRun)
    assert [delivery.ok for delivery in run.deliveries()] == [True, False]
    waited = CliRunner().invoke(main, ["wait", RUN])
    assert waited.exit_code == 1
    assert "polaris           failed" in waited.stdout


def test_a_cancel_cleans_every_site_that_was_called(
    deployed: Deployment, globus: Globus, cloud: responses.RequestsMock
) -> None:
    answers(cloud, "ACTIVE", OUTCOMES)
    cloud.post(f"{FLOWS}/runs/{RUN}/cancel", json={})
    task = "55555555-5555-4555-8555-555555555555"
    for endpoint in (BUILD_ENDPOINT, DELTA, POLARIS):
        cloud.post(f"{COMPUTE}/v3/endpoints/{endpoint}/submit", json={"tasks": {DELTA: [task]}})
    cloud.get(f"{COMPUTE}/v2/tasks/{task}", json={"result": '11\n{"ok": true}'})
    assert PublishRun(globus, RUN, deployed).cancel() is True
    asked = [str(c.request.url) for c in cloud.calls if str(c.request.url).endswith("/submit")]
    assert [url.split("/")[-2] for url in asked] == [BUILD_ENDPOINT, DELTA, POLARIS]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Name a site with --to"),
        (("--to", ","), "Name a site with --to"),
        (("--collection", COLLECTION, "--to", "x"), "belong to --endpoint"),
        (("--endpoint", DELTA, "--path", "/x"), "needs --collection"),
        (("--endpoint", DELTA, "--collection", COLLECTION, "--path", "x"), "begin with '/'"),
        (("--endpoint", "x"), "is not an endpoint's UUID"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_asked(words: tuple[str, ...], said: str) -> None:
    answer = published(*words)
    assert answer.exit_code == 2
    assert said in answer.stderr


@pytest.mark.parametrize("number", [0, 9])
def test_a_run_has_one_to_eight_sites(globus: Globus, number: int) -> None:
    with pytest.raises(UsageError, match="1 to 8 sites"):
        publish("demo:v1", [Site(str(n), DELTA) for n in range(number)], globus)
