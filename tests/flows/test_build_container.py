"""The flow as it would be deployed: what the design promises about its definition and its form."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonschema
import pytest

FLOW = Path(__file__).parents[2] / "flows" / "build_container"
DEFINITION = json.loads((FLOW / "definition.json").read_text())
SCHEMA = json.loads((FLOW / "input_schema.json").read_text())
STATES: dict[str, dict[str, Any]] = DEFINITION["States"]
ACTIONS = {name: state for name, state in STATES.items() if state["Type"] == "Action"}
COMPUTE = {n: s for n, s in ACTIONS.items() if "compute.actions" in s["ActionUrl"]}
LONG = {"BuildImage", "VerifyImage", "FetchPayload", "TransferPayload"}


def strings(value: Any, path: str = "$") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from strings(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            yield from strings(item, path)


def targets(state: dict[str, Any]) -> set[str]:
    found = {state[key] for key in ("Next", "Default") if key in state}
    found |= {choice["Next"] for choice in state.get("Choices", [])}
    return found | {handler["Next"] for handler in state.get("Catch", [])}


def test_nothing_local_stands_in_it() -> None:
    urls = {state["ActionUrl"] for state in ACTIONS.values()}
    assert urls == {
        "https://compute.actions.globus.org/v3",
        "https://transfer.actions.globus.org/transfer",
    }
    text = (FLOW / "definition.json").read_text()
    assert not re.search(r"localhost|127\.0\.0\.1|/home/|/tmp/", text)


def test_what_a_deployment_decides_stands_in_one_state() -> None:
    placeholders = {
        path.split(".")[1] for path, text in strings(STATES) if re.search(r"<[a-z]+:", text)
    }
    assert placeholders == {"Settings"}
    assert DEFINITION["StartAt"] == "Settings"


def test_a_run_cannot_name_a_function() -> None:
    """Settings overwrites whatever the input held, and the schema admits no such field."""
    assert STATES["Settings"]["ResultPath"] == "$.settings"
    assert SCHEMA["additionalProperties"] is False
    assert "settings" not in SCHEMA["properties"]
    for state in COMPUTE.values():
        (task,) = state["Parameters"]["tasks"]
        assert task["function_id.$"].startswith("$.settings.functions.")
        assert state["Parameters"]["user_endpoint_config.$"] in (
            "$.settings.control_config",
            "$.settings.build_config",
        )


@pytest.mark.parametrize("name", sorted(ACTIONS))
def test_every_action_says_how_long_where_to_and_what_else(name: str) -> None:
    state = ACTIONS[name]
    assert state["WaitTime"] == (
        172800 if name in LONG else 600 if name == "ReportFailure" else 3600
    )
    assert isinstance(state["ExceptionOnActionFailure"], bool)
    assert re.fullmatch(r"\$\.\w+", state["ResultPath"])
    (handler,) = state["Catch"]
    assert handler["ResultPath"] not in ("$", state["ResultPath"])
    assert set(handler["ErrorEquals"]) >= {
        "ActionUnableToRun",
        "ActionFailedException",
        "ActionTimeout",
    }


@pytest.mark.parametrize("name", sorted(COMPUTE))
def test_every_call_fits_the_functions_signature(name: str) -> None:
    (task,) = COMPUTE[name]["Parameters"]["tasks"]
    function = task["function_id.$"].rsplit(".", 1)[1]
    signature = inspect.signature(
        getattr(import_module(f"cib_flows.functions.{function}"), function)
    )
    arguments = {key.removesuffix(".$"): None for key in task["kwargs"]}
    signature.bind(**arguments)


@pytest.mark.parametrize("name", sorted(set(COMPUTE) - {"ReportFailure"}))
def test_a_result_is_believed_only_when_it_says_ok(name: str) -> None:
    state = COMPUTE[name]
    choice = STATES[state["Next"]]
    assert choice["Type"] == "Choice"
    output = f"{state['ResultPath']}.details.results[0].output.ok"
    assert choice["Choices"][0] == {
        "Not": {
            "And": [
                {"Variable": output, "IsPresent": True},
                {"Variable": output, "BooleanEquals": True},
            ]
        },
        "Next": "CollectFailure",
    }


def test_every_failure_passes_through_one_report() -> None:
    for name, state in ACTIONS.items():
        handlers = {handler["Next"] for handler in state["Catch"]}
        assert handlers == ({"FailedUnreported"} if name == "ReportFailure" else {"CollectFailure"})
    assert STATES["CollectFailure"]["Next"] == "ReportFailure"
    fails = {name for name, state in STATES.items() if state["Type"] == "Fail"}
    assert fails == {"Failed", "FailedUnreported"}
    assert {n for n, s in STATES.items() if targets(s) & fails} == {"ReportFailure"}


def test_the_report_gets_every_steps_output_under_its_own_name() -> None:
    entries = STATES["CollectFailure"]["Parameters"]["outputs"]
    stored = {state["ResultPath"].removeprefix("$.") for state in COMPUTE.values()}
    told = {re.findall(r"getattr\('(\w+)\.details", entry["output.="])[0] for entry in entries}
    assert told == stored - {"ReportFailure"}
    names = [entry["step"] for entry in entries]
    functions = list(STATES["Settings"]["Parameters"]["functions"])
    assert names == functions[: len(names)]


def test_every_state_can_be_reached_and_every_target_exists() -> None:
    reached: set[str] = set()
    front = {DEFINITION["StartAt"]}
    while front:
        reached |= front
        front = {target for name in front for target in targets(STATES[name])} - reached
    assert reached == STATES.keys()


def test_the_form_is_a_draft_7_schema_that_the_web_app_can_show() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    for schema in (SCHEMA, *SCHEMA["properties"].values()):
        if schema.get("type") == "object" and "properties" in schema:
            assert set(schema["propertyOrder"]) == set(schema["properties"])
            assert set(schema.get("required", [])) <= set(schema["properties"])
    for name, schema in SCHEMA["properties"].items():
        assert schema["title"], name
        assert schema.get("description", ".").endswith("."), name
        nested = json.dumps(schema.get("properties", {}))
        assert "globus-" not in nested, "formats of Globus are shown at the top level only"


def test_the_flow_can_be_made_from_its_metadata() -> None:
    flow = json.loads((FLOW / "flow.json").read_text())
    assert flow["title"]
    assert len(flow["subtitle"]) <= 128
    assert len(flow["description"]) <= 4096
    assert all(isinstance(word, str) for word in flow["keywords"])
