"""A service that is killed goes on where it was."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import globus_sdk
import pytest
from flow_testing import COMPUTE, FlowsServer, ScriptedProvider, action, one_state, serving

from cib_flows.local.actions import ActionRequest, ActionStatus

PASS = {"Type": "Pass", "End": True}
TWO_ACTIONS = one_state(
    action(Parameters={"n": 1}, Next="Second"), Second=action(Parameters={"n": 2})
)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def begin(
    server: FlowsServer, monkeypatch: pytest.MonkeyPatch, definition: dict[str, Any], **body: Any
) -> str:
    monkeypatch.setenv("GLOBUS_SDK_SERVICE_URL_FLOWS", server.url)
    return server.begin(definition, body)


def second_is_held(body: dict[str, Any]) -> Any:
    return None if body["n"] == 2 else {"n": body["n"]}


def test_a_pending_action_is_asked_for_and_a_finished_one_never_repeated(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = ScriptedProvider(second_is_held)
    with serving(database, {COMPUTE: provider}) as server:
        run_id = begin(server, monkeypatch, TWO_ACTIONS)
        assert until(lambda: len(provider.statuses) == 2)
    with serving(database, {COMPUTE: provider}) as server:
        assert until(lambda: provider.asked == ["action-1"])
        provider.finish("action-1", details={"done": True})
        run = server.settled(run_id)
        assert run["status"] == "SUCCEEDED"
        assert run["details"]["output"]["result"]["details"] == {"done": True}
        assert [request.body["n"] for request in provider.requests] == [1, 2]
        assert server.states(run_id) == ["Only", "Second"]


def test_an_action_that_ended_meanwhile_is_taken_up(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = ScriptedProvider(second_is_held)
    with serving(database, {COMPUTE: provider}) as server:
        run_id = begin(server, monkeypatch, TWO_ACTIONS)
        assert until(lambda: len(provider.statuses) == 2)
    provider.finish("action-1", "FAILED", {"description": "broke while nobody looked"})
    with serving(database, {COMPUTE: provider}) as server:
        assert "broke while nobody looked" in server.settled(run_id)["details"]["description"]


class _NeverAnswers(ScriptedProvider):
    """Starts the action, but is killed before it can say so."""

    async def run(self, request: ActionRequest) -> ActionStatus:
        started = await super().run(request)
        return await self.wait(started.action_id)


def test_an_action_that_was_being_started_is_started_with_the_same_request(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _NeverAnswers(lambda body: None)
    with serving(database, {COMPUTE: first}) as server:
        run_id = begin(server, monkeypatch, one_state(action()))
        assert first.begun.wait(10)
    second = ScriptedProvider()
    with serving(database, {COMPUTE: second}) as server:
        assert server.settled(run_id)["status"] == "SUCCEEDED"
    assert [r.request_id for r in first.requests] == [r.request_id for r in second.requests]


def test_the_same_state_entered_again_is_another_request(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = ScriptedProvider()
    loop = one_state(
        action(Next="Again"),
        Again={
            "Type": "Choice",
            "Choices": [{"Variable": "$.twice", "IsPresent": True, "Next": "End"}],
            "Default": "Mark",
        },
        Mark={"Type": "Pass", "Result": {}, "ResultPath": "$.twice", "Next": "Only"},
        End=PASS,
    )
    with serving(database, {COMPUTE: provider}) as server:
        run_id = begin(server, monkeypatch, loop)
        assert server.settled(run_id)["status"] == "SUCCEEDED"
    assert len({request.request_id for request in provider.requests}) == 2


def test_an_action_that_the_provider_forgot_fails_with_a_sentence(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(database, {COMPUTE: ScriptedProvider(lambda body: None)}) as server:
        run_id = begin(server, monkeypatch, one_state(action()))
        assert until(lambda: server.client().get_run(run_id)["details"]["code"] == "ActionStarted")
    with serving(database, {COMPUTE: ScriptedProvider()}) as server:
        run = server.settled(run_id)
    assert run["status"] == "FAILED"
    assert f"The action provider at {COMPUTE} failed" in run["details"]["description"]


def test_a_wait_goes_on_for_the_time_that_remains(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = one_state({"Type": "Wait", "SecondsPath": "$.s", "End": True})
    with serving(database, {}) as server:
        over = begin(server, monkeypatch, wait, s=0.3)
        long = begin(server, monkeypatch, wait, s=86_400)
    with serving(database, {}) as server:
        assert server.settled(over)["status"] == "SUCCEEDED"
        assert server.client().get_run(long)["status"] == "ACTIVE"
        assert [entry["code"] for entry in server.log(long)] == ["FlowStarted", "WaitStarted"]


def test_a_cancel_that_was_cut_short_is_carried_out(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = ScriptedProvider(lambda body: None)
    with serving(database, {COMPUTE: provider}) as server:
        run_id = begin(server, monkeypatch, one_state(action()))
        assert until(lambda: len(provider.statuses) == 1)
    from cib_flows.local.database import Database
    from cib_flows.local.flows.store import Store

    killed_between = Database(database)
    Store(killed_between).request_cancel(run_id)
    killed_between.close()
    with serving(database, {COMPUTE: provider}) as server:
        assert server.settled(run_id)["details"]["code"] == "FlowCanceled"
    assert provider.cancelled == ["action-0"]


SERVER = """
import sys
sys.path.insert(0, {tests!r})
from flow_testing import COMPUTE, FlowsServer, ScriptedProvider
provider = ScriptedProvider(lambda body: None if body["n"] == 2 else {{"n": body["n"]}})
print(FlowsServer({database!r}, {{COMPUTE: provider}}).url, flush=True)
"""


def test_after_kill_9_every_run_ends_as_it_would_have(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = SERVER.format(tests=str(Path(__file__).parent), database=str(database))
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        monkeypatch.setenv("GLOBUS_SDK_SERVICE_URL_FLOWS", url)
        token = globus_sdk.AccessTokenAuthorizer("alice")
        client = globus_sdk.FlowsClient(authorizer=token)
        flow_id = client.create_flow("T", TWO_ACTIONS, {})["id"]
        runs = [
            globus_sdk.SpecificFlowClient(flow_id, authorizer=token).run_flow({"i": number})[
                "run_id"
            ]
            for number in range(10)
        ]
        assert until(
            lambda: all("Second" in str(client.get_run(run_id)["details"]) for run_id in runs)
        )
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        process.communicate()
    provider = ScriptedProvider(lambda body: {"n": body["n"]})
    for number in range(20):
        # The provider remembers every action, as one with a store of its own would.
        provider.finish(f"action-{number}", details={"n": 2})
    with serving(database, {COMPUTE: provider}) as server:
        for number, run_id in enumerate(runs):
            run = server.settled(run_id)
            assert run["status"] == "SUCCEEDED"
            assert run["details"]["output"]["i"] == number
            assert server.states(run_id) == ["Only", "Second"]
    assert provider.requests == []
    assert len(provider.asked) == 10


def until(holds: Any) -> bool:
    """Wait for something that happens in another thread or process and tells nobody."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.01)
    return False
