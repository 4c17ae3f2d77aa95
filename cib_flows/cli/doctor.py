"""``doctor``: whether images can be built and run, and what to do where they cannot."""

from __future__ import annotations

import sys

import click

from cib_flows.cli.options import ENDPOINT, Common, common_options
from cib_flows.cli.output import note, print_json

__all__ = ["doctor"]

COLOURS = {"green": "green", "yellow": "yellow", "red": "red"}


@click.command(short_help="Check that images can be built and run.")
@click.option("--endpoint", type=ENDPOINT, help="Which endpoint; by default the deployment's.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=1),
    default=600,
    show_default=True,
    help="Seconds to wait for a node that builds, which may be a batch job.",
)
@common_options
def doctor(common: Common, endpoint: str | None, wait_s: float) -> None:
    """Look at the deployment and at the endpoint's nodes, build a tiny image there, and say what is
    green, yellow (works, but slowly or not always) or red, with what to do. Exits with 1 where
    anything is red.
    """
    from cib_flows.doctor import RED, examine

    reports = examine(common.connect(), endpoint, wait_s, None if common.json else note)
    bad = any(report.state == RED for report in reports)
    if common.json:
        print_json({"ok": not bad, "reports": [report.as_dict() for report in reports]})
        sys.exit(1 if bad else 0)
    for report in reports:
        click.secho(f"{report.place}{f' on {report.host}' if report.host else ''}", bold=True)
        for finding in report.findings:
            mark = click.style(f"{finding.state:6s}", fg=COLOURS[finding.state])
            click.echo(f"  {mark}  {finding.name}: {finding.found}")
            if finding.todo and finding.state != "green":
                click.echo(f"          {finding.todo}")
    sys.exit(1 if bad else 0)
