"""Running code in images without a Globus worker inside them, and noticing workers that would not talk.

``run_in_container`` starts the image on the endpoint's node and feeds it the code; it serves images
built with ``worker: none``, endpoints whose template takes no container, and images whose worker is
of another version than the endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cib_flows.deployment import ensure_deployed
from cib_flows.deployment_record import Deployment, load_deployment
from cib_flows.errors import CibFlowsError, NotFoundError, ServiceError
from cib_flows.flow_source import FlowSource
from cib_flows.functions._shared.worker_match import differing_version, worker_in
from cib_flows.profiles import Globus
from cib_flows.tasks import call_function

__all__ = ["endpoint_versions", "has_worker", "run_on_host", "says_worker", "worker_mismatch"]

# A job may wait long in a queue before the code begins.
QUEUE_S = 24 * 3600.0
_versions: dict[tuple[str, str], dict[str, str]] = {}


def run_on_host(
    globus: Globus,
    endpoint_id: str,
    image: str,
    *,
    command: Sequence[str] | None = None,
    source: str | None = None,
    script: str = "script.py",
    argv: Sequence[str] = (),
    function: str | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    gpu: str | None = None,
    ranks: int | None = None,
    timeout_s: float | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Runs a command, a script or one of its functions in ``image`` (a path on the endpoint).

    ``options`` are for the endpoint's template, such as an account. Returns ``returncode, stdout,
    stderr`` and a function's ``value``. Raises ``NotFoundError`` when there is no such image,
    ``ServiceError`` when nothing could be run.
    """
    deployment = ensure_deployed(globus)
    given: dict[str, Any] = {"container": image, "gpu": gpu, "ranks": ranks}
    given["timeout_s"] = timeout_s
    if command is not None:
        given["command"] = list(command)
    else:
        given |= {"source": source, "script": script, "argv": list(argv), "function": function}
        given |= {"args": list(args), "kwargs": dict(kwargs or {})}
    answer = call_function(
        globus,
        "run_in_container",
        deployment.function_id("run_in_container"),
        endpoint_id,
        dict(options or {}),
        given,
        timeout_s=QUEUE_S if timeout_s is None else QUEUE_S + timeout_s,
    )
    if answer.get("ok"):
        return answer
    error = answer.get("error") or {}
    kind = NotFoundError if error.get("code") == "container_not_found" else ServiceError
    raise kind(
        str(error.get("message") or "Nothing was run."), str(error.get("hint") or "") or None
    )


def has_worker(record: Mapping[str, Any]) -> bool:
    """Whether an image was built with a Globus Compute worker; yes where its record does not say."""
    worker = record.get("worker")
    return bool(worker) if isinstance(worker, Mapping) else True


def says_worker(record: Mapping[str, Any]) -> bool:
    """Whether workers may be started in an image for a command. An image that came from elsewhere
    without a word about its worker may have none, and its jobs would fail one after another.
    """
    return has_worker(record) and ("worker" in record or "record_version" not in record)


def worker_mismatch(globus: Globus, endpoint_id: str, record: Mapping[str, Any]) -> str:
    """Why the image's worker and the endpoint would not talk, in one sentence; empty when they do.

    The endpoint is asked once for each process. An endpoint that cannot be asked is not suspected.
    """
    if not worker_in(record):
        return ""
    differing = differing_version(record, endpoint_versions(globus, endpoint_id))
    if not differing:
        return ""
    name, here, there = differing
    return (
        f"The image {record.get('name') or ''} holds {name} {here}, and the endpoint {endpoint_id} "
        f"runs {there}: its workers would never answer."
    )


def endpoint_versions(globus: Globus, endpoint_id: str) -> dict[str, str]:
    """The versions of what an endpoint runs; empty where it cannot be asked."""
    key = (str(globus.record_path), endpoint_id)
    if key not in _versions:
        deployment = _deployed(globus)
        if deployment is None:
            return {}
        try:
            answer = call_function(
                globus,
                "check_endpoint",
                deployment.function_id("check_endpoint"),
                endpoint_id,
                FlowSource.packaged().control_config,
                {"part": "control"},
                timeout_s=60,
            )
        except CibFlowsError:
            return {}
        found = answer.get("versions")
        _versions[key] = (
            {str(k): str(v) for k, v in found.items()} if isinstance(found, Mapping) else {}
        )
    return _versions[key]


def _deployed(globus: Globus) -> Deployment | None:
    try:
        return load_deployment(globus)
    except CibFlowsError:
        return None
