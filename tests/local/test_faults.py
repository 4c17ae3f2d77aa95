"""An unruly local Globus, and what the product's own clients make of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import globus_sdk
import pytest
import requests
from globus_sdk.transport import RetryConfig

from cib_flows import ContainerBuilder
from cib_flows.errors import RunFailedError, UsageError
from cib_flows.local.faults import Faults, parse_faults
from cib_flows.profiles import Globus, connect
from cib_flows.services import Pacer, retries

from .conftest import LocalGlobus, value

OwnGlobus = Callable[..., LocalGlobus]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("418=0.5", "'418=0.5' is not KIND"),
        ("503", "'503' is not KIND"),
        ("503=2", "between 0 and 1"),
        ("503=0.1.2", "a number that is none"),
        ("seed=x", "whole number"),
        ("lost-result@/runs=1", "no path"),
    ],
)
def test_a_specification_that_makes_no_sense_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse_faults(text)


def test_the_same_seed_gives_the_same_faults() -> None:
    def story(text: str) -> list[list[str]]:
        faults = Faults(text)
        return [[fault.kind for fault in faults.of_request("/runs")] for _ in range(100)]

    text = "503=0.3,latency:5=0.3,drop=0.2"
    assert story(f"{text},seed=1") == story(f"{text},seed=1")
    assert story(f"{text},seed=1") != story(f"{text},seed=2")


def test_a_fault_keeps_to_its_path() -> None:
    faults = Faults("503@/runs=1")
    assert [fault.kind for fault in faults.of_request("/runs/1")] == ["503"]
    assert not faults.of_request("/flows")


def ask(globus: LocalGlobus, path: str) -> requests.Response:
    headers = {"Authorization": f"Bearer {globus.home.token()}"}
    return requests.get(globus.url + path, headers=headers, timeout=30)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("429:3=1", 429),
        ("500=1", 500),
        ("502=1", 502),
        ("503=1", 503),
        ("504=1", 504),
    ],
)
def test_refusals(own_globus: OwnGlobus, text: str, status: int) -> None:
    globus = own_globus(faults=text)
    answer = ask(globus, "flows")
    assert answer.status_code == status
    assert answer.json()["error"]["detail"], "as Flows says it"
    assert ask(globus, "v0.10/task_list").json()["message"], "as the others do"
    assert answer.headers.get("Retry-After") == ("3" if status == 429 else None)


def test_a_token_that_expired_stays_so(own_globus: OwnGlobus) -> None:
    globus = own_globus(faults="expired=1")
    assert [ask(globus, "flows").status_code for _ in range(3)] == [200, 401, 401]
    # The SDK gets itself a new token, as often as it has to.
    assert [globus.flows.list_flows().http_status for _ in range(3)] == [200] * 3


def test_dropped_and_lost_differ_in_what_was_done(own_globus: OwnGlobus) -> None:
    globus = own_globus(faults="drop@/v2/functions=1,lost@/v3/functions=1")
    headers = {"Authorization": f"Bearer {globus.home.token()}"}
    body = {"function_name": "f", "function_code": "def f(): ...", "serialized": False}
    from cib_flows.local.database import Database

    database = Database(globus.home.database_path)
    for version, registered in ((2, 0), (3, 1)):
        with pytest.raises(requests.ConnectionError):
            requests.post(
                f"{globus.url}v{version}/functions", json=body, headers=headers, timeout=30
            )
        row = database.row("SELECT count(*) AS n FROM compute_functions")
        assert row is not None
        assert row["n"] == registered
    database.close()


ONE = "def one():\n    return 1\n"


def test_lost_and_duplicated_results(own_globus: OwnGlobus) -> None:
    globus = own_globus("lost", faults="lost-result=1")
    assert "lost" in globus.call(ONE)["exception"]
    globus = own_globus("twice", faults="duplicate-result=1")
    assert value(globus.call(ONE)) == 1


def without_pauses(globus: Globus) -> Globus:
    """The same client with the same number of attempts, but hardly a pause between them: no fault here
    passes with time, and a service of one's own limits nobody."""

    def quick_retries() -> RetryConfig:
        config = retries()
        config.max_sleep = 0.05
        return config

    return replace(
        globus, flows_pacer=Pacer(100_000), compute_pacer=Pacer(100_000), retries=quick_retries
    )


def test_a_token_that_expires_while_the_service_is_busy_is_renewed(
    own_globus: OwnGlobus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK's own clients renew one only when the first answer of a call says so."""
    globus = own_globus(faults="503@/flows=0.4,expired@/flows=0.4,seed=3")
    for name, text in globus.environment.items():
        monkeypatch.setenv(name, text)
    client = without_pauses(connect("local", globus.home.path)).flows
    assert [client.list_flows().http_status for _ in range(30)] == [200] * 30


# Fails early and for one reason only: the base image does not exist.
SPEC: dict[str, Any] = {"name": "demo", "base": {"bootstrap": "localimage", "image": "MISSING"}}


@pytest.mark.parametrize(
    "faults",
    [
        "latency:30=0.5",
        "429:1=0.25",
        "500=0.1,502=0.1,503=0.1,504=0.1",
        "drop=0.25",
        "lost=0.2",
        "expired=0.2",
        "duplicate-result=1",
        "latency:50=0.2,429:1=0.05,503=0.05,drop=0.05,lost=0.05,expired=0.05,duplicate-result=0.5",
    ],
)
def test_the_builder_and_its_run_survive(
    own_globus: OwnGlobus, faults: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    globus = own_globus(faults=f"{faults},seed=11")
    for name, text in globus.environment.items():
        monkeypatch.setenv(name, text)
    missing = str(globus.home.path / "containers" / "images" / "missing.sif")
    spec = {**SPEC, "base": {**SPEC["base"], "image": missing}}
    monkeypatch.setattr("cib_flows.runs.pause_after", lambda *_: 0.1)
    builder = ContainerBuilder(globus=without_pauses(connect("local", globus.home.path)))
    run = builder.build(spec)
    events = list(run.watch())
    assert events[-1].status == "FAILED"
    with pytest.raises(RunFailedError) as failed:
        run.result()
    assert missing in str(failed.value)
    listed = globus_sdk.FlowsClient(app=globus.app).list_runs()["runs"]
    assert [found["run_id"] for found in listed] == [run.run_id], "started once"
