"""Every failure of a run ends here: the work area is removed, the log kept, the cause said in one sentence."""

from __future__ import annotations

import json
from typing import Any

from ._shared.files import tail_of
from ._shared.results import StepFailed, last_bytes, run_step, shorten
from ._shared.run_folder import RunFolder
from ._shared.site import load_site
from ._shared.turns import Turns

# What Globus Compute says when a task's worker is gone, or no job could be started for it.
LOST_WORKERS = ("ManagerLost", "WorkerLost", "TooManyJobFailures", "TASK_LOST", "BadStateException")
STEPS = {
    "render_recipe": "The recipe could not be made",
    "transfer_payload": "The payload could not be transferred",
    "fetch_payload": "The payload could not be fetched",
    "build_image": "The image could not be built",
    "verify_image": "The image was built but did not pass its verification",
    "register_container": "The image could not be registered",
}


def report_failure(
    run_id: str, caught: Any, transfer: Any, outputs: list[dict[str, Any]]
) -> dict[str, Any]:
    """``caught`` is the error that a flow state caught, or None; ``transfer`` the Transfer action's status
    document, or None; ``outputs`` what each step returned, in order.

    Returns ``sentence``, ``failed_step`` and ``error``.
    """
    return run_step("report_failure", lambda: _report(run_id, caught, transfer, outputs))


def _report(
    run_id: str, caught: Any, transfer: Any, outputs: list[dict[str, Any]]
) -> dict[str, Any]:
    step, error = _cause(caught, transfer, outputs)
    sentence = error["message"]
    try:
        site = load_site()
        folder = RunFolder(site["root"], run_id)
    except StepFailed as failure:
        # the first failure may be that very thing, which must still be told
        return {"sentence": sentence, "failed_step": step, "error": error, "run_dir": "",
                "cleaned": False, "note": failure.message}  # fmt: skip
    folder.create()
    if folder.is_aborted() and error["code"] == "internal":
        error = StepFailed("aborted", "The build was stopped on request.").as_json()
        sentence = error["message"]
    if not error["log_path"] and tail_of(folder.log, 1):
        error["log_path"] = folder.log
    if not error["log_tail"]:
        error["log_tail"] = last_bytes(tail_of(folder.log, 4000), 2000)
    cleaned = folder.clean_work(site)
    try:
        Turns(site["root"], folder).release(folder.read("plan.json").get("build_digest"))
    except (OSError, ValueError):
        pass  # the run failed before it had a plan, so it held nothing
    result = {
        "sentence": sentence,
        "failed_step": step,
        "error": error,
        "run_dir": folder.path,
        "cleaned": cleaned,
    }
    folder.write("result.json", result)
    folder.set_status("finished", step, "failed", 100, f"failed: {result['sentence']}")
    return result


def _cause(caught: Any, transfer: Any, outputs: list[dict[str, Any]]) -> tuple[str, dict[str, str]]:
    """The first step that failed, and why. The keys of a caught error are not documented: it is read as text."""
    done: dict[str, dict[str, Any]] = {}
    for entry in outputs:
        output = entry.get("output")
        if isinstance(output, dict) and output.get("ok") is True:
            done[entry["step"]] = output
        elif isinstance(output, dict) and isinstance(output.get("error"), dict):
            error = {key: str(output["error"].get(key, "")) for key in
                     ("code", "message", "hint", "log_path", "log_tail")}  # fmt: skip
            return entry["step"], error
    if isinstance(transfer, dict) and transfer.get("status") != "SUCCEEDED":
        details = transfer.get("details")
        reason = ""
        if isinstance(details, dict):
            fatal = details.get("fatal_error") or {}
            reason = str(
                (fatal.get("description") if isinstance(fatal, dict) else "")
                or details.get("nice_status_details")
                or details.get("nice_status_short_description")
                or details.get("nice_status")
                or details.get("description")
                or ""
            )
        text = f": {shorten(reason, 300)}" if reason else ""
        return "transfer_payload", StepFailed(
            "transfer_failed",
            f"Globus Transfer could not bring the payload{text}.",
            "Check 'payload_collection' and that you may read it; the run's log holds the whole answer.",
        ).as_json()
    failed = _next_step(done, transfer is not None)
    text = caught if isinstance(caught, str) else json.dumps(caught)
    if caught and "ActionTimeout" in text:
        return failed, StepFailed(
            "time_limit",
            f"{STEPS[failed]}: the step did not finish within the flow's waiting time.",
            "The endpoint may be offline or its queue very long; check it and start the run again.",
        ).as_json()
    if caught and any(word in text for word in LOST_WORKERS):
        never = "TooManyJobFailures" in text
        return failed, StepFailed(
            "worker_lost",
            f"{STEPS[failed]}: the batch job or worker "
            + (
                f"could not be started: {_lost_because(text)}"
                if never
                else "ended before the step did, by its walltime, a cancel or a failed node."
            ),
            "Start the run again; if it happens again, the endpoint's administrator finds more in the "
            "scheduler's records.",
        ).as_json()
    if caught and "ActionUnableToRun" in text:
        return failed, StepFailed(
            "internal",
            f"{STEPS[failed]}: the Globus action could not be started: {_reason(text)}",
            "Check that the endpoint is online and that you may use it.",
        ).as_json()
    return failed, StepFailed(
        "internal",
        f"{STEPS[failed]} because of an unexpected error: {_reason(text)}",
        "This is likely a bug; please report it with the run's log.",
        log_tail=text,
    ).as_json()


def _next_step(done: dict[str, dict[str, Any]], transferred: bool) -> str:
    """The step that the run had reached: the first of its way that has left no output."""
    rendered = done.get("render_recipe", {})
    kind = rendered.get("payload_kind")
    way = ["render_recipe"]
    if not rendered.get("cached"):
        if kind == "collection" and not transferred:
            way.append("transfer_payload")
        if kind != "none":
            way.append("fetch_payload")
        if not done.get("fetch_payload", {}).get("cached"):
            way += ["build_image", "verify_image"]
    way.append("register_container")
    return next((step for step in way if step not in done), way[-1])


def _lost_because(text: str) -> str:
    """What the scheduler or the job's script said, from the text of Parsl's error."""
    lines = [line.strip() for line in text.replace("\\n", "\n").replace("\\t", " ").splitlines()]
    for line in lines:
        found = line.partition("STDERR:")[2].strip() or line.partition("error:")[2].strip()
        if found:
            return shorten(found, 300)
    return "the endpoint's log says why."


def _reason(text: str) -> str:
    """The most telling line of an error's text: a traceback's last, else its beginning."""
    lines = [line.strip() for line in text.replace("\\n", "\n").splitlines() if line.strip()]
    for line in reversed(lines):
        if "Error" in line or "Exception" in line:
            return shorten(line.strip('"{} '), 300)
    return shorten(lines[0], 300) if lines else "no reason given"
