# ruff: noqa: E501 - tables read best with one row on one line
"""Every failure of a run, wherever it happened, as one sentence; and what remains of the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cib_flows.functions.abort_build import abort_build
from cib_flows.functions.report_failure import report_failure
from cib_flows.functions.watch_build import watch_build
from tests.functions.conftest import Run, Site

Start = Callable[..., Run]
STEPS = ("render_recipe", "fetch_payload", "build_image", "verify_image", "register_container")


def outputs(**results: dict[str, Any]) -> list[dict[str, Any]]:
    """What the flow hands over: every step in order, None where it left nothing."""
    return [{"step": step, "output": results.get(step)} for step in STEPS]


def rendered(kind: str = "none", cached: bool = False) -> dict[str, Any]:
    return {"ok": True, "step": "render_recipe", "payload_kind": kind, "cached": cached}


def report(run_id: str, caught: Any = None, transfer: Any = None, **results: Any) -> dict[str, Any]:
    result = report_failure(run_id, caught, transfer, outputs(**results))
    assert result["ok"] is True
    assert len(json.dumps(result)) <= 8192
    return result


def test_a_steps_own_failure_is_passed_on_with_its_log(start: Start) -> None:
    run = start()
    (run.work / "image.sif.new").write_text("half")
    (run.folder / "build.log").write_text("first\nlast\n")
    error = {"code": "apt_package_not_found", "message": "No gti.", "hint": "Spell.", "log_path": "/l",
             "log_tail": "tail\n"}  # fmt: skip
    result = report(run.id, render_recipe=rendered(), build_image={"ok": False, "error": error})
    assert (result["sentence"], result["failed_step"]) == ("No gti.", "build_image")
    assert result["cause"] == "No gti. Spell."
    assert result["error"] == error
    assert result["cleaned"] is True
    assert not run.work.exists()
    assert (run.folder / "build.log").read_text() == "first\nlast\n"
    assert json.loads((run.folder / "result.json").read_text())["sentence"] == "No gti."
    assert watch_build(run.id)["state"] == "finished"


def test_the_build_log_is_shown_when_the_failure_brought_none(start: Start) -> None:
    run = start()
    (run.folder / "build.log").write_text("first\nlast\n")
    error = report(run.id, {"Error": "ActionTimeout"}, render_recipe=rendered())["error"]
    assert error["log_path"] == str(run.folder / "build.log")
    assert error["log_tail"] == "first\nlast\n"


@pytest.mark.parametrize(
    ("done", "transfer", "step"),
    [
        ({}, None, "render_recipe"),
        ({"render_recipe": rendered()}, None, "build_image"),
        ({"render_recipe": rendered(cached=True)}, None, "register_container"),
        ({"render_recipe": rendered("https")}, None, "fetch_payload"),
        ({"render_recipe": rendered("collection")}, None, "transfer_payload"),
        ({"render_recipe": rendered("collection")}, {"status": "SUCCEEDED"}, "fetch_payload"),
        ({"render_recipe": rendered("git"), "fetch_payload": {"ok": True, "cached": False}}, None, "build_image"),
        ({"render_recipe": rendered("git"), "fetch_payload": {"ok": True, "cached": True}}, None, "register_container"),
        ({"render_recipe": rendered(), "build_image": {"ok": True}}, None, "verify_image"),
        ({"render_recipe": rendered(), "build_image": {"ok": True}, "verify_image": {"ok": True}}, None, "register_container"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("caught", "code", "words"),
    [
        ({"Error": "ActionTimeout", "Cause": "{}"}, "time_limit", "waiting time"),
        ({"Error": "ActionUnableToRun", "Cause": "403 Forbidden"}, "internal", "could not be started"),
        ('{"Error": "ActionFailedException", "Cause": "Traceback...\\nKeyError: 1"}', "internal", "KeyError: 1"),
    ],
)  # fmt: skip
def test_a_step_that_left_no_output_is_named(
    start: Start, done: dict[str, Any], transfer: Any, step: str, caught: Any, code: str, words: str
) -> None:
    result = report(start().id, caught, transfer, **done)
    assert result["failed_step"] == step
    assert result["error"]["code"] == code
    assert words in result["sentence"]


@pytest.mark.parametrize(
    ("details", "words"),
    [
        ({"nice_status": "PERMISSION_DENIED", "nice_status_details": "No read access"}, "No read access"),
        ({"fatal_error": {"code": "X", "description": "Path not found"}}, "Path not found"),
        ({"nice_status": "ENDPOINT_ERROR"}, "ENDPOINT_ERROR"),
        ({}, "could not bring the payload."),
        (None, "could not bring the payload."),
        ({"fatal_error": "text"}, "could not bring the payload."),
    ],
)  # fmt: skip
def test_a_failed_transfer_is_told_in_its_own_words(start: Start, details: Any, words: str) -> None:
    transfer = {"status": "FAILED", "details": details}
    result = report(start().id, None, transfer, render_recipe=rendered("collection"))
    assert (result["failed_step"], result["error"]["code"]) == (
        "transfer_payload",
        "transfer_failed",
    )
    assert words in result["sentence"]


ABSENT = {
    "status_code": 404,
    "code": "ENDPOINT_NOT_FOUND",
    "message": "Endpoint 1 could not be found",
}


@pytest.mark.parametrize(
    "cause",
    [ABSENT, json.dumps(ABSENT), {"error": ABSENT}, {"errors": json.dumps({"error": ABSENT})}],
)
@pytest.mark.parametrize("is_text", [False, True])
def test_a_service_that_refuses_is_told_in_its_own_words(
    start: Start, cause: Any, is_text: bool
) -> None:
    caught: Any = {"Error": "ActionUnableToRun", "Cause": cause}
    result = report(start().id, json.dumps(caught) if is_text else caught)
    assert result["sentence"].endswith("could not be started: Endpoint 1 could not be found.")


@pytest.mark.parametrize(
    "caught", [None, "", [], 5, {"a": {"b": ["c"]}}, "\ud800", "😀" * 5000, {"Error": None}, "x" * 100_000]
)  # fmt: skip
def test_whatever_was_caught_there_is_a_sentence(start: Start, caught: Any) -> None:
    result = report(start().id, caught)
    assert result["sentence"]
    assert (
        result["sentence"].endswith(".")
        or "..." in result["sentence"]
        or "error" in result["sentence"]
    )


def test_an_abort_is_told_as_such(start: Start) -> None:
    run = start()
    abort_build(run.id)
    caught = {"Error": "ActionFailedException", "Cause": "worker lost"}
    result = report(run.id, caught, render_recipe=rendered())
    assert (result["error"]["code"], result["sentence"]) == (
        "aborted",
        "The build was stopped on request.",
    )


def test_a_broken_site_profile_does_not_hide_the_failure(site: Site, run_id: str) -> None:
    site.path.write_text("{ no json")
    error = {"code": "site_invalid", "message": "The profile is broken.", "hint": ""}
    result = report(run_id, render_recipe={"ok": False, "error": error})
    assert result["sentence"] == "The profile is broken."
    assert result["cleaned"] is False


def test_a_failure_before_the_run_had_a_folder_is_told_too(site: Site, run_id: str) -> None:
    error = {"code": "spec_invalid", "message": "'name' is missing.", "hint": ""}
    result = report(run_id, render_recipe={"ok": False, "error": error})
    assert result["failed_step"] == "render_recipe"
    assert Path(result["run_dir"]).is_dir()


def test_the_staging_place_of_a_failed_run_is_emptied(
    start: Start, site: Site, tmp_path: Path
) -> None:
    staging = tmp_path / "staging"
    site.set(staging={"collection_id": "c", "collection_path": "/", "path": str(staging)})
    collection = {"id": "6c54cade-bde5-45c1-bdea-f4bd71dba2cc", "path": "/x"}
    run = start(payload_collection=collection)
    Path(run.rendered["staging"]["path"]).write_text("half")
    report(run.id, None, {"status": "FAILED"}, render_recipe=run.rendered)
    assert list(staging.iterdir()) == []


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            "parsl.executors.high_throughput.errors.ManagerLost: Task failure due to loss of manager 0c on host n7",
            "The image could not be built: the batch job or worker ended before the step did, by its walltime, "
            "a cancel or a failed node.",
        ),
        (
            "parsl.jobs.errors.TooManyJobFailuresError: Error 1:\n\tEXIT CODE: 1\n\tSTDERR: sbatch: error: "
            "invalid account\n",
            "The image could not be built: the batch job or worker could not be started: sbatch: error: invalid "
            "account",
        ),
    ],
)
def test_a_lost_job_is_told_from_a_bug(said: str, sentence: str, site: Site, run_id: str) -> None:
    caught = {"Error": "ActionFailedException", "Cause": {"details": {"result": [said]}}}
    rendered = {"ok": True, "payload_kind": "none", "cached": False}
    result = report_failure(run_id, caught, None, [{"step": "render_recipe", "output": rendered}])
    assert result["error"]["code"] == "worker_lost"
    assert result["sentence"] == sentence
    assert result["failed_step"] == "build_image"
