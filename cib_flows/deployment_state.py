"""What a deployment finds: what the files want, and what Globus has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cib_flows.bundle import bundle_function, function_names
from cib_flows.deployment_plan import ROLES, Choices, Wanted
from cib_flows.deployment_record import Deployment, RegisteredFunction
from cib_flows.errors import NotFoundError, UsageError
from cib_flows.flow_source import BUILD_FLOW, FLOWS, FlowSource
from cib_flows.profiles import Globus
from cib_flows.services import explained

__all__ = [
    "deployed_flow",
    "deployed_flows",
    "gone_functions",
    "is_registered",
    "require_mapped",
    "wanted_deployment",
]

MAPPED = "GCSv5_mapped_collection"


def wanted_deployment(
    globus: Globus, before: Deployment | None, choices: Choices, is_flow_there: bool
) -> Wanted:
    """What shall be deployed, by the files, the record ``before`` and the deployer's choices.

    Raises ``UsageError`` when no build endpoint is known, or a role does not exist.
    """
    recorded = before.build_endpoint if before else None
    # Where the flow is gone, so may be the endpoint of its record: a home may have been made anew.
    known = (
        (recorded, globus.build_endpoint) if is_flow_there else (globus.build_endpoint, recorded)
    )
    build = choices.build_endpoint or known[0] or known[1]
    if build is None:
        raise UsageError(
            "No build endpoint is known; name one with --build-endpoint or "
            "CIB_FLOWS_BUILD_ENDPOINT."
        )
    run = choices.run_endpoint
    if run is None:
        run = before.run_endpoint if before and before.build_endpoint == build else build
    unknown = sorted(set(choices.roles) - set(ROLES))
    if unknown:
        raise UsageError(f"There is no role {unknown[0]}; roles are {', '.join(ROLES)}.")
    no_flow = sorted(set(choices.flows) - set(FLOWS))
    if no_flow:
        raise UsageError(f"There is no flow {no_flow[0]}; flows are {', '.join(FLOWS)}.")
    subscription = choices.subscription_id
    if subscription is None:
        subscription = (before.subscription_id if before else "") or str(
            FlowSource.packaged().about.get("subscription_id") or ""
        )
    collections = choices.data_access
    if collections is None:
        collections = before.data_access if before else []
    known_flows = before.flows if before else {}
    bundles = {name: bundle_function(name) for name in function_names()}

    def wanted(name: str, further: dict[str, Wanted]) -> Wanted:
        source = FlowSource.packaged(name) if name != BUILD_FLOW else FlowSource.packaged()
        was = known_flows.get(name)
        given = dict(was.given_roles) if was else {}
        if not choices.flows or name in choices.flows:
            given |= choices.roles
        return Wanted(
            source=source,
            bundles=bundles,
            build_endpoint=build,
            run_endpoint=run,
            roles={role: list(given.get(role, source.about.get(role, []))) for role in ROLES},
            given_roles=given,
            subscription_id=subscription,
            data_access=sorted(set(collections)),
            further=further,
        )

    names = [name for name in FLOWS if name in choices.flows or name in known_flows]
    return wanted(BUILD_FLOW, {name: wanted(name, {}) for name in names if name != BUILD_FLOW})


def require_mapped(globus: Globus, collections: list[str]) -> None:
    """The consent exists for mapped collections without High Assurance only; asking for it for
    another one makes the login fail with an unknown scope.
    """
    for collection in collections:
        with explained(f"look up the collection {collection}"):
            found = globus.transfer.get_endpoint(collection)
        if found.get("entity_type") != MAPPED or found.get("high_assurance"):
            kind = "has High Assurance" if found.get("high_assurance") else "is not a mapped one"
            raise UsageError(
                f"The collection {collection} {kind}, and takes no data_access consent.",
                hint="Leave it out: runs may use it without that consent.",
            )


def deployed_flows(
    globus: Globus, record: Deployment | None
) -> dict[str, Mapping[str, Any] | None]:
    """Every flow of the record as the service has it, by name; None for one that is gone."""
    flows = record.flows if record else {}
    return {name: deployed_flow(globus, flow.flow_id) for name, flow in flows.items()}


def deployed_flow(globus: Globus, flow_id: str | None) -> dict[str, Any] | None:
    """The flow as the service has it, or None when it is gone or was never there."""
    if not flow_id:
        return None
    globus.flows_pacer.wait()
    try:
        with explained("look up the deployed flow"):
            return dict(globus.flows.get_flow(flow_id).data)
    except NotFoundError:
        return None


def gone_functions(globus: Globus, record: Deployment) -> set[str]:
    """Names of the record's functions that Globus Compute no longer has."""
    return {
        name for name, function in record.functions.items() if not is_registered(globus, function)
    }


def is_registered(globus: Globus, function: RegisteredFunction) -> bool:
    """Whether Globus Compute has the function."""
    globus.compute_pacer.wait()
    try:
        with explained("look up a registered function"):
            globus.compute_v2.get_function(function.id)
    except NotFoundError:
        return False
    return True
