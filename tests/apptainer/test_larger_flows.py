"""Flows that build a container on the way and use it, run for real without a batch system."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cib_flows.deployment import ensure_deployed
from cib_flows.flow import compose
from cib_flows.flow_parts import flow_part
from cib_flows.profiles import Globus, connect

from .beamline import Beamline
from .conftest import PLAIN, LocalGlobus

LISTED = '''
def listed(path):
    """Runs on the host: says whether the image is there."""
    import os
    return {"exists": os.path.exists(path)}
'''
ERRORS = ["ActionUnableToRun", "ActionFailedException", "ActionTimeout"]


@pytest.fixture(scope="module")
def beamline(globus: LocalGlobus, tmp_path_factory: pytest.TempPathFactory) -> Beamline:
    return Beamline(globus, tmp_path_factory.mktemp("beamline"))


def test_the_beamline_example(beamline: Beamline) -> None:
    first = beamline.ran()
    assert first["container_was_there"] is False
    assert first["analysis"]["image"].endswith(".sif")
    second = beamline.ran()
    assert second["container_was_there"] is True
    assert second["container_id"] == first["container_id"]


def test_the_example_says_what_failed(beamline: Beamline, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(
        "name: broken\nbase: {image: 'python:3.11-slim'}\npip: [no-such-package-cib-zz]\n"
    )
    done = beamline.run("--container", str(broken))
    assert done.returncode == 1
    assert "the run failed: " in done.stderr
    assert "no-such-package-cib-zz" in done.stderr
    # the command line knows more about it: the code, what to do, and the build's log
    (run_id,) = re.findall(r"started run (\S+)", done.stderr)
    failure = beamline.globus.cli("wait", run_id, "--json").document["failure"]
    assert failure["code"] == "pip_package_not_found"
    assert failure["hint"]
    assert Path(failure["log_path"]).is_file()

    nowhere = beamline.run(scan="/no-such-scan/")
    assert nowhere.returncode == 1
    assert "Traceback" not in nowhere.stderr
    assert beamline.globus.leftovers() == []


def test_the_example_refuses_wrong_usage(beamline: Beamline) -> None:
    done = beamline.run("--frames", "instrument:/scan1/")
    assert done.returncode == 2
    assert "does not begin with a collection's UUID" in done.stderr


# --- flows of one's own -----------------------------------------------------------------------------


@pytest.fixture
def client(globus: LocalGlobus) -> Globus:
    return connect("local", str(globus.home))


def ended(client: Globus, flow_id: str, body: dict[str, Any]) -> dict[str, Any]:
    run = client.flow(flow_id).run_flow(body)
    while True:
        found = dict(client.flows.get_run(run["run_id"]).data)
        if found["status"] not in ("ACTIVE", "INACTIVE"):
            return found
        time.sleep(0.3)


def test_a_composed_flow_and_its_caught_failure(client: Globus) -> None:
    deployment = ensure_deployed(client)
    function = client.compute.register_function(
        {"function_name": "listed", "function_code": LISTED, "serialized": False}
    )["function_uuid"]
    host = {
        "StartAt": "Look",
        "States": {
            "Look": {
                "Type": "Action",
                "ActionUrl": "https://compute.actions.globus.org/v3",
                "Parameters": {
                    "endpoint_id": deployment.build_endpoint,
                    "user_endpoint_config": {"profile": "run"},
                    "tasks": [{"function_id": function, "kwargs": {"path.$": "$.container.path"}}],
                },
                "ResultPath": "$.look",
                "WaitTime": 600,
                "ExceptionOnActionFailure": True,
                "Catch": [{"ErrorEquals": ERRORS, "ResultPath": "$.caught", "Next": "Broken"}],
                "End": True,
            },
            "Recover": {
                "Type": "Pass",
                "Parameters": {"why.$": "$.build_failure.cause"},
                "ResultPath": "$.recovered",
                "End": True,
            },
            "Broken": {"Type": "Fail", "Cause": "The look failed."},
        },
    }
    larger = compose(host, flow_part(deployment), before="Look", on_failure="Recover")
    assert larger.remarks == []
    flow = client.flows.create_flow("Composed", larger.definition, larger.input_schema)["id"]
    good = ended(client, flow, {"container_spec": {**PLAIN, "name": "composed"}})
    assert good["status"] == "SUCCEEDED", good["details"]
    output = good["details"]["output"]
    assert output["look"]["details"]["result"] == [{"exists": True}]
    assert output["container"]["name"] == "composed"

    spec = {**PLAIN, "name": "composed", "apt": ["no-such-debian-package"]}
    caught = ended(client, flow, {"container_spec": spec})
    assert caught["status"] == "SUCCEEDED", caught["details"]
    assert "no-such-debian-package" in caught["details"]["output"]["recovered"]["why"]


def waiting_host(*, seconds: int = 1) -> dict[str, Any]:
    end = {"Type": "Wait", "Seconds": seconds, "End": True}
    return {"StartAt": "Rest", "States": {"Rest": end}}


def test_two_builds_in_one_run_are_two_containers(client: Globus, globus: LocalGlobus) -> None:
    part = flow_part(ensure_deployed(client))
    first = compose(
        waiting_host(), part, before="Rest", prefix="One", input_property="one", output="$.first"
    )
    both = compose(first.definition, part, before="Rest", schema=first.input_schema)
    flow = client.flows.create_flow("Two", both.definition, both.input_schema)["id"]
    specs = {
        "one": {**PLAIN, "name": "first-of-two", "commands": ["echo 1 > /one"]},
        "container_spec": {**PLAIN, "name": "second-of-two", "commands": ["echo 2 > /two"]},
    }
    done = ended(client, flow, specs)
    assert done["status"] == "SUCCEEDED", done["details"]
    output = done["details"]["output"]
    assert globus.inside(output["first"], "cat", "/one") == "1\n"
    assert globus.inside(output["container"], "cat", "/two") == "2\n"
    assert output["first"]["container_id"] != output["container"]["container_id"]
    assert globus.leftovers() == []


def test_cancelling_a_larger_flow_stops_its_build(client: Globus, globus: LocalGlobus) -> None:
    part = flow_part(ensure_deployed(client))
    larger = compose(waiting_host(), part, before="Rest")
    flow = client.flows.create_flow("Long", larger.definition, larger.input_schema)["id"]
    spec = {**PLAIN, "name": "long", "commands": ["echo now it sleeps", "sleep 600"]}
    run_id = client.flow(flow).run_flow({"container_spec": spec})["run_id"]
    assert until(lambda: "now it sleeps" in build_log(globus, str(run_id)))
    assert globus.cli("cancel", str(run_id), "--json").code == 0
    assert until(lambda: not globus.leftovers()), "the build goes on"


def until(what: Callable[[], bool], seconds: float = 90) -> bool:
    """Whether ``what`` comes true: for what a build does, where nothing can be awaited."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.3)
    return True


