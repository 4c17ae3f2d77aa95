"""Starting a run once, even when the answer is lost on the way."""

from __future__ import annotations

import time
import uuid
from typing import Any

from cib_flows.deployment_record import load_deployment
from cib_flows.errors import ServiceError
from cib_flows.profiles import Globus
from cib_flows.services import explained, is_expired, is_transient

__all__ = ["start_once"]

ATTEMPTS = 5


def start_once(
    globus: Globus,
    flow_id: str,
    body: dict[str, Any],
    label: str,
    tags: list[str],
) -> str:
    """Starts a run of the flow and returns its id.

    When an answer is lost the run may exist all the same: before the next attempt, one with this
    call's own tag is looked for. Raises ``ServiceError`` when the service refuses, or does not
    answer five times in a row.
    """
    deployment = load_deployment(globus)
    is_ours = deployment is not None and any(
        flow.flow_id == flow_id for flow in deployment.flows.values()
    )
    client = globus.flow(flow_id, deployment.data_access if deployment and is_ours else ())
    mark = f"request-{uuid.uuid4().hex[:12]}"
    attempt = 0
    while True:
        globus.flows_pacer.wait()
        try:
            with explained("start the run"), client.retry_config.tune(max_retries=0):
                run = client.run_flow(body, label=label, tags=[*tags, mark])
            return str(run["run_id"])
        except ServiceError as failure:
            attempt += 1
            if not (is_transient(failure) or is_expired(failure)) or attempt == ATTEMPTS:
                raise
        time.sleep(0.5 * 2**attempt)
        with explained("look for the run"):
            page = globus.flows.list_runs(filter_flow_id=flow_id)
        for run in page.get("runs") or []:
            if mark in (run.get("tags") or []):
                return str(run["run_id"])
