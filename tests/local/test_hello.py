"""The flow that most people write first."""

from __future__ import annotations

from typing import Any

import globus_sdk
import pytest

from .conftest import LocalGlobus, until


def run_of(globus: LocalGlobus, **parameters: Any) -> str:
    state = {
        "Type": "Action",
        "ActionUrl": "https://actions.globus.org/hello_world",
        "Parameters": parameters,
        "ResultPath": "$.said",
        "WaitTime": 60,
        "ExceptionOnActionFailure": True,
        "End": True,
    }
    flow = globus.flows.create_flow("Hello", {"StartAt": "A", "States": {"A": state}}, {})
    client = globus_sdk.SpecificFlowClient(flow["id"], app=globus.app)
    return str(client.run_flow({})["run_id"])


def ended(globus: LocalGlobus, run_id: str) -> dict[str, Any]:
    def poll() -> dict[str, Any] | None:
        run = dict(globus.flows.get_run(run_id).data)
        return run if run["status"] != "ACTIVE" else None

    found: dict[str, Any] = until(poll)
    return found


def test_it_says_hello(local_globus: LocalGlobus) -> None:
    run = ended(local_globus, run_of(local_globus, echo_string="there"))
    said = run["details"]["output"]["said"]
    assert (said["status"], said["details"]) == ("SUCCEEDED", {"Hello": "World", "hello": "there"})


def test_it_takes_its_time_and_is_cancelled(local_globus: LocalGlobus) -> None:
    run_id = run_of(local_globus, echo_string="there", sleep_time=86_400)
    until(lambda: local_globus.flows.get_run(run_id)["details"]["code"] == "ActionStarted")
    local_globus.flows.cancel_run(run_id)
    assert ended(local_globus, run_id)["details"]["code"] == "FlowCanceled"


@pytest.mark.parametrize(
    ("parameters", "words"),
    [({"echo_string": 3}, "echo_string"), ({"sleep_time": "long"}, "sleep_time")],
)
def test_what_makes_no_sense_is_refused(
    local_globus: LocalGlobus, parameters: dict[str, Any], words: str
) -> None:
    run = ended(local_globus, run_of(local_globus, **parameters))
    assert run["details"]["error"] == "ActionUnableToRun"
    assert words in run["details"]["description"]
