"""Bringing a registered container to other sites: the run of ``publish_container`` and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cib_flows.containers import Container
from cib_flows.deployment import FlowSource, ensure_deployed
from cib_flows.deployment_record import Deployment, load_deployment
from cib_flows.errors import CibFlowsError, NotFoundError, UsageError
from cib_flows.flow_source import PUBLISH_FLOW
from cib_flows.profiles import Globus, connect
from cib_flows.runs import MAX_LABEL, BuildRun
from cib_flows.services import explained
from cib_flows.sites import Site
from cib_flows.starting import start_once

__all__ = ["Delivery", "PublishRun", "attach_run", "publish", "publish_at_once"]

# The form has pickers for three more; a program lists all of its own here.
MOST_DESTINATIONS = 8
STEPS = {"TransferImage": "transfer_s", "ReceiveContainer": "register_s"}


@dataclass(frozen=True)
class Delivery:
    """What came of one destination.

    ``container`` is the one that is registered there, None where ``sentence`` says what went wrong
    (``code`` is from the list in docs/errors.md). ``present`` says that it was there already, so that
    nothing was transferred. ``transfer_s`` and ``register_s`` are the seconds that the run's log has
    for the two steps.
    """

    name: str
    endpoint_id: str
    container: Container | None
    present: bool = False
    sentence: str = ""
    code: str = ""
    hint: str = ""
    failed_step: str = ""
    transfer_s: float | None = None
    register_s: float | None = None

    @property
    def ok(self) -> bool:
        return self.container is not None

    def as_dict(self) -> dict[str, Any]:
        """The delivery for programs."""
        fields = {key: value for key, value in vars(self).items() if key != "container"}
        container = self.container.as_dict() if self.container else None
        return {"ok": self.ok, **fields, "container": container}


class PublishRun(BuildRun):
    """A run of the publish flow. ``wait``, ``status``, ``logs`` and ``cancel`` are those of every run.

    ``cancel`` has the sites remove what lies in their staging for the run. What is registered stays; a site
    that does not answer removes it within two weeks by itself.
    """

    def deliveries(self) -> list[Delivery]:
        """What came of each destination, in the order in which they were named; those that the run
        has not come to are left out.
        """
        entries = self.logs()
        seconds = list(_seconds(entries))
        return [
            _delivery(self.globus, outcome, seconds[number] if number < len(seconds) else {})
            for number, outcome in enumerate(_outcomes(entries))
        ]

    def result(self) -> list[Delivery]:  # type: ignore[override]  # a list where a build has one
        """Waits for the run to end; every destination has the container then.

        Raises ``RunFailedError`` with one sentence that names those that failed; ``deliveries`` has
        the others all the same.
        """
        self._require_success()
        return self.deliveries()

    def _stop_steps(self) -> None:
        config = FlowSource.packaged(PUBLISH_FLOW).control_config
        for endpoint_id in _endpoints(self.logs()):
            self._tell(
                "drop_delivery", endpoint_id, config, {"run_id": self.run_id, "cancel": True}
            )


def publish(
    container: str,
    sites: Sequence[Site],
    globus: Globus | None = None,
    *,
    name_tag: str = "",
    move: bool = False,
    source_endpoint: str | None = None,
    label: str | None = None,
) -> PublishRun:
    """Starts bringing ``container`` (name, name:tag or id) to ``sites``, and returns at once.

    It is registered there under its own name and tag, or under ``name_tag`` (``name:tag`` or a tag);
    ``move`` takes the name from another container that has it. Sites whose endpoint is offline have
    their turn last, since the run waits an hour for each. ``source_endpoint`` has the container
    in its catalogue, by default the deployment's. The publish flow is deployed first where it is not yet.

    Raises ``UsageError`` for no or too many sites, ``ServiceError`` when a service refuses.
    """
    if not 0 < len(sites) <= MOST_DESTINATIONS:
        raise UsageError(f"A run publishes to 1 to {MOST_DESTINATIONS} sites, not {len(sites)}.")
    globus = globus or connect()
    deployment = ensure_deployed(globus, flow=PUBLISH_FLOW)
    sites = _reachable_first(globus, sites)
    source = source_endpoint or deployment.build_endpoint
    return _start(globus, deployment, container, sites, source, name_tag, move, label)


def publish_at_once(
    container: str,
    sites: Sequence[Site],
    globus: Globus | None = None,
    *,
    name_tag: str = "",
    move: bool = False,
    source_endpoint: str | None = None,
) -> list[PublishRun]:
    """As ``publish``, with a run of its own for each site, so that none waits for another's batch queue or
    absent endpoint. The source checks every byte once for each run. Returns the runs in the order of ``sites``.

    Where a run cannot be started, the error's hint names those that were started before and go on.
    """
    if not sites:
        raise UsageError("Name at least one site to publish to.")
    globus = globus or connect()
    deployment = ensure_deployed(globus, flow=PUBLISH_FLOW)
    source = source_endpoint or deployment.build_endpoint
    runs: list[PublishRun] = []
    for site in sites:
        try:
            runs.append(_start(globus, deployment, container, [site], source, name_tag, move, None))
        except CibFlowsError as failure:
            if runs:
                ids = ", ".join(run.run_id for run in runs)
                failure.hint = " ".join(
                    [failure.hint or "", f"Started before, and going on: {ids}."]
                ).strip()
            raise
    return runs


def _start(
    globus: Globus,
    deployment: Deployment,
    container: str,
    sites: Sequence[Site],
    source: str,
    name_tag: str,
    move: bool,
    label: str | None,
) -> PublishRun:
    body: dict[str, Any] = {
        "container": container,
        "source_endpoint": source,
        "destinations": [site.destination() for site in sites],
    }
    if name_tag:
        body["name_tag"] = name_tag
    if move:
        body["move"] = True
    names = ", ".join(site.name for site in sites)
    flow_id = deployment.flows[PUBLISH_FLOW].flow_id
    title = (label or f"{container} to {names}")[:MAX_LABEL]
    return PublishRun(globus, start_once(globus, flow_id, body, title, []), deployment)


def attach_run(globus: Globus, run_id: str) -> BuildRun:
    """The run of that id, started by anyone; a ``PublishRun`` where it is one of the publish flow.

    Raises ``NotFoundError`` when there is none.
    """
    run = BuildRun.attach(globus, run_id)
    deployment = load_deployment(globus)
    publishing = deployment.flows.get(PUBLISH_FLOW) if deployment else None
    if publishing is not None and run.status().flow_id == publishing.flow_id:
        return PublishRun(globus, run.run_id, deployment)
    return run


def _reachable_first(globus: Globus, sites: Sequence[Site]) -> list[Site]:
    """The same sites; one destination is served after the other."""
    offline = set()
    for site in sites:
        globus.compute_pacer.wait()
        try:
            with explained("ask for an endpoint's status"):
                status = globus.compute_v2.get_endpoint_status(site.endpoint_id)
        except NotFoundError:
            offline.add(site.endpoint_id)
        except CibFlowsError:
            continue  # who may not ask may still be answered by the endpoint
        else:
            if str(status.get("status")) == "offline":
                offline.add(site.endpoint_id)
    return sorted(sites, key=lambda site: site.endpoint_id in offline)


def _outcomes(entries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What the flow noted of each destination: the last action is given all of it, however the run
    ends.
    """
    found: list[Mapping[str, Any]] = []
    for entry in entries:
        if entry.get("code") == "ActionStarted" and _state(entry) == "EndPublication":
            tasks = _input(entry).get("tasks")
            task = tasks[0] if isinstance(tasks, list) and tasks else {}
            noted = (task.get("kwargs") or {}).get("outcomes")
            found = [one for one in noted or [] if isinstance(one, Mapping)]
    return found


