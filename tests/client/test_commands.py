"""The commands against globus.org, at the wire: what is printed, where, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import responses
from click.testing import CliRunner, Result
from responses import matchers

from cib_flows.cli import main
from cib_flows.deployment_record import save_deployment
from cib_flows.profiles import Globus
from cib_flows.runs import BuildRun

from .conftest import BUILD_ENDPOINT
from .test_runs import (
    COMPUTE,
    CONTAINER,
    DEPLOYMENT,
    FLOW_ID,
    FLOWS,
    RUN_ID,
    completed,
    failing_report,
    log,
    run_document,
    started,
    statuses,
)

__all__ = ["log", "statuses"]  # fixtures


@pytest.fixture
def spec(tmp_path: Path) -> str:
    path = tmp_path / "spec.yaml"
    path.write_text("name: pandas\nbase: {image: 'python:3.11-slim'}\npip: [pandas]\n")
    return str(path)


@pytest.fixture
def deployed(
    globus: Globus, cloud: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch
) -> responses.RequestsMock:
    """A flow that someone else administers, so that it is used as it is."""
    save_deployment(globus, DEPLOYMENT)
    monkeypatch.setenv("CIB_FLOWS_PROFILE", "globus")
    cloud.get(f"{FLOWS}/flows/{FLOW_ID}", json={"id": FLOW_ID, "user_role": "flow_starter"})
    cloud.post(f"{FLOWS}/flows/{FLOW_ID}/run", json=run_document("ACTIVE"))
    cloud.post(
        f"{COMPUTE}/v3/endpoints/{BUILD_ENDPOINT}/submit",
        status=403,
        json={"code": "FUNCTION_NOT_PERMITTED", "message": "not allowed here"},
    )
    return cloud


def cib_flows(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def test_a_build_ends_with_the_container_and_how_to_use_it(
    deployed: responses.RequestsMock, spec: str, statuses: Callable[..., None], log: Any
) -> None:
    log(started("RenderRecipe"), started("BuildImage"))
    statuses(run_document("ACTIVE"), run_document("SUCCEEDED", output={"container": CONTAINER}))
    done = cib_flows("build", spec)
    assert done.exit_code == 0
    for shown in (CONTAINER["container_id"], CONTAINER["path"], "12 B", BUILD_ENDPOINT):
        assert str(shown) in done.stdout
    assert "cib-flows containers exec pandas:latest -- " in done.stdout
    assert f"run {RUN_ID}" in done.stderr
    assert "building the image" in done.stderr


def test_a_narrow_terminal_leaves_paths_and_commands_whole(
    deployed: responses.RequestsMock,
    spec: str,
    statuses: Callable[..., None],
    log: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, as far as rich can tell
    monkeypatch.setenv("COLUMNS", "40")
    log()
    statuses(run_document("SUCCEEDED", output={"container": CONTAINER}))
    shown = cib_flows("build", spec).stdout
    assert "\x1b[" in shown
    assert json.dumps(CONTAINER["executor"]) in shown


def test_no_executor_is_proposed_for_an_image_without_a_worker(
    deployed: responses.RequestsMock, spec: str, statuses: Callable[..., None], log: Any
) -> None:
    Path(spec).write_text("name: pandas\nbase: {image: 'debian:12'}\nworker: none\n")
    log()
    statuses(run_document("SUCCEEDED", output={"container": CONTAINER}))
    done = cib_flows("build", spec)
    assert done.exit_code == 0
    assert 'Container.get("pandas:latest").run(["COMMAND", …])' in done.stdout
    assert "executor" not in done.stdout
    assert "user_endpoint_config" not in done.stdout


def test_with_json_a_build_prints_one_document_and_nothing_else(
    deployed: responses.RequestsMock, spec: str, statuses: Callable[..., None], log: Any
) -> None:
    log()
    statuses(run_document("SUCCEEDED", output={"container": CONTAINER}))
    done = cib_flows("build", spec, "--json")
    document = json.loads(done.stdout)
    assert done.stderr == ""
    assert document["ok"] is True
    assert document["run_id"] == RUN_ID
    assert document["container_id"] == CONTAINER["container_id"]
    assert document["path"] == CONTAINER["path"]
    assert document["executor"] == CONTAINER["executor"]


def test_a_failed_build_exits_with_1_and_says_why_where_and_the_last_lines(
    deployed: responses.RequestsMock, spec: str, statuses: Callable[..., None], log: Any
) -> None:
    usual = "WARNING: While bind mounting '/a:/mnt': destination is already in the mount point list"
    report = failing_report()
    report["log_tail"] = f"{usual}\n{report['log_tail']}"
    log(started("BuildImage"), completed("ReportFailure", report))
    statuses(run_document("FAILED", code="FlowFailed"))
    done = cib_flows("build", spec)
    assert done.exit_code == 1
    assert done.stdout == ""
    for said in (
        "Error: The package pandsa does not exist.",
        "Hint: Check its name.",
        "  ERROR: No matching distribution found for pandsa",
        "Log: /r/build.log",
        f"Run: {RUN_ID}",
    ):
        assert said in done.stderr.splitlines()
    assert "While bind mounting" not in done.stderr
    as_json = cib_flows("build", spec, "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["failure"]["code"] == "pip_package_not_found"


def test_an_interrupted_build_goes_on_and_says_how_to_come_back(
    deployed: responses.RequestsMock,
    spec: str,
    statuses: Callable[..., None],
    log: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log()
    statuses(run_document("ACTIVE"))

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    done = cib_flows("build", spec)
    assert done.exit_code == 130
    assert f"'cib-flows wait {RUN_ID}'" in done.stderr
    assert f"'cib-flows cancel {RUN_ID}'" in done.stderr
    assert not [call for call in deployed.calls if call.request.url.endswith("/cancel")]
    told = json.loads(cib_flows("build", spec, "--json").stdout)
    assert (told["ok"], told["run_id"]) == (False, RUN_ID)
    assert "goes on" in told["error"]["message"]


def test_a_build_that_waits_for_a_consent_exits_with_1_and_the_command_to_go_on(
    deployed: responses.RequestsMock, spec: str, statuses: Callable[..., None], log: Any
) -> None:
    log()
    statuses(run_document("INACTIVE", code="ConsentRequired"))
    done = cib_flows("build", spec)
    assert done.exit_code == 1
    assert f"cib-flows resume {RUN_ID}" in done.stderr


def test_options_reach_the_flows_input(deployed: responses.RequestsMock, spec: str) -> None:
    done = cib_flows(
        "start", spec, "--force", "--label", "mine", "--run-endpoint", FLOW_ID, "--json"
    )
    assert json.loads(done.stdout) == {"ok": True, "run_id": RUN_ID}
    sent = json.loads(
        next(call for call in deployed.calls if str(call.request.url).endswith("/run")).request.body
        or b""
    )
    assert sent["label"] == "mine"
    assert sent["body"]["force"] is True
    assert sent["body"]["run_endpoint"] == FLOW_ID
    assert "build_endpoint" not in sent["body"]


def test_start_prints_the_runs_id_alone(deployed: responses.RequestsMock, spec: str) -> None:
    assert cib_flows("start", spec).stdout == f"{RUN_ID}\n"


def test_runs_are_listed_newest_first_over_pages(deployed: responses.RequestsMock) -> None:
    older = {**run_document("FAILED"), "run_id": FLOW_ID, "label": "older:latest"}
    question = {"filter_flow_id": FLOW_ID, "orderby": "start_time DESC"}
    for marker, run, following in (("", run_document("ACTIVE"), "more"), ("more", older, None)):
        deployed.get(
            f"{FLOWS}/runs",
            json={"runs": [run], "marker": following, "has_next_page": following is not None},
            match=[
                matchers.query_param_matcher({**question, **({"marker": marker} if marker else {})})
            ],
        )
    shown = cib_flows("runs").stdout.splitlines()
    assert [line.split()[:2] for line in shown] == [[RUN_ID, "ACTIVE"], [FLOW_ID, "FAILED"]]
    assert [line.split()[-1] for line in shown] == ["pandas:latest", "older:latest"]
    told = json.loads(cib_flows("runs", "--limit", "1", "--json").stdout)
    assert [run["run_id"] for run in told["runs"]] == [RUN_ID]


def test_the_status_of_a_failed_run_is_its_reason(
    deployed: responses.RequestsMock, statuses: Callable[..., None], log: Any
) -> None:
    log(started("BuildImage"), completed("ReportFailure", failing_report()))
    statuses(run_document("FAILED", code="FlowFailed"))
    done = cib_flows("status", RUN_ID)
    assert done.exit_code == 1
    assert done.stdout.endswith("The package pandsa does not exist.\nHint: Check its name.\n")


# in a larger flow the state has a prefix
@pytest.mark.parametrize("state", ["VerifyImage", "BuildVerifyImage"])
def test_the_status_of_a_run_under_way_is_its_step(
    deployed: responses.RequestsMock, statuses: Callable[..., None], log: Any, state: str
) -> None:
    log(started("RenderRecipe"), started(state))
    statuses(run_document("ACTIVE", description="…"))
    done = cib_flows("status", RUN_ID)
    assert done.exit_code == 0
    assert "verifying the image" in done.stdout


def test_logs_are_the_flows_entries(
    deployed: responses.RequestsMock, statuses: Callable[..., None], log: Any
) -> None:
    log(started("RenderRecipe"), started("BuildImage"))
    statuses(run_document("ACTIVE"))
    lines = cib_flows("logs", RUN_ID).stdout.splitlines()
    assert len(lines) == 2
    assert lines[1].endswith("State BuildImage of type Action started")


def test_cancel_says_what_it_did(
    deployed: responses.RequestsMock, statuses: Callable[..., None], log: Any
) -> None:
    log()
    statuses(run_document("ACTIVE"), run_document("ACTIVE"), run_document("SUCCEEDED"))
    deployed.post(f"{FLOWS}/runs/{RUN_ID}/cancel", json=run_document("FAILED"))
    assert cib_flows("cancel", RUN_ID).stdout == f"The run {RUN_ID} is cancelled.\n"
    document = json.loads(cib_flows("cancel", RUN_ID, "--json").stdout)
    assert document == {"ok": True, "run_id": RUN_ID, "cancelled": False}


def test_only_a_paused_run_can_be_resumed(
    deployed: responses.RequestsMock, statuses: Callable[..., None]
) -> None:
    statuses(run_document("SUCCEEDED"))
    done = cib_flows("resume", RUN_ID)
    assert done.exit_code == 2
    assert "only an INACTIVE run" in done.stderr


def test_a_run_of_nobody_exits_with_1(deployed: responses.RequestsMock) -> None:
    deployed.get(f"{FLOWS}/runs/{RUN_ID}", status=404, json={"error": {"code": "NOT_FOUND"}})
    done = cib_flows("wait", RUN_ID)
    assert done.exit_code == 1
    assert done.stderr.startswith("Error: Could not look up the run")


def test_exec_exits_as_the_command_did(
    deployed: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cib_flows import containers
    from cib_flows.containers import CommandResult, Container

    monkeypatch.setattr(
        Container,
        "get",
        lambda reference, globus, endpoint: Container.from_output(globus, CONTAINER),
    )
    seen: list[Any] = []

    def run(
        self: Container, argv: Any, timeout_s: float | None = None, *, gpu: Any, ranks: Any
    ) -> CommandResult:
        assert (gpu, ranks) == (None, None)
        seen.append((tuple(argv), timeout_s))
        return CommandResult(3, "out", "err")

    monkeypatch.setattr(containers.Container, "run", run)
    done = cib_flows("containers", "exec", "--timeout", "5", "pandas", "--", "ls", "-l", "--json")
    assert (done.exit_code, done.stdout, done.stderr) == (3, "out", "err")
    assert seen == [(("ls", "-l", "--json"), 5.0)]


def test_the_old_one_call_api_returns_an_id_or_raises_the_sentence(
    deployed: responses.RequestsMock,
    globus: Globus,
    statuses: Callable[..., None],
    log: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from cib_flows.compat import (
        ImageBuilderException,
        RegisterImageException,
        build_and_register_container,
    )

    class Client:
        app = globus.app

    def build() -> str:
        return build_and_register_container(
            Client(),  # type: ignore[arg-type]
            BUILD_ENDPOINT,
            "My-Image",
            "docker",
            "python:3.11-slim",
            "https://example.org/repo.git",
            ["pandas"],
            None,
            ("git",),  # type: ignore[arg-type]
        )

    log(completed("ReportFailure", failing_report()))
    failed = run_document("FAILED", code="FlowFailed")
    statuses(run_document("SUCCEEDED", output={"container": CONTAINER}))
    assert build() == CONTAINER["container_id"]
    sent = json.loads(
        next(call for call in deployed.calls if str(call.request.url).endswith("/run")).request.body
        or b""
    )["body"]
    assert sent["name"] == "my-image"
    assert sent["pip"] == ["pandas"]
    assert sent["apt"] == ["git"]
    assert sent["payload"]["git"] == "https://example.org/repo.git"
    assert sent["build_endpoint"] == BUILD_ENDPOINT
    deployed.replace("GET", f"{FLOWS}/runs/{RUN_ID}", json=failed)
    with pytest.raises(ImageBuilderException, match="The package pandsa does not exist"):
        build()
    report = {**failing_report(), "failed_step": "verify_image"}
    monkeypatch.setattr(BuildRun, "logs", lambda self: [completed("ReportFailure", report)])
    with pytest.raises(RegisterImageException):
        build()
