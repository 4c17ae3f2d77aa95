"""``build``: from a spec to a container in one command."""

from __future__ import annotations

import sys

import click

from cib_flows.cli.ending import see_to_the_end
from cib_flows.cli.options import Common, build_options, common_options
from cib_flows.cli.output import note
from cib_flows.cli.specs import read_spec

__all__ = ["build"]


@click.command(short_help="Build a container and wait for it.")
@click.argument("spec_path", metavar="[SPEC]", required=False)
@click.option(
    "--locked",
    metavar="LOCK",
    help="Build exactly what a lock lists instead: a container, or a file that "
    "'containers lock' printed. The image gets its tag with '-locked' behind it.",
)
@build_options
@common_options
def build(
    common: Common,
    spec_path: str | None,
    locked: str | None,
    label: str | None,
    force: bool,
    build_endpoint: str | None,
    run_endpoint: str | None,
) -> None:
    """Build the container of SPEC (a YAML or JSON file, or - for standard input) and wait for it.

    Deploys the flow first where needed. Ctrl-C leaves the run going and says how to come back to
    it.
    """
    if (spec_path is None) == (locked is None):
        raise click.UsageError("Give either SPEC or --locked LOCK.")
    spec = read_spec(spec_path) if spec_path is not None else None
    from cib_flows.builder import ContainerBuilder

    quiet = common.json and not sys.stderr.isatty()
    builder = ContainerBuilder(
        globus=common.connect(), build_endpoint=build_endpoint, run_endpoint=run_endpoint
    )
    if spec is None:
        from cib_flows.catalogue import Catalogue
        from cib_flows.locks import locked_spec

        builder.deployment(None if quiet else note)
        spec = locked_spec(Catalogue(builder.globus, build_endpoint), str(locked))
    run = builder.build(spec, label, force=True if force else None, say=None if quiet else note)
    is_plain = spec.to_dict().get("worker") == "none"
    see_to_the_end(run, common, f"{spec.name}:{spec.tag}, run {run.run_id}", is_plain)