def _seconds(entries: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, float]]:
    """The seconds of each destination's steps, from the times in the log."""
    times: dict[str, float] | None = None
    began: dict[str, datetime] = {}
    for entry in entries:
        state, code = _state(entry), entry.get("code")
        if state == "ExpectContainer" and code == "ActionStarted":
            if times is not None:
                yield times
            times, began = {}, {}
        if times is None or state not in STEPS:
            continue
        try:
            at = datetime.fromisoformat(str(entry.get("time")).replace("Z", "+00:00"))
        except ValueError:
            continue
        if code == "ActionStarted":
            began[state] = at
        elif state in began:
            times[STEPS[state]] = round((at - began.pop(state)).total_seconds(), 2)
    if times is not None:
        yield times


def _endpoints(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Every endpoint that the run has called, the source first."""
    called = [_input(e).get("endpoint_id") for e in entries if e.get("code") == "ActionStarted"]
    return list(dict.fromkeys(endpoint for endpoint in called if isinstance(endpoint, str)))


def _state(entry: Mapping[str, Any]) -> str:
    details = entry.get("details")
    return str(details.get("state_name") or "") if isinstance(details, Mapping) else ""


def _input(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    details = entry.get("details")
    given = details.get("input") if isinstance(details, Mapping) else None
    return given if isinstance(given, Mapping) else {}


def _delivery(globus: Globus, outcome: Mapping[str, Any], seconds: Mapping[str, float]) -> Delivery:
    container = outcome.get("container")
    return Delivery(
        name=str(outcome.get("name") or ""),
        endpoint_id=str(outcome.get("endpoint_id") or ""),
        container=Container.from_output(globus, container)
        if outcome.get("ok") and isinstance(container, Mapping)
        else None,
        present=bool(outcome.get("present")),
        **{key: str(outcome.get(key) or "") for key in ("sentence", "code", "hint", "failed_step")},
        transfer_s=seconds.get("transfer_s"),
        register_s=seconds.get("register_s"),
    )
