"""Says in one sentence why one destination of a publication did not get its container."""

from __future__ import annotations

from typing import Any

from ._shared.caught import caught_failure, transfer_reason
from ._shared.results import StepFailed, run_step, shorten
from ._shared.run_folder import RunFolder

DELIVERY_STEPS = {
    "expect_container": "The site could not be asked to take the container",
    "transfer_image": "The container could not be transferred",
    "receive_container": "The container arrived and could not be registered",
}


def report_delivery(
    run_id: str, caught: Any, transfer: Any, outputs: list[dict[str, Any]], is_agreed: bool = True
) -> dict[str, Any]:
    """``caught`` is the error that a flow state caught, or None; ``transfer`` the Transfer action's status
    document, or None; ``outputs`` what each step at the destination returned, in order; ``is_agreed`` whether the
    destination's staging lies where the run's input allows it.

    Runs at the source, since the destination may be what failed. Returns ``sentence``, ``code``, ``hint`` and
    ``failed_step``.
    """
    return run_step(
        "report_delivery", lambda: _explain(run_id, caught, transfer, outputs, is_agreed)
    )


def _explain(
    run_id: str, caught: Any, transfer: Any, outputs: list[dict[str, Any]], is_agreed: bool
) -> dict[str, Any]:
    RunFolder("/", run_id)  # refuses what is no run
    step, error = _why(caught, transfer, outputs, is_agreed)
    return {
        "failed_step": step,
        "sentence": shorten(error["message"], 600),
        "code": error["code"],
        "hint": shorten(error["hint"], 300),
    }


def _why(
    caught: Any, transfer: Any, outputs: list[dict[str, Any]], is_agreed: bool
) -> tuple[str, dict[str, str]]:
    reached = "expect_container"
    for entry in outputs:
        output = entry.get("output")
        if isinstance(output, dict) and output.get("ok") is True:
            reached = "transfer_image" if not output.get("present") else "receive_container"
        elif isinstance(output, dict) and isinstance(output.get("error"), dict):
            error = {key: str(output["error"].get(key, "")) for key in ("code", "message", "hint")}
            return str(entry["step"]), error
    if not is_agreed:
        return "expect_container", StepFailed(
            "site_invalid",
            "The site's staging is not where the destination's collection allows files to go.",
            "Leave the collection out, or name the site's own and a folder that holds its staging.",
        ).as_json()
    if isinstance(transfer, dict) and transfer.get("status") != "SUCCEEDED":
        reason = transfer_reason(transfer)
        text = f": {shorten(reason, 300)}" if reason else "."
        return "transfer_image", StepFailed(
            "transfer_failed",
            f"{DELIVERY_STEPS['transfer_image']}{text}",
            "Check that you may read from the source's collection and write to the destination's; the run's log "
            "holds the whole answer.",
        ).as_json()
    if isinstance(transfer, dict):
        reached = "receive_container"
    return reached, caught_failure(caught, DELIVERY_STEPS[reached]).as_json()
