"""``deploy``: put the functions and the flow on a Globus."""

from __future__ import annotations

import uuid
from typing import Any

import click

from cib_flows.cli.options import Common, common_options
from cib_flows.cli.output import note, print_json

__all__ = ["EndpointId", "deploy"]


class EndpointId(click.ParamType):
    """A Globus Compute endpoint's UUID."""

    name = "UUID"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return str(uuid.UUID(str(value)))
        except ValueError:
            self.fail(f"{value!r} is not an endpoint's UUID.", param, ctx)


@click.command(short_help="Register the functions and create or update the flow.")
@click.option("--build-endpoint", type=EndpointId(), help="Endpoint that builds by default.")
@click.option("--run-endpoint", type=EndpointId(), help="Endpoint that runs functions by default.")
@click.option("--force", is_flag=True, help="Register every function anew.")
@common_options
def deploy(
    common: Common, build_endpoint: str | None, run_endpoint: str | None, force: bool
) -> None:
    """Register the functions whose text is new and create or update the flow.

    Doing it again changes nothing. What is deployed is written to a record without secrets, whose
    path is printed.
    """
    from dataclasses import asdict

    from cib_flows.deployment import deploy as put

    globus = common.connect()
    changes: list[str] = []
    deployment = put(globus, build_endpoint, run_endpoint, force, say=changes.append)
    if common.json:
        print_json(
            {
                "ok": True,
                "changes": changes,
                "record": str(globus.record_path),
                "deployment": asdict(deployment),
            }
        )
        return
    for change in changes or ["nothing has changed"]:
        note(change)
    click.echo(f"flow            {deployment.flow_id}")
    click.echo(f"build endpoint  {deployment.build_endpoint}")
    click.echo(f"run endpoint    {deployment.run_endpoint}")
    for name, function in sorted(deployment.functions.items()):
        click.echo(f"{name:19s} {function.id}")
    click.echo(f"record          {globus.record_path}")
