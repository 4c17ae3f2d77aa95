"""What is deployed, as parts for larger flows."""

from __future__ import annotations

from cib_flows.deployment_record import Deployment, read_record
from cib_flows.errors import NotDeployedError
from cib_flows.flow import Part
from cib_flows.flow_source import FlowSource
from cib_flows.profiles import record_place

__all__ = ["build_part", "recorded_deployment"]


def build_part(deployment: Deployment) -> Part:
    """The build flow with the functions and endpoints of ``deployment``, for ``compose``."""
    source = FlowSource.packaged().filled(
        deployment.build_endpoint, deployment.run_endpoint, deployment.function_ids
    )
    return Part(source.definition, source.input_schema, "container")


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
