"""What ``doctor`` makes of the answers, or of none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cib_flows import doctor
from cib_flows.cli import main
from cib_flows.errors import ServiceError

Answer = Callable[[str], dict[str, Any]]


class Deployed:
    flow_id = "flow-1"
    build_endpoint = "endpoint-1"

    def function_id(self, name: str) -> str:
        return f"id-of-{name}"


def point(state: str, name: str = "engine") -> dict[str, str]:
    return {"name": name, "state": state, "found": f"It is {state}.", "todo": "Mend it."}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Every question: the endpoint, and what was sent with it. All answers are green."""
    answer_with(monkeypatch, lambda part: {"ok": True, "points": [point("green")]})
    calls: list[tuple[str, dict[str, Any]]] = []
    inner = doctor.call_function

    def call(
        globus: Any, name: str, function: str, endpoint: str, config: Any, given: Any, **more: Any
    ) -> Any:
        calls.append((endpoint, {"config": config, **given, **more}))
        return inner(globus, name, function, endpoint, config, given, **more)

    monkeypatch.setattr(doctor, "call_function", call)
    return calls


def answer_with(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    class Globus:
        profile = "local"

    def call(
        globus: Any, name: str, function: str, endpoint: str, config: Any, given: Any, **_: Any
    ) -> Any:
        return {"host": "node7", "versions": {"parsl": "1"}, **answer(given["part"])}

    monkeypatch.setattr("cib_flows.profiles.connect", lambda *_: Globus())
    monkeypatch.setattr(doctor, "ensure_deployed", lambda globus, say: Deployed())
    monkeypatch.setattr(doctor, "call_function", call)


def run(*options: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *options])


def test_each_profile_is_asked_on_its_own_nodes(asked: list[tuple[str, dict[str, Any]]]) -> None:
    assert run("--wait", "7").exit_code == 0
    assert [(endpoint, given["config"], given["part"]) for endpoint, given in asked] == [
        ("endpoint-1", {"profile": "control"}, "control"),
        ("endpoint-1", {"profile": "build"}, "build"),
    ]
    assert {given["timeout_s"] for _, given in asked} == {7.0}


def test_another_endpoint_may_be_asked(asked: list[tuple[str, dict[str, Any]]]) -> None:
    other = "01234567-89ab-cdef-0123-456789abcdef"
    run("--endpoint", other)
    assert {endpoint for endpoint, _ in asked} == {other}


@pytest.mark.parametrize(("state", "code"), [("green", 0), ("yellow", 0), ("red", 1)])
def test_only_red_is_a_failure(state: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(
        monkeypatch, lambda part: {"ok": True, "points": [point("green", "a"), point(state)]}
    )
    told = run()
    assert told.exit_code == code
    assert "build on node7" in told.output
    assert ("Mend it." in told.output) == (state != "green")
    document = json.loads(run("--json").stdout)
    assert document["ok"] is (code == 0)
    assert [report["state"] for report in document["reports"]] == ["green", state, state]


def test_a_node_that_does_not_answer_is_red_and_the_others_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(part: str) -> dict[str, Any]:
        if part == "build":
            raise ServiceError(
                "The endpoint has not run check_endpoint within 600 s.", "Long queue?"
            )
        return {"ok": True, "points": [point("green")]}

    answer_with(monkeypatch, answer)
    told = run()
    assert told.exit_code == 1
    assert "control on node7\n  green   engine: It is green." in told.output
    assert "red     endpoint: The endpoint has not run check_endpoint within 600 s." in told.output
    assert "Long queue?" in told.output


def test_a_function_that_could_not_look_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    error = {"message": "The site has no storage.", "hint": "Ask for some."}
    answer_with(monkeypatch, lambda part: {"ok": False, "error": error})
    assert "red     endpoint: The site has no storage." in run().output


def test_a_globus_out_of_reach_is_a_red_point(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(globus: Any, say: Any) -> Any:
        raise ServiceError("Globus Flows does not answer.", "Is the local Globus running?")

    answer_with(monkeypatch, lambda part: {"ok": True, "points": []})
    monkeypatch.setattr(doctor, "ensure_deployed", fail)
    told = run()
    assert told.exit_code == 1
    assert "red     deployment: Globus Flows does not answer." in told.output
