"""The publish flow: what the design promises about its definition, and how it goes through its destinations."""

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

from cib_flows.flow.linter import lint_definition
from cib_flows.flow_source import FlowSource
from cib_flows.local import control

from ..local.conftest import LocalGlobus, start, until

FLOW = Path(__file__).parents[2] / "flows" / "publish_container"
DEFINITION = json.loads((FLOW / "definition.json").read_text())
SCHEMA = json.loads((FLOW / "input_schema.json").read_text())
STATES: dict[str, dict[str, Any]] = DEFINITION["States"]
ACTIONS = {name: state for name, state in STATES.items() if state["Type"] == "Action"}
COMPUTE = {n: s for n, s in ACTIONS.items() if "compute.actions" in s["ActionUrl"]}
LONG = {"TransferImage", "ReceiveContainer"}
CLEANING = {"DropDelivery", "ReportDelivery", "EndPublication", "ReportFailure"}
UUID = "11111111-1111-4111-8111-{:012d}"


# -- the definition -------------------------------------------------------------------------------


def test_the_linter_has_nothing_to_remark() -> None:
    assert lint_definition(DEFINITION, SCHEMA)[0] == []


def test_what_a_deployment_decides_stands_in_one_state() -> None:
    found = {name for name, state in STATES.items() if re.search(r'"<[a-z]+:', json.dumps(state))}
    assert found == {"Settings"} == {DEFINITION["StartAt"]}


def test_a_run_cannot_name_a_function() -> None:
    assert STATES["Settings"]["ResultPath"] == "$.settings"
    assert SCHEMA["additionalProperties"] is False
    assert "settings" not in SCHEMA["properties"]
    for state in COMPUTE.values():
        (task,) = state["Parameters"]["tasks"]
        assert task["function_id.$"].startswith("$.settings.functions.")


@pytest.mark.parametrize("name", sorted(ACTIONS))
def test_every_action_says_how_long_where_to_and_what_else(name: str) -> None:
    state = ACTIONS[name]
    assert state["WaitTime"] == (172800 if name in LONG else 600 if name in CLEANING else 3600)
    assert state["ExceptionOnActionFailure"] is (name != "TransferImage")
    assert re.fullmatch(r"\$\.\w+", state["ResultPath"])
    (handler,) = state["Catch"]
    assert handler["ResultPath"] not in ("$", state["ResultPath"])
    assert handler["ErrorEquals"] == ["ActionUnableToRun", "ActionFailedException", "ActionTimeout"]


@pytest.mark.parametrize("name", sorted(COMPUTE))
def test_every_call_fits_the_functions_signature(name: str) -> None:
    (task,) = COMPUTE[name]["Parameters"]["tasks"]
    function = task["function_id.$"].rsplit(".", 1)[1]
    module = import_module(f"cib_flows.functions.{function}")
    arguments = {key.removesuffix(".$"): None for key in task["kwargs"]}
    inspect.signature(getattr(module, function)).bind(**arguments)


def test_the_transfer_compares_checksums_and_gives_up_on_a_full_disk() -> None:
    given = STATES["TransferImage"]["Parameters"]
    assert given["verify_checksum"] is True
    assert given["fail_on_quota_errors"] is True


def test_the_form_is_a_draft_7_schema_that_the_web_app_can_show() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert set(SCHEMA["propertyOrder"]) == set(SCHEMA["properties"])
    formats = {}
    for name, schema in SCHEMA["properties"].items():
        assert schema["title"], name
        assert schema["description"].endswith("."), name
        formats[name] = schema.get("format")
        nested = json.dumps([schema.get("properties", {}), schema.get("items", {})])
        assert "globus-" not in nested, "formats of Globus are shown at the top level only"
    assert formats["source_endpoint"] == "globus-compute-endpoint"
    for number in ("", "_2", "_3"):
        assert formats[f"destination_endpoint{number}"] == "globus-compute-endpoint"
        assert formats[f"destination_collection{number}"] == "globus-collection"
        collection = SCHEMA["properties"][f"destination_collection{number}"]
        assert set(collection["properties"]) == {"id", "path"}


@pytest.mark.parametrize(
    "change",
    [
        {"container": ""},
        {"name_tag": "../x"},
        {"name_tag": "a/b:c"},
        {"function": "mine"},
        {"settings": {}},
        {"destinations": [{"name": "x"}]},
        {"destinations": [{"endpoint": "../x"}]},
        {"destinations": [{"endpoint": UUID.format(1), "path": "/"}]},
    ],
)
def test_the_form_refuses_what_is_not_meant(change: dict[str, Any]) -> None:
    given = {"container": "demo:v1", "destinations": [{"endpoint": UUID.format(1)}]}
    jsonschema.validate(given, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**given, **change}, SCHEMA)


# -- how it goes through its destinations ---------------------------------------------------------
# The functions are stand-ins here, so that each answer can be chosen; the real ones run in tests/apptainer.

