"""Whether everything a build needs is in order: this computer, the Globus, and the endpoint's nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cib_flows._version import __version__
from cib_flows.deployment import FlowSource, ensure_deployed
from cib_flows.errors import CibFlowsError
from cib_flows.profiles import Globus
from cib_flows.tasks import call_function

__all__ = ["GREEN", "RED", "YELLOW", "Finding", "Report", "examine"]

GREEN, YELLOW, RED = "green", "yellow", "red"
ORDER = (GREEN, YELLOW, RED)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: its ``state``, what was ``found``, and what ``todo`` about it."""

    name: str
    state: str
    found: str
    todo: str = ""


@dataclass(frozen=True)
class Report:
    """What one place is like. ``place`` is ``globus``, or the endpoint's profile ``control`` or ``build``."""

    place: str
    host: str
    findings: tuple[Finding, ...]
    versions: dict[str, str]

    @property
    def state(self) -> str:
        """The worst of all findings."""
        return max((finding.state for finding in self.findings), key=ORDER.index)

    def as_dict(self) -> dict[str, Any]:
        """The report for programs."""
        return {
            "place": self.place,
            "state": self.state,
            "host": self.host,
            "versions": self.versions,
            "points": [vars(finding) for finding in self.findings],
        }


def examine(
    globus: Globus,
    endpoint: str | None = None,
    wait_s: float = 600.0,
    say: Callable[[str], None] | None = None,
) -> list[Report]:
    """Looks at everything in turn; what could not be asked is a red finding, never an exception.

    ``endpoint`` is by default the deployment's build endpoint. ``wait_s`` is how long the node that
    builds may take to answer: it may be a batch job that has to wait. ``say`` hears what is asked
    next, in one line.
    """
    tell = say or (lambda line: None)
    try:
        deployment = ensure_deployed(globus, tell)
    except CibFlowsError as problem:
        return [_globus_report(globus, Finding("deployment", RED, *_words(problem)))]
    asked = endpoint or deployment.build_endpoint
    found = Finding("deployment", GREEN, f"The flow is {deployment.flow_id}, the endpoint {asked}.")
    reports = [_globus_report(globus, found)]
    settings = FlowSource.packaged().settings
    for place in ("control", "build"):
        tell(f"asking the endpoint's '{place}' nodes")
        try:
            answer = call_function(
                globus,
                "check_endpoint",
                deployment.function_id("check_endpoint"),
                asked,
                dict(settings[f"{place}_config"]),
                {"part": place},
                timeout_s=wait_s,
            )
        except CibFlowsError as problem:
            reports.append(Report(place, "", (Finding("endpoint", RED, *_words(problem)),), {}))
            continue
        reports.append(_report_of(place, answer))
    return reports


def _globus_report(globus: Globus, deployment: Finding) -> Report:
    return Report(
        "globus",
        "",
        (
            Finding("client", GREEN, f"cib-flows {__version__}, profile '{globus.profile}'."),
            deployment,
        ),
        {"cib-flows": __version__},
    )


def _words(problem: CibFlowsError) -> tuple[str, str]:
    return problem.message, problem.hint or ""


def _report_of(place: str, answer: dict[str, Any]) -> Report:
    if not answer.get("ok"):
        error = answer.get("error") or {}
        finding = Finding("endpoint", RED, str(error.get("message")), str(error.get("hint") or ""))
        return Report(place, "", (finding,), {})
    findings = tuple(
        Finding(*(str(point.get(key) or "") for key in ("name", "state", "found", "todo")))
        for point in answer["points"]
    )
    versions = {str(key): str(value) for key, value in answer["versions"].items()}
    return Report(place, str(answer["host"]), findings, versions)