def test_a_flow_that_builds_and_publishes(client: Globus, globus: LocalGlobus) -> None:
    """What a deployment has for both flows, inserted one after the other."""
    there = globus.cli("local", "endpoint", "add", "elsewhere", "--json").document
    deployment = ensure_deployed(client)
    built = compose(waiting_host(), flow_part(deployment), before="Rest")
    both = compose(
        built.definition,
        flow_part(deployment, "publish_container"),
        before="Rest",
        schema=built.input_schema,
        prefix="Publish",
        inputs={
            "container.$": "$.container.container_id",
            "destination_endpoint": there["id"],
        },
        output="$.published",
    )
    flow = client.flows.create_flow("Both", both.definition, both.input_schema)["id"]
    done = ended(client, flow, {"container_spec": {**PLAIN, "name": "in-both-flows"}})
    assert done["status"] == "SUCCEEDED", done["details"]
    output = done["details"]["output"]
    (delivery,) = output["published"]["destinations"]
    found = delivery["container"]
    assert found["container_id"] == output["container"]["container_id"]
    assert Path(found["path"]).is_relative_to(there["root"])
    assert Path(found["path"]).read_bytes() == Path(output["container"]["path"]).read_bytes()


def test_the_deployed_flow_as_an_action(client: Globus, globus: LocalGlobus) -> None:
    deployment = ensure_deployed(client)
    parent = {
        "StartAt": "Build",
        "States": {
            "Build": {
                "Type": "Action",
                "ActionUrl": f"https://flows.globus.org/flows/{deployment.flow_id}",
                "Parameters": {"name.$": "$.name", "base": PLAIN["base"], "worker": "none"},
                "ResultPath": "$.build",
                "WaitTime": 86400,
                "ExceptionOnActionFailure": True,
                "Catch": [{"ErrorEquals": ERRORS, "ResultPath": "$.caught", "Next": "Caught"}],
                "Next": "Use",
            },
            "Use": {
                "Type": "Pass",
                "Parameters": {"image.$": "$.build.details.output.container.path"},
                "ResultPath": "$.use",
                "End": True,
            },
            "Caught": {
                "Type": "Pass",
                "Parameters": {"yes": True},
                "ResultPath": "$.was",
                "End": True,
            },
        },
    }
    flow = client.flows.create_flow("Parent", parent, {})["id"]
    good = ended(client, flow, {"name": "called"})
    assert good["status"] == "SUCCEEDED", good["details"]
    shown = globus.cli("containers", "show", "called", "--json").document["container"]
    assert good["details"]["output"]["use"]["image"] == shown["path"]
    # the called run is the caller's own, and can be followed by itself
    child = good["details"]["output"]["build"]["action_id"]
    assert globus.cli("status", child, "--json").document["status"] == "SUCCEEDED"

    bad = ended(client, flow, {"name": "Not A Name"})
    caught = json.dumps(bad["details"]["output"]["caught"])
    assert "'Not A Name' does not match" in caught

    # cancelled as a run of its own, the called one stops its build, and the calling one goes on
    parent["States"]["Build"]["Parameters"]["commands"] = ["echo now it sleeps", "sleep 600"]
    client.flows.update_flow(flow, definition=parent)
    calling = str(client.flow(flow).run_flow({"name": "stopped"})["run_id"])

    def under_way() -> list[str]:
        found = client.flows.list_runs(filter_flow_id=deployment.flow_id)["runs"]
        active = [str(run["run_id"]) for run in found if run["status"] == "ACTIVE"]
        return [run for run in active if "now it sleeps" in build_log(globus, run)]

    assert until(lambda: bool(under_way()))
    (called,) = under_way()
    assert globus.cli("cancel", called, "--json").code == 0
    assert until(lambda: not globus.leftovers()), "the build goes on"
    assert until(lambda: client.flows.get_run(calling)["status"] == "SUCCEEDED")
    output = client.flows.get_run(calling)["details"]["output"]
    assert output["caught"]["Cause"]["details"]["code"] == "FlowCanceled"


def build_log(globus: LocalGlobus, run_id: str) -> str:
    log = globus.root / "runs" / run_id / "build.log"
    return log.read_text(errors="replace") if log.exists() else ""