STAND_INS = {
    "offer_container": """
def offer_container(run_id, container, name_tag):
    import os
    assert container == "demo:v1", container
    folder = os.path.join("{staging}", "offer")
    os.makedirs(folder, exist_ok=True)
    for name in ("a.sif", "a.json"):
        with open(os.path.join(folder, name), "w") as stream:
            stream.write(name)
    return dict(ok=True, container_id="c", name="demo", tag="v1", sha256="a", bytes=1, sums_sha256="s",
                files=["a.sif", "a.json"], collection_id="{collection}", folder="/offer/", pad="x" * {pad})
""",
    "expect_container": """
def expect_container(run_id, offer, destination, name_tag, move):
    name = destination["name"]
    if "refuses" in name:
        return dict(ok=False, error=dict(code="disk_full", message=name + " is full. " + "x" * {pad}, hint=""))
    if "raises" in name:
        raise RuntimeError("a bug " + "x" * {pad})
    away = "/elsewhere/" if "away" in name else "/" + name + "/"
    collection = "11111111-1111-4111-8111-000000000055" if "nowhere" in name else "{collection}"
    return dict(ok=True, present="present" in name, collection_id=collection, folder=away, place="p-" + name)
""",
    "receive_container": """
def receive_container(run_id, offer, destination, place, name_tag, move):
    import os
    name = destination["name"]
    assert place == "p-" + name, place
    arrived = os.path.join("{staging}", name)
    if "present" in name:
        assert not os.path.exists(arrived), arrived
    else:
        assert sorted(os.listdir(arrived)) == ["a.json", "a.sif"], os.listdir(arrived)
    if "distrusts" in name:
        return dict(ok=False, error=dict(code="not_trusted", message=name + " does not trust it.", hint="Sign it."))
    return dict(ok=True, container_id="c", name="demo", tag="v1", path="/x/" + "y" * {pad}, sha256="a", bytes=1,
                record_path="/r", executor=dict(endpoint_id=destination["endpoint"], user_endpoint_config={{}}))
""",
    "drop_delivery": """
def drop_delivery(run_id):
    with open("{staging}/dropped", "a") as stream:
        stream.write("dropped ")
    return dict(ok=True, cleaned=True)
""",
}


@pytest.fixture(scope="module")
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGlobus]:
    home = tmp_path_factory.mktemp("publish") / "home"
    found = start(home, compute_port=False)
    yield found
    control.stop(found.home)


