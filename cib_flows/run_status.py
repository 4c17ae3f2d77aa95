"""A run as the Flows service shows it, and the list of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cib_flows.deployment_record import load_deployment
from cib_flows.errors import NotDeployedError
from cib_flows.profiles import Globus
from cib_flows.services import explained

__all__ = ["TERMINAL", "RunStatus", "newest_runs"]

TERMINAL = ("SUCCEEDED", "FAILED", "ENDED")


@dataclass(frozen=True)
class RunStatus:
    """A run as the Flows service shows it. Times are ISO 8601; ``completed_at`` is empty until
    it ended.
    """

    run_id: str
    status: str
    flow_id: str
    label: str
    started_at: str
    completed_at: str
    description: str

    @classmethod
    def of(cls, run: Mapping[str, Any]) -> RunStatus:
        """From the service's own document of a run."""
        details = run.get("details")
        described = details.get("description") if isinstance(details, Mapping) else None
        return cls(
            run_id=str(run.get("run_id") or ""),
            status=str(run.get("status") or ""),
            flow_id=str(run.get("flow_id") or ""),
            label=str(run.get("label") or ""),
            started_at=str(run.get("start_time") or ""),
            completed_at=str(run.get("completion_time") or ""),
            description=str(described or run.get("display_status") or ""),
        )

    @property
    def is_over(self) -> bool:
        return self.status in TERMINAL


def newest_runs(globus: Globus, limit: int = 20) -> list[RunStatus]:
    """The runs of the deployed flows that one may see, newest first, at most ``limit`` of them.

    Raises ``NotDeployedError`` where nothing is deployed, ``ServiceError`` when the service refuses.
    """
    deployment = load_deployment(globus)
    if deployment is None:
        raise NotDeployedError("Nothing is deployed to this Globus yet, so there are no runs.")
    flow_ids = [flow.flow_id for flow in deployment.flows.values()]
    found: list[RunStatus] = []
    question: dict[str, Any] = {"orderby": "start_time DESC"}
    while True:
        globus.flows_pacer.wait()
        with explained("list the runs"):
            page = globus.flows.list_runs(filter_flow_id=flow_ids, query_params=question)
        found += [RunStatus.of(run) for run in page.get("runs") or []]
        question["marker"] = page.get("marker")
        if len(found) >= limit or not page.get("has_next_page") or not question["marker"]:
            return found[:limit]
