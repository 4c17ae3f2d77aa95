"""Several flows in one deployment: the build flow always, the others where somebody asked for them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import responses

from cib_flows.deployment import deploy, ensure_deployed, find_drift, plan_deployment
from cib_flows.deployment_plan import Choices
from cib_flows.deployment_record import load_deployment
from cib_flows.errors import NotDeployedError, ServiceError, UsageError
from cib_flows.flow_source import FLOWS as FLOW_NAMES
from cib_flows.flow_source import FlowSource
from cib_flows.profiles import Globus

FLOWS = "https://flows.automate.globus.org"
COMPUTE = "https://compute.api.globus.org"
PUBLISH = Choices(flows=("publish_container",))
URN = "urn:globus:auth:identity:11111111-1111-4111-8111-111111111111"
GONE = {"error": {"code": "NOT_FOUND", "detail": "gone", "message": "gone"}}


class Service:
    """Globus Flows and Compute, which remember what they are given and can refuse a title."""

    def __init__(self, cloud: responses.RequestsMock) -> None:
        self.flows: dict[str, dict[str, Any]] = {}
        self.functions: set[str] = set()
        self.refused: str | None = None
        self.role = "flow_owner"
        for method, url, answer in (
            ("POST", f"{COMPUTE}/v3/functions", self._register),
            ("GET", re.compile(f"{COMPUTE}/v2/functions/.*"), lambda r: {"function_uuid": "x"}),
            ("DELETE", re.compile(f"{COMPUTE}/v2/functions/.*"), self._unregister),
            ("POST", f"{FLOWS}/flows", self._put),
            ("GET", re.compile(f"{FLOWS}/flows/.*"), self._get),
            ("PUT", re.compile(f"{FLOWS}/flows/.*"), self._put),
            ("DELETE", re.compile(f"{FLOWS}/flows/.*"), self._delete),
        ):
            cloud.add_callback(method, url, self._answering(answer))

    def titled(self, word: str) -> dict[str, Any]:
        return next(flow for flow in self.flows.values() if flow["title"].startswith(word))

    def _answering(self, answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def called(request: Any) -> tuple[int, dict[str, str], str]:
            if self.refused and self.refused in str(request.body or ""):
                return 422, {}, json.dumps({"error": {"code": "NO", "detail": "refused"}})
            body = answer(request)
            return (200, {}, json.dumps(body)) if body is not None else (404, {}, json.dumps(GONE))

        return called

    def _register(self, request: Any) -> Any:
        identifier = f"00000000-0000-4000-8000-{len(self.functions):012d}"
        self.functions.add(identifier)
        return {"function_uuid": identifier}

    def _unregister(self, request: Any) -> Any:
        self.functions.discard(request.url.rpartition("/")[2])
        return {"result": 302}

    def _put(self, request: Any) -> Any:
        identifier = request.url.rpartition("/")[2]
        if identifier == "flows":
            identifier = f"99999999-0000-4000-8000-{len(self.flows):012d}"
        known = self.flows.setdefault(identifier, {"id": identifier})
        known.update(json.loads(request.body))
        return {**known, "user_role": self.role}

    def _get(self, request: Any) -> Any:
        known = self.flows.get(request.url.rpartition("/")[2])
        return {**known, "user_role": self.role} if known else None

    def _delete(self, request: Any) -> Any:
        return self.flows.pop(request.url.rpartition("/")[2], None)


@pytest.fixture
def service(cloud: responses.RequestsMock, globus: Globus) -> Service:
    return Service(cloud)


def test_the_build_flow_alone_is_deployed_until_another_is_asked_for(
    globus: Globus, service: Service
) -> None:
    assert deploy(globus).further == {}
    assert [flow["title"][:5] for flow in service.flows.values()] == ["Build"]
    lines = list(plan_deployment(globus, PUBLISH).lines())
    assert lines[-1] == "create the flow Publish a container with cib-flows"
    assert len(service.flows) == 1, "a plan changes nothing"
    deployed = deploy(globus, choices=PUBLISH)
    assert len(service.flows) == 2
    assert load_deployment(globus) == deployed
    # from now on it belongs to the deployment
    assert plan_deployment(globus).changes_nothing
    assert plan_deployment(globus).flows.keys() == set(FLOW_NAMES)


def test_both_flows_call_the_functions_that_were_registered_once(
    globus: Globus, service: Service
) -> None:
    deployed = deploy(globus, choices=PUBLISH)
    assert len(service.functions) == len(deployed.functions)
    settings = service.titled("Publish")["definition"]["States"]["Settings"]["Parameters"]
    assert settings["functions"] == {
        name: deployed.function_ids[name] for name in settings["functions"]
    }
    assert settings["source_endpoint"] == deployed.build_endpoint
    form = service.titled("Publish")["input_schema"]["properties"]
    assert form["source_endpoint"]["default"] == deployed.build_endpoint


def test_a_flow_that_is_refused_leaves_nothing_of_the_attempt(
    globus: Globus, service: Service
) -> None:
    deploy(globus)
    before = (json.dumps(service.flows), set(service.functions), globus.record_path.read_text())
    service.refused = "Publish a container"
    with pytest.raises(ServiceError):
        deploy(
            globus, choices=Choices(flows=("publish_container",), roles={"flow_starters": [URN]})
        )
    after = (json.dumps(service.flows), set(service.functions), globus.record_path.read_text())
    assert after == before


def test_a_first_deployment_of_both_takes_the_first_back_when_the_second_is_refused(
    globus: Globus, service: Service
) -> None:
    service.refused = "Publish a container"
    with pytest.raises(ServiceError) as refused:
        deploy(globus, choices=PUBLISH)
    assert (service.flows, service.functions) == ({}, set())
    assert "Nothing was changed" in str(refused.value.hint)
    assert not globus.record_path.exists()


def test_roles_are_for_the_flows_that_are_named(globus: Globus, service: Service) -> None:
    deploy(globus, choices=Choices(roles={"flow_viewers": ["public"]}))
    deploy(globus, choices=Choices(flows=("publish_container",), roles={"flow_starters": [URN]}))
    build, publish = service.titled("Build"), service.titled("Publish")
    assert (build["flow_viewers"], build["flow_starters"]) == (["public"], [])
    assert (publish["flow_viewers"], publish["flow_starters"]) == ([], [URN])
    deploy(globus)
    assert service.titled("Publish")["flow_starters"] == [URN], "they are remembered"


def test_drift_of_each_flow_is_told(globus: Globus, service: Service) -> None:
    deploy(globus, choices=PUBLISH)
    assert find_drift(globus) == []
    publish = service.titled("Publish")
    publish["definition"]["States"]["TransferImage"]["WaitTime"] = 5
    drift = find_drift(globus)
    assert (
        drift[0] == "the flow publish_container was changed on the service since it was deployed:"
    )
    assert drift[1].endswith("TransferImage.WaitTime: 5 -> 172800")
    del service.flows[publish["id"]]
    assert find_drift(globus) == [f"the flow {publish['id']} is gone from Globus Flows"]
    deploy(globus)
    assert find_drift(globus) == []
    assert len(service.flows) == 2


def test_what_is_needed_is_deployed_when_it_is_needed(globus: Globus, service: Service) -> None:
    ensure_deployed(globus)
    assert len(service.flows) == 1
    flow_id = ensure_deployed(globus, flow="publish_container").further["publish_container"].flow_id
    assert service.flows[flow_id]["title"].startswith("Publish")
    del service.flows[flow_id]
    again = ensure_deployed(globus, flow="publish_container").further["publish_container"].flow_id
    assert again in service.flows


def test_somebody_elses_deployment_without_the_flow_says_who_can_add_it(
    globus: Globus, service: Service
) -> None:
    deploy(globus)
    service.role = "flow_starter"
    with pytest.raises(NotDeployedError) as refused:
        ensure_deployed(globus, flow="publish_container")
    assert "deploy --flow publish_container" in str(refused.value.hint)
    assert len(service.flows) == 1


def test_a_record_of_a_version_that_knew_one_flow_is_read(globus: Globus, service: Service) -> None:
    deployed = deploy(globus)
    record = json.loads(globus.record_path.read_text())
    assert record.pop("further") == {}
    globus.record_path.write_text(json.dumps(record))
    assert load_deployment(globus) == deployed
    assert plan_deployment(globus).changes_nothing


def test_an_unknown_flow_is_refused(globus: Globus, service: Service) -> None:
    with pytest.raises(UsageError, match="There is no flow everything; flows are build_container"):
        deploy(globus, choices=Choices(flows=("everything",)))
    assert service.flows == {}


@pytest.mark.parametrize("name", FLOW_NAMES)
def test_every_flow_of_the_package_is_filled_without_a_leftover(
    name: str, globus: Globus, service: Service
) -> None:
    deployed = deploy(globus)
    filled = FlowSource.packaged(name).filled("b", "r", deployed.function_ids)
    assert "<" not in json.dumps(filled.definition["States"]["Settings"]["Parameters"])
    assert asdict(filled)["about"]["title"]
