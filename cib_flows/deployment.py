"""Putting the functions and the flow on a Globus, and remembering what was put there.

Functions cannot be changed once registered, so one is registered anew exactly when the sha256 of
its text is new. The flow is created once and updated afterwards. What is deployed stands in a small
JSON record without secrets, which may be committed and shared: ``CIB_FLOWS_DEPLOYMENT`` names the
file, otherwise each profile has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cib_flows import allow_list
from cib_flows.deployment_attempt import Attempt
from cib_flows.deployment_plan import ROLES, Choices, Plan, Wanted, flow_differences, make_plan
from cib_flows.deployment_record import Deployment, load_deployment
from cib_flows.deployment_state import (
    deployed_flow,
    deployed_flows,
    gone_functions,
    require_mapped,
    wanted_deployment,
)
from cib_flows.errors import NotDeployedError, UsageError
from cib_flows.files import one_at_a_time
from cib_flows.flow_source import BUILD_FLOW, FlowSource, fill_placeholders
from cib_flows.profiles import Globus

__all__ = [
    "Choices",
    "FlowSource",
    "deploy",
    "ensure_deployed",
    "fill_placeholders",
    "find_drift",
    "plan_deployment",
]

MAY_UPDATE = ("flow_owner", "flow_administrator")


def ensure_deployed(
    globus: Globus, say: Callable[[str], None] | None = None, flow: str = BUILD_FLOW
) -> Deployment:
    """The deployment to start runs of, made or brought up to date first where needed.

    A deployment that belongs to someone else is used as it is. Raises ``NotDeployedError`` when it
    has no such ``flow``.
    """
    current = load_deployment(globus)
    further = Choices(flows=(flow,) if flow != BUILD_FLOW else ())
    if current is None:
        return deploy(globus, say=say, choices=further)
    wanted = wanted_deployment(globus, current, Choices(), is_flow_there=True)
    matches = {name: function.sha256 for name, function in current.functions.items()} == {
        name: bundle.sha256 for name, bundle in wanted.bundles.items()
    } and all(
        current.flows[name].flow_sha256 == one.digest(current.function_ids)
        for name, one in wanted.flows.items()
    )
    there = deployed_flow(globus, current.flow_id)
    if there is None:
        return deploy(globus, say=say, choices=further)
    may_update = str(there.get("user_role") or MAY_UPDATE[0]) in MAY_UPDATE
    if flow not in current.flows and not may_update:
        raise NotDeployedError(
            f"The deployment has no flow {flow}, and belongs to someone else.",
            hint=f"Its owner adds it with 'cib-flows deploy --flow {flow}'.",
        )
    is_there = flow in current.flows and (
        flow == BUILD_FLOW or deployed_flow(globus, current.flows[flow].flow_id) is not None
    )
    if (matches and is_there) or not may_update:
        return current
    return deploy(globus, say=say, choices=further)


def plan_deployment(globus: Globus, choices: Choices | None = None, force: bool = False) -> Plan:
    """What ``deploy`` would do now; nothing is changed. Raises like ``deploy``."""
    before = load_deployment(globus) if not force else _load_or_none(globus)
    flows = deployed_flows(globus, before)
    is_there = flows.get(BUILD_FLOW) is not None
    wanted = wanted_deployment(globus, before, choices or Choices(), is_there)
    # While the flow is there, so are its functions; asking for each would take a while.
    gone = gone_functions(globus, before) if before and not is_there else set()
    return make_plan(before, flows, wanted, gone, force)


def deploy(
    globus: Globus,
    build_endpoint: str | None = None,
    run_endpoint: str | None = None,
    force: bool = False,
    say: Callable[[str], None] | None = None,
    choices: Choices | None = None,
) -> Deployment:
    """Registers the functions whose text is new, creates or updates the flow, and writes the
    record.

    Doing it again changes nothing. ``force`` registers every function anew and updates the flow,
    with all its roles. ``say`` is told each thing that was changed, in one line.

    When something fails half-way, what was done is taken back: the flow stays or becomes what it
    was, and the record is not touched. Functions that could not be deleted again are noted beside
    the record, and the next attempt uses them.

    Raises ``UsageError`` when no build endpoint is known or a collection takes no consent,
    ``ServiceError`` when a service refuses.
    """
    tell = say or (lambda line: None)
    chosen = choices or Choices()
    chosen = replace(
        chosen,
        build_endpoint=build_endpoint or chosen.build_endpoint,
        run_endpoint=run_endpoint or chosen.run_endpoint,
    )
    # Two first builds at once must not make two flows.
    with one_at_a_time(globus.record_path.with_suffix(".lock")):
        plan = plan_deployment(globus, chosen, force)
        before = load_deployment(globus) if not force else _load_or_none(globus)
        if chosen.data_access:
            require_mapped(globus, chosen.data_access)
        return Attempt(globus, plan, before, tell).run(force)


def find_drift(globus: Globus) -> list[str]:
    """In which ways what is deployed differs from the record or from the files, one line for each.

    Raises ``ServiceError`` when Globus cannot be asked.
    """
    record = load_deployment(globus)
    if record is None:
        return ["nothing is deployed, or its record is not here"]
    wanted = wanted_deployment(globus, record, Choices(), is_flow_there=True)
    drift = []
    gone = gone_functions(globus, record)
    for name, bundle in wanted.bundles.items():
        function = record.functions.get(name)
        if function is None:
            drift.append(f"the function {name} is in the files and not deployed")
        elif function.sha256 != bundle.sha256:
            drift.append(
                f"the function {name} is {bundle.sha256[:12]} in the files and "
                f"{function.sha256[:12]} in the record"
            )
        if name in gone and function is not None:
            drift.append(f"the function {name} ({function.id}) is gone from Globus Compute")
    drift += [
        f"the function {name} is deployed and no longer in the files"
        for name in record.functions
        if name not in wanted.bundles
    ]
    if globus.home and record.build_endpoint == globus.build_endpoint:
        drift += [
            f"the endpoint's allowed_functions.yaml lacks {name}"
            for name in allow_list.missing_from(globus.home, record)
        ]
    for name, flow in wanted.flows.items():
        drift += _flow_drift(globus, record, name, flow)
    return drift


def _flow_drift(globus: Globus, record: Deployment, name: str, wanted: Wanted) -> list[str]:
    known_flow = record.flows[name]
    flow = deployed_flow(globus, known_flow.flow_id)
    if flow is None:
        return [f"the flow {known_flow.flow_id} is gone from Globus Flows"]
    drift = []
    what = "the flow" if name == BUILD_FLOW else f"the flow {name}"
    known = {**{name: f"(not deployed) {name}" for name in wanted.bundles}, **record.function_ids}
    changes = list(flow_differences(flow, wanted.document(known)))
    if changes and known_flow.flow_sha256 == wanted.digest(known):
        drift.append(f"{what} was changed on the service since it was deployed:")
    elif changes or known_flow.flow_sha256 != wanted.digest(known):
        drift.append(f"{what} in the files is not the one that is deployed:")
    drift += [f"  {change}" for change in changes]
    for role in ROLES:
        if role in flow and sorted(flow[role] or []) != sorted(known_flow.roles.get(role, [])):
            drift.append(
                f"{role} are {sorted(flow[role] or [])} on the service and "
                f"{sorted(known_flow.roles.get(role, []))} in the record"
            )
    subscription = str(flow.get("subscription_id") or "")
    if record.subscription_id not in ("", "DEFAULT", subscription):
        drift.append(
            f"the subscription is {subscription or 'none'} on the service and "
            f"{record.subscription_id} in the record"
        )
    return drift


def _load_or_none(globus: Globus) -> Deployment | None:
    try:
        return load_deployment(globus)
    except UsageError:
        return None