def run_flow(
    globus: LocalGlobus, body: dict[str, Any], pad: int = 0, without: str = ""
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A run of the flow with stand-ins; its document and its log."""
    import globus_sdk

    from cib_flows.bundle import bundle_function

    words = {"staging": str(globus.home.staging_dir), "collection": globus.staging_id, "pad": pad}
    functions = {}
    for name in STATES["Settings"]["Parameters"]["functions"]:
        text = (
            STAND_INS[name].format(**words) if name in STAND_INS else bundle_function(name).source
        )
        body_of = {"function_name": name, "function_code": text, "serialized": False}
        functions[name] = str(globus.compute_v3.register_function(body_of)["function_uuid"])
    if without:
        functions[without] = UUID.format(99)
    flow = FlowSource.packaged("publish_container").filled(globus.endpoint_id, "", functions)
    with pytest.MonkeyPatch.context() as patch:
        for name, text in globus.environment.items():
            if name.startswith("GLOBUS_SDK_"):
                patch.setenv(name, text)
        made = globus.flows.create_flow("publish", flow.definition, flow.input_schema)
        client = globus_sdk.SpecificFlowClient(made["id"], app=globus.app)
        run_id = client.run_flow({"container": "demo:v1", **body})["run_id"]

        def ended() -> dict[str, Any] | None:
            found: dict[str, Any] = globus.flows.get_run(run_id).data  # type: ignore[assignment]
            return found if found["status"] != "ACTIVE" else None

        run = until(ended, 120.0)
        entries: list[dict[str, Any]] = []
        marker: Any = globus_sdk.MISSING
        while True:
            page = globus.flows.get_run_logs(run_id, limit=100, marker=marker)
            entries += page["entries"]
            marker = page.get("marker")
            if not marker:
                return run, entries


def started(entries: list[dict[str, Any]]) -> list[str]:
    return [e["details"]["state_name"] for e in entries if e["code"] == "ActionStarted"]


def last_action(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """What the last action was given."""
    found: dict[str, Any] = [e for e in entries if e["code"] == "ActionStarted"][-1]["details"][
        "input"
    ]
    return found


def to(globus: LocalGlobus, *names: str) -> dict[str, Any]:
    return {"destinations": [{"name": name, "endpoint": globus.endpoint_id} for name in names]}


def test_every_destination_has_its_turn_and_nothing_of_the_last_one(own_home: LocalGlobus) -> None:
    run, entries = run_flow(own_home, to(own_home, "one", "is-present", "three"))
    assert run["status"] == "SUCCEEDED", run["details"]
    result = run["details"]["output"]["published"]["destinations"]
    assert [(d["name"], d["ok"], d["present"]) for d in result] == [
        ("one", True, False),
        ("is-present", True, True),
        ("three", True, False),
    ]
    assert started(entries).count("TransferImage") == 2
    output = run["details"]["output"]
    assert not {"TransferImage", "ExpectContainer", "caught"} & set(output)


def test_one_that_fails_in_any_way_does_not_keep_the_others_from_it(own_home: LocalGlobus) -> None:
    body = to(own_home, "refuses", "raises", "two", "distrusts", "five")
    body["destinations"].append({"name": "unknown", "endpoint": UUID.format(7)})
    run, entries = run_flow(own_home, body)
    assert run["status"] == "FAILED"
    outcomes = last_action(entries)["tasks"][0]["kwargs"]["outcomes"]
    assert [(o["name"], o["ok"]) for o in outcomes] == [
        ("refuses", False),
        ("raises", False),
        ("two", True),
        ("distrusts", False),
        ("five", True),
        ("unknown", False),
    ]
    said = {o["name"]: o for o in outcomes}
    assert said["distrusts"]["sentence"] == "distrusts does not trust it."
    assert said["distrusts"]["hint"] == "Sign it."
    assert said["raises"]["sentence"].endswith("unexpected error: RuntimeError: a bug")
    assert "could not be started" in said["unknown"]["sentence"]
    for name in ("refuses", "raises", "distrusts", "unknown"):
        assert name in run["details"]["description"] + json.dumps(entries[-1])
    # staging is cleaned where something was brought, and nowhere else
    assert started(entries).count("DropDelivery") == 1


def test_files_go_only_where_the_input_allows_whatever_the_destination_says(
    own_home: LocalGlobus,
) -> None:
    allowed = {"id": own_home.staging_id, "path": "/here/"}
    body = {
        "destinations": [{"name": "away", "endpoint": own_home.endpoint_id, "collection": allowed}]
    }
    run, entries = run_flow(own_home, body)
    assert run["status"] == "FAILED"
    assert "TransferImage" not in started(entries)
    assert not (own_home.home.staging_dir / "elsewhere").exists()
    assert "staging is not where" in json.dumps(entries[-1])


def test_a_collection_that_is_not_there_is_told_and_its_site_is_cleaned(
    own_home: LocalGlobus,
) -> None:
    run, entries = run_flow(own_home, to(own_home, "nowhere", "reached"))
    assert run["status"] == "FAILED"
    nowhere, reached = last_action(entries)["tasks"][0]["kwargs"]["outcomes"]
    assert reached["ok"]
    assert nowhere["failed_step"] == "transfer_image"
    assert nowhere["sentence"].startswith("The container could not be transferred: ")
    assert "endpoint" in nowhere["sentence"].lower()
    assert started(entries).count("DropDelivery") == 1


def test_the_pickers_of_the_form_and_the_list_make_one_list(own_home: LocalGlobus) -> None:
    body = {
        "destination_endpoint": own_home.endpoint_id,
        "destination_endpoint_3": own_home.endpoint_id,
        "destination_collection_3": {"id": own_home.staging_id, "path": "/"},
        **to(own_home, "listed"),
    }
    run, _ = run_flow(own_home, body)
    assert run["status"] == "SUCCEEDED", run["details"]
    names = [d["name"] for d in run["details"]["output"]["published"]["destinations"]]
    assert names == [own_home.endpoint_id, own_home.endpoint_id, "listed"]


def test_a_run_without_a_destination_says_so(own_home: LocalGlobus) -> None:
    run, entries = run_flow(own_home, {})
    assert run["status"] == "FAILED"
    assert started(entries) == []
    assert "names no destination" in json.dumps([run["details"], entries[-1]])


def test_the_state_holds_the_longest_answers_of_the_most_destinations(
    own_home: LocalGlobus,
) -> None:
    pickers = {f"destination_endpoint{n}": own_home.endpoint_id for n in ("", "_2", "_3")}
    body = {
        **pickers,
        **to(own_home, *(f"{n}-{'refuses' if n % 2 else 'raises'}" for n in range(8))),
    }
    run, entries = run_flow(own_home, body, pad=7000)
    assert run["status"] == "FAILED"
    assert started(entries)[-1] == "EndPublication", json.dumps(entries[-1])[:500]
    assert started(entries).count("ReportDelivery") == 8


def test_a_source_that_falls_silent_at_the_end_does_not_undo_what_was_registered(
    own_home: LocalGlobus,
) -> None:
    run, _ = run_flow(own_home, to(own_home, "one"), without="end_publication")
    assert run["status"] == "SUCCEEDED"
    run, entries = run_flow(own_home, to(own_home, "refuses"), without="end_publication")
    assert run["status"] == "FAILED"
    assert "the source endpoint did not answer" in json.dumps([run["details"], entries[-1]])
