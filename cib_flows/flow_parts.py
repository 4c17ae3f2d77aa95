"""What is deployed, as parts for larger flows."""

from __future__ import annotations

from dataclasses import dataclass

from cib_flows.deployment_record import Deployment, read_record
from cib_flows.errors import NotDeployedError, UsageError
from cib_flows.flow import Part
from cib_flows.flow_source import BUILD_FLOW, PUBLISH_FLOW, FlowSource
from cib_flows.profiles import record_place

__all__ = ["NAMES", "PartNames", "flow_part", "recorded_deployment"]


@dataclass(frozen=True)
class PartNames:
    """``result`` is the field that holds what a flow is run for; the others are what a larger flow
    calls its things when nothing else is said."""

    result: str
    prefix: str
    input_property: str
    output: str
    failure: str


NAMES = {
    BUILD_FLOW: PartNames("container", "Build", "container_spec", "$.container", "$.build_failure"),
    PUBLISH_FLOW: PartNames(
        "published", "Publish", "publication", "$.published", "$.publish_failure"
    ),
}


def flow_part(deployment: Deployment, flow: str = BUILD_FLOW) -> Part:
    """A flow of this version, one of ``NAMES``, with the functions and endpoints of ``deployment``,
    for ``compose``.

    Raises ``UsageError`` for a flow that is not one of them.
    """
    if flow not in NAMES:
        raise UsageError(f"There is no flow {flow!r}; there are {', '.join(NAMES)}.")
    source = FlowSource.packaged(flow).filled(
        deployment.build_endpoint, deployment.run_endpoint, deployment.function_ids
    )
    return Part(source.definition, source.input_schema, NAMES[flow].result)


def recorded_deployment(profile: str | None = None, home: str | None = None) -> Deployment:
    """What is deployed to a Globus, by its record alone; ``profile`` and ``home`` are those of
    ``connect``.

    Raises ``NotDeployedError`` where nothing is.
    """
    deployment = read_record(record_place(profile, home))
    if deployment is None:
        raise NotDeployedError(
            "Nothing is deployed there, so a flow has no functions to call.",
            hint="Run 'cib-flows deploy' first.",
        )
    return deployment
