"""Why a run ended without a container, read from what the flow wrote down about itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["BuildFailure", "failure_of", "inactive_reason", "output_of"]


@dataclass(frozen=True)
class BuildFailure:
    """Why a run failed. ``sentence`` is for people; ``code`` is from a closed list, for programs.

    ``failed_step`` is the function that failed, ``log_path`` a file on the build endpoint and
    ``log_tail`` its last lines; each is empty where it is not known.
    """

    sentence: str
    code: str = "unknown"
    hint: str = ""
    failed_step: str = ""
    log_path: str = ""
    log_tail: str = ""
    canceled: bool = False

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def output_of(entries: Iterable[Mapping[str, Any]], state_name: str) -> dict[str, Any] | None:
    """What the function of the action ``state_name`` returned, from a run's log entries; in a larger
    flow the state has a prefix."""
    found: dict[str, Any] | None = None
    for entry in entries:
        details = entry.get("details")
        if (
            entry.get("code") == "ActionCompleted"
            and isinstance(details, Mapping)
            and str(details.get("state_name")).endswith(state_name)
        ):
            output = _first_result(details.get("output"))
            found = output if output is not None else found
    return found


def _first_result(status: Any) -> dict[str, Any] | None:
    """The output of the only task in a Compute action's status document."""
    if not isinstance(status, Mapping):
        return None
    details = status.get("details")
    if not isinstance(details, Mapping):
        # The log may show the output under the state's result path instead of at its root.
        nested = [_first_result(value) for value in status.values() if isinstance(value, Mapping)]
        return next((output for output in nested if output is not None), None)
    results = details.get("results")
    if isinstance(results, list) and results and isinstance(results[0], Mapping):
        output = results[0].get("output")
        return dict(output) if isinstance(output, Mapping) else None
    return None


def failure_of(run: Mapping[str, Any], entries: Iterable[Mapping[str, Any]]) -> BuildFailure:
    """The failure of a run that FAILED, from its document and its log entries, oldest first."""
    entries = list(entries)
    details = run.get("details")
    details = details if isinstance(details, Mapping) else {}
    if details.get("code") == "FlowCanceled" or any(
        entry.get("code") == "FlowCanceled" for entry in entries
    ):
        return BuildFailure("The run was cancelled.", code="canceled", canceled=True)
    report = output_of(entries, "ReportFailure") or output_of(entries, "EndPublication")
    if report is not None and report.get("sentence"):
        error = report.get("error")
        error = error if isinstance(error, Mapping) else {}
        return BuildFailure(
            sentence=str(report["sentence"]),
            code=str(error.get("code") or "unknown"),
            hint=str(error.get("hint") or ""),
            failed_step=str(report.get("failed_step") or ""),
            log_path=str(report.get("log_path") or error.get("log_path") or ""),
            log_tail=str(report.get("log_tail") or error.get("log_tail") or ""),
        )
    return BuildFailure(_said_by_the_service(details, entries))


def _said_by_the_service(details: Mapping[str, Any], entries: list[Mapping[str, Any]]) -> str:
    """The best sentence in the service's own words; its keys are not all documented."""
    places: list[Mapping[str, Any]] = [details]
    for entry in reversed(entries):
        if entry.get("code") == "FlowFailed":
            inner = entry.get("details")
            places.append(inner if isinstance(inner, Mapping) else {})
            places.append(entry)
            break
    for key in ("cause", "Cause", "error", "Error", "description"):
        for place in places:
            value = place.get(key)
            if isinstance(value, str) and value.strip():
                return value.strip()
    return "The run failed, and the flow left no reason."


def inactive_reason(run: Mapping[str, Any]) -> str:
    """Why an INACTIVE run waits, in one sentence that also says what to do."""
    details = run.get("details")
    details = details if isinstance(details, Mapping) else {}
    code = str(details.get("code") or "")
    said = str(details.get("description") or "").strip().rstrip(".")
    run_id = run.get("run_id", "RUN")
    if code == "ConsentRequired":
        return (
            "The run waits for your consent"
            + (f" ({said})" if said else "")
            + f"; give it and go on with 'cib-flows resume {run_id}'."
        )
    reason = said or code or "the service gave no reason"
    return (
        f"The run is paused: {reason}; when that is settled, go on with "
        f"'cib-flows resume {run_id}'."
    )
