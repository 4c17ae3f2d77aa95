"""The build inserted into a host flow does what it does alone, and leaves the host's things alone."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from flow_testing import FlowsServer, ScriptedProvider, refused
from test_build_container_flow import (
    COLLECTION,
    ENDPOINT,
    FLOW,
    OUTPUTS,
    SPEC,
    Functions,
    deployed,
)

from cib_flows.flow import Composition, Part, compose
from cib_flows.flow.compose_paths import Places, rewritten
from cib_flows.functions._shared.results import MAX_RESULT_BYTES
from cib_flows.functions._shared.spec_check import MAX_SPEC_BYTES

SCHEMA = {
    "type": "object",
    "properties": {"sample": {"type": "string"}},
    "required": ["sample"],
    "additionalProperties": False,
}
CATCH = [
    {
        "ErrorEquals": ["ActionUnableToRun", "ActionFailedException", "ActionTimeout"],
        "ResultPath": "$.caught",
        "Next": "Sorry",
    }
]


def compute(name: str, following: str, **arguments: str) -> dict[str, Any]:
    return {
        "Type": "Action",
        "ActionUrl": "https://compute.actions.globus.org/v3",
        "Parameters": {
            "endpoint_id": ENDPOINT,
            "tasks": [{"function_id": name, "kwargs": arguments}],
        },
        "ResultPath": f"$.{name}",
        "WaitTime": 600,
        "ExceptionOnActionFailure": True,
        "Catch": CATCH,
        "Next": following,
    }


# It has fields of the names that the build uses too.
HOST: dict[str, Any] = {
    "StartAt": "settings",
    "States": {
        "settings": {
            "Type": "Pass",
            "Parameters": {"build_endpoint": "mine", "functions": "mine"},
            "ResultPath": "$.settings",
            "Next": "Prepare",
        },
        "Prepare": compute("prepare", "Analyse", **{"sample.$": "$.sample"}),
        "Analyse": compute(
            "analyse",
            "Happy",
            **{
                "image.$": "$.container.path",
                "mine.$": "$.settings.build_endpoint",
                "before.$": "$.prepare.details.result[0].sample",
            },
        ),
        "Happy": {"Type": "Pass", "Parameters": {"yes": True}, "ResultPath": "$.end", "End": True},
        "Sorry": {"Type": "Fail", "Error": "Sorry", "Cause": "The host's own failure."},
    },
}

BUILD_BROKE = {
    "Type": "Pass",
    "Parameters": {"why.$": "$.build_failure.cause", "what.$": "$.build_failure.error"},
    "ResultPath": "$.told",
    "Next": "Sorry",
}


@pytest.fixture
def functions(compute: ScriptedProvider) -> Functions:
    found = Functions(compute)
    found.answers = {"prepare": {"sample": "s1"}, "analyse": {"peaks": 3}}
    return found


def composed(**options: Any) -> Composition:
    schema = json.loads((FLOW / "input_schema.json").read_text())
    part = Part(deployed(), schema, "container")
    states = {**HOST["States"], **({"BuildBroke": BUILD_BROKE} if "on_failure" in options else {})}
    host = {**HOST, "States": states}
    return compose(host, part, **{"before": "Analyse", "schema": SCHEMA, **options})


def run(globus: FlowsServer, larger: Composition, body: dict[str, Any]) -> dict[str, Any]:
    flow_id = globus.flow(larger.definition, larger.input_schema)
    return globus.settled(globus.flow_client(flow_id).run_flow(body)["run_id"])


BODY = {"sample": "s1", "container_spec": SPEC}


@pytest.mark.parametrize("place", [{"before": "Analyse"}, {"after": "Prepare", "before": None}])
def test_the_host_goes_on_with_the_container(
    server: FlowsServer, functions: Functions, place: dict[str, Any]
) -> None:
    done = run(server, composed(**place), BODY)
    assert done["status"] == "SUCCEEDED", done["details"]
    assert functions.called == [
        *("prepare", "render_recipe", "build_image", "verify_image", "register_container"),
        "analyse",
    ]
    assert functions.arguments("analyse") == {
        "image": "/images/x.sif",
        "mine": "mine",
        "before": "s1",
    }
    output = done["details"]["output"]
    assert output["settings"] == {"build_endpoint": "mine", "functions": "mine"}
    assert output["container"]["container_id"] == "c1"
    assert set(output) == {
        *("sample", "container_spec", "settings", "prepare", "analyse", "container", "Build", "end")
    }
    assert output["Build"] == {"done": True}, "the build's own document is let go"


def build_calls(functions: Functions) -> list[Any]:
    calls = []
    for name, arguments, body in functions.calls:
        if name in OUTPUTS:
            calls.append((name, {**arguments, "run_id": ""}, body["user_endpoint_config"]))
    return calls


STAGING = {"collection_id": COLLECTION, "collection_path": "/runs/1/", "path": "/data/runs/1"}
TRACEBACK = ("FAILED", {"result": ["ValueError: no such thing"], "results": []})
NO = {"ok": False, "error": {"code": "no_such_thing", "message": "no"}}
WAYS: dict[str, dict[str, Any]] = {
    "built": {},
    "cached": {"render_recipe": {"cached": True, "container_id": "c1"}},
    "payload": {"render_recipe": {"payload_kind": "collection", "staging": STAGING}},
    "fetched before": {
        "render_recipe": {"payload_kind": "git"},
        "fetch_payload": {"cached": True, "container_id": "c1"},
    },
    "another run's": {"build_image": {"cached": True, "container_id": "c1"}},
    **{f"{name} says no": {name: NO} for name in OUTPUTS if name != "report_failure"},
    **{f"{name} raises": {name: TRACEBACK} for name in OUTPUTS},
    "dead": {name: refused("endpoint is not online") for name in OUTPUTS},
}


@pytest.mark.parametrize("way", WAYS)
def test_the_functions_are_called_as_without_a_host(
    server: FlowsServer, compute: ScriptedProvider, transfer: ScriptedProvider, way: str
) -> None:
    spec = {**SPEC, "tag": "v1", "labels": {"a": "b"}, "environment": {"A": "$HOME"}}
    spec["payload_collection"] = {"id": ENDPOINT, "path": "/x"}
    schema = json.loads((FLOW / "input_schema.json").read_text())
    seen = []
    for definition, given, body in (
        (deployed(), schema, spec),
        (
            composed().definition,
            composed().input_schema,
            {"sample": "s1", "container_spec": spec},
        ),
    ):
        compute.reset()
        functions = Functions(compute)
        functions.answers = {"prepare": {"sample": "s1"}, "analyse": {}}
        for name, answer in WAYS[way].items():
            is_whole = not isinstance(answer, dict) or answer is NO
            functions.answers[name] = answer if is_whole else {**OUTPUTS[name], **answer}
        done = run(server, Composition(definition, given), body)
        details = done["details"]
        causes = (details.get("error"), details.get("cause"))
        seen.append((build_calls(functions), done["status"], causes if causes[0] else None))
    alone, inside = (re.sub(r"action-\d+", "action", json.dumps(item)) for item in seen)
    assert alone == inside.replace('"state_name": "Build', '"state_name": "')
    assert seen[0][0], "the scenario calls functions of the build"


def test_a_failed_build_can_be_caught_with_its_sentence(
    server: FlowsServer, functions: Functions
) -> None:
    functions.fails("build_image", "no_such_thing")
    done = run(server, composed(on_failure="BuildBroke"), BODY)
    assert done["details"]["cause"] == "The host's own failure."
    (told,) = [
        entry["details"]["output"]
        for entry in server.log(done["run_id"])
        if entry["details"].get("state_name") == "BuildBroke" and entry["code"] == "PassCompleted"
    ]
    assert told == {"why": "It went wrong. Do this.", "what": "ContainerBuildFailed"}


def test_a_dead_endpoint_is_caught_too(server: FlowsServer, functions: Functions) -> None:
    functions.answers |= {name: refused("endpoint is not online") for name in OUTPUTS}
    done = run(server, composed(on_failure="BuildBroke"), BODY)
    assert done["details"]["cause"] == "The host's own failure."
    assert "BuildBroke" in server.states(done["run_id"])


def test_a_failed_build_without_a_catcher_fails_the_run_with_its_sentence(
    server: FlowsServer, functions: Functions
) -> None:
    functions.fails("verify_image", "no_such_thing")
    done = run(server, composed(), BODY)
    assert done["details"]["error"] == "ContainerBuildFailed"
    assert done["details"]["cause"] == "It went wrong. Do this."
    assert "analyse" not in functions.called


def test_the_spec_may_be_the_hosts_own(server: FlowsServer, functions: Functions) -> None:
    template = {
        "name.$": "$.sample",
        "base": {"image": "python:3.11-slim"},
        "tag.=": "'v' + sample",
    }
    done = run(server, composed(inputs=template), {"sample": "s1"})
    assert done["status"] == "SUCCEEDED", done["details"]
    spec = functions.arguments("render_recipe")["spec"]
    assert (spec["name"], spec["tag"], spec["pip"]) == ("s1", "vs1", [])


def test_a_path_may_lead_to_the_spec(server: FlowsServer, functions: Functions) -> None:
    functions.answers["prepare"] = {"sample": "s1", "spec": SPEC}
    larger = composed(inputs="$.prepare.details.result[0].spec")
    done = run(server, larger, {"sample": "s1"})
    assert done["status"] == "SUCCEEDED", done["details"]
    assert functions.arguments("render_recipe")["spec"]["pip"] == ["pandas"]


def test_a_run_cannot_name_the_builds_functions(server: FlowsServer, functions: Functions) -> None:
    """Not even where the host's schema lets everything through."""
    larger = composed()
    settings = {"functions": {"render_recipe": "mine"}}
    body = {**BODY, "Build": {"settings": settings, "input": {"name": "x"}}, "settings": settings}
    body["container_spec"] = {**SPEC, "settings": settings}
    done = run(server, Composition(larger.definition, {}), body)
    assert done["status"] == "SUCCEEDED", done["details"]
    assert functions.called[1] == "render_recipe"
    assert functions.arguments("render_recipe")["spec"]["name"] == "pandas"


