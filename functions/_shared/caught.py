"""What an error says that a flow caught. Its keys are not documented: it is read as text."""

from __future__ import annotations

import json
from typing import Any

from .results import StepFailed, shorten

# What Globus Compute says when a task's worker is gone, or no job could be started for it.
LOST_WORKERS = ("ManagerLost", "WorkerLost", "TooManyJobFailures", "TASK_LOST", "BadStateException")


def caught_failure(caught: Any, sentence: str) -> StepFailed:
    """The failure behind a caught error; ``sentence`` says what could not be done, without a full stop."""
    text = caught if isinstance(caught, str) else json.dumps(caught)
    if caught and "ActionTimeout" in text:
        return StepFailed(
            "time_limit",
            f"{sentence}: the step did not finish within the flow's waiting time.",
            "The endpoint may be offline or its queue very long; check it and start the run again.",
        )
    if caught and any(word in text for word in LOST_WORKERS):
        never = "TooManyJobFailures" in text
        return StepFailed(
            "worker_lost",
            f"{sentence}: the batch job or worker "
            + (
                f"could not be started: {_lost_because(text)}"
                if never
                else "ended before the step did, by its walltime, a cancel or a failed node."
            ),
            "Start the run again; if it happens again, the endpoint's administrator finds more in the "
            "scheduler's records.",
        )
    if caught and "ActionUnableToRun" in text:
        return StepFailed(
            "internal",
            f"{sentence}: the Globus action could not be started: {_message(caught) or _reason(text)}",
            "Check that the endpoint is online and that you may use it.",
        )
    return StepFailed(
        "internal",
        f"{sentence} because of an unexpected error: {_reason(text)}",
        "This is likely a bug; please report it with the run's log.",
        log_tail=text,
    )


def transfer_reason(transfer: dict[str, Any]) -> str:
    """Why a Transfer action did not succeed, from its status document; empty where it does not say."""
    details = transfer.get("details")
    if not isinstance(details, dict):
        return ""
    fatal = details.get("fatal_error") or {}
    return str(
        (fatal.get("description") if isinstance(fatal, dict) else "")
        or details.get("nice_status_details")
        or details.get("nice_status_short_description")
        or details.get("nice_status")
        or details.get("description")
        or ""
    )


def _lost_because(text: str) -> str:
    """What the scheduler or the job's script said, from the text of Parsl's error."""
    lines = [line.strip() for line in text.replace("\\n", "\n").replace("\\t", " ").splitlines()]
    for line in lines:
        found = line.partition("STDERR:")[2].strip() or line.partition("error:")[2].strip()
        if found:
            return shorten(found, 300)
    return "the endpoint's log says why."


def _message(value: Any) -> str:
    """The first sentence that a service's answer holds under a name that usually has one; empty without any."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return ""
    if not isinstance(value, dict):
        return ""
    for name in ("message", "detail", "description"):
        if isinstance(value.get(name), str) and value[name].strip():
            return f"{shorten(value[name], 300).rstrip('.')}."
    return next((found for inner in value.values() if (found := _message(inner))), "")


def _reason(text: str) -> str:
    """The most telling line of an error's text: a traceback's last, else its beginning."""
    lines = [line.strip() for line in text.replace("\\n", "\n").splitlines() if line.strip()]
    for line in reversed(lines):
        if "Error" in line or "Exception" in line:
            return shorten(line.strip('"{} '), 300)
    return shorten(lines[0], 300) if lines else "no reason given"
