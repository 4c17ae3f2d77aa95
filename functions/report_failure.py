"""Every failure of a run ends here: the work area is removed, the log kept, the cause said in one sentence."""

from __future__ import annotations

from typing import Any

from ._shared.caught import caught_failure, transfer_reason
from ._shared.files import tail_of
from ._shared.results import StepFailed, last_bytes, run_step, shorten
from ._shared.run_folder import RunFolder
from ._shared.site import load_site
from ._shared.turns import Turns

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

    Returns ``sentence``, ``cause`` (the sentence, and what to do: what the run ends with), ``failed_step`` and
    ``error``.
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
        return {"sentence": sentence, "cause": _with_hint(error), "failed_step": step, "error": error,
                "run_dir": "", "cleaned": False, "note": failure.message}  # fmt: skip
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
        "cause": _with_hint(error),
        "failed_step": step,
        "error": error,
        "run_dir": folder.path,
        "cleaned": cleaned,
    }
    folder.write("result.json", result)
    folder.set_status("finished", step, "failed", 100, f"failed: {result['sentence']}")
    return result


def _with_hint(error: dict[str, str]) -> str:
    """For those who see nothing but the run's page."""
    return f"{error['message']} {error['hint']}".rstrip()


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
        reason = transfer_reason(transfer)
        text = f": {shorten(reason, 300)}" if reason else ""
        return "transfer_payload", StepFailed(
            "transfer_failed",
            f"Globus Transfer could not bring the payload{text}.",
            "Check 'payload_collection' and that you may read it; the run's log holds the whole answer.",
        ).as_json()
    failed = _next_step(done, transfer is not None)
    return failed, caught_failure(caught, STEPS[failed]).as_json()


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