def test_two_builds_in_one_flow(server: FlowsServer, functions: Functions) -> None:
    schema = json.loads((FLOW / "input_schema.json").read_text())
    part = Part(deployed(), schema, "container")
    first = compose(HOST, part, before="Prepare", schema=SCHEMA, prefix="One", output="$.one",
                    input_property="first")  # fmt: skip
    both = compose(first.definition, part, before="Analyse", schema=first.input_schema)
    done = run(server, both, {"sample": "s1", "first": {**SPEC, "name": "other"}, **BODY})
    assert done["status"] == "SUCCEEDED", done["details"]
    names = [kwargs["spec"]["name"] for name, kwargs, _ in functions.calls if "spec" in kwargs]
    assert names == ["other", "pandas"]
    assert {"one", "container"} <= set(done["details"]["output"])


@pytest.mark.parametrize("fails", [None, "register_container", "fetch_payload"])
def test_a_host_has_60_kb_for_itself_beside_the_largest_spec(
    server: FlowsServer, functions: Functions, fails: str | None
) -> None:
    spec: dict[str, Any] = {**SPEC, "payload_collection": {"id": ENDPOINT, "path": "/x"}}
    spec["commands"] = ["x" * 1000] * 30
    spec["commands"].append("x" * (MAX_SPEC_BYTES - len(json.dumps(spec)) - 20))
    assert MAX_SPEC_BYTES - 100 < len(json.dumps(spec)) <= MAX_SPEC_BYTES
    for name, output in OUTPUTS.items():
        # more than the functions return; tests/functions/test_sizes.py measures them
        functions.answers[name] = {**output, "ballast": "x" * 3000}
    functions.answers["render_recipe"]["payload_kind"] = "git"
    functions.answers["prepare"] = {"sample": "s1"}
    if fails is not None:
        functions.answers[fails] = {
            "ok": False,
            "error": {"log_tail": "x" * (MAX_RESULT_BYTES - 200)},
        }
    done = run(server, composed(), {"sample": "s" * 60_000, "container_spec": spec})
    if fails is None:
        assert done["status"] == "SUCCEEDED", done["details"]
    else:
        assert done["details"]["cause"] == "It went wrong. Do this."


@pytest.mark.parametrize(
    ("expression", "moved"),
    [
        ("a + b.c", "P.a + P.b.c"),
        ("items", "P['items']"),
        ("[x.y for x in xs if x.y != a]", "[x.y for x in P.xs if x.y != P.a]"),
        ("getattr('a.b', default=c)", "getattr('P.a.b', default=P.c)"),
        ("is_present(\"$['x y'].z\")", "is_present('$.P[\\'x y\\'].z')"),
        ("`$.a.b` + _context.run_id", "`$.P.a.b` + _context.run_id"),
        ("'a' + str(len(a)) if a else None", "'a' + str(len(P.a)) if P.a else None"),
        ("'é' + a", "'é' + P.a"),
        ("a.rstrip('/').split(b)[0]", "P.a.rstrip('/').split(P.b)[0]"),
        ("{'k': a, b: [c]}", "{'k': P.a, P.b: [P.c]}"),
        ("result.path", "out.there.path"),
    ],
)
def test_expressions_mean_the_same_inside_a_host(
    server: FlowsServer, expression: str, moved: str
) -> None:
    places = Places(("P",), {"result": ("out", "there")})
    state = {"Type": "ExpressionEval", "Parameters": {"v.=": expression}, "ResultPath": "$.v"}
    assert rewritten(state, places, {})["Parameters"] == {"v.=": moved}
    assert rewritten(state, places, {})["ResultPath"] == "$.P.v"
    values = {"a": "t", "b": {"c": "u"}, "items": [1], "xs": [{"y": 1}], "c": "w", "x y": {"z": 1}}
    values["result"] = {"path": "p"}
    if "a.b" in expression:
        values["a"] = {"b": "t"}
    if "b: " in expression or "split" in expression:
        values["b"] = "/"
    inside = {"P": values, "out": {"there": values["result"]}}
    answers = []
    for text, body in ((expression, values), (moved, inside)):
        one = {"Type": "ExpressionEval", "Parameters": {"v.=": text}, "End": True}
        flow = {"StartAt": "One", "States": {"One": {**one, "ResultPath": "$.answer"}}}
        done = server.run(flow, body)
        assert done["status"] == "SUCCEEDED", done["details"]
        answer = done["details"]["output"]["answer"]["v"]
        answers.append("t" + "run" if "_context" in text else answer)
    assert answers[0] == answers[1]
