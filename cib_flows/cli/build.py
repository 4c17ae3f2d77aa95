"""``build``: from a spec to a container in one command."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from cib_flows.cli.live import follow
from cib_flows.cli.options import Common, build_options, common_options
from cib_flows.cli.output import (
    INTERRUPTED,
    describe_container,
    describe_failure,
    note,
    print_json,
)
from cib_flows.cli.publish import show_deliveries
from cib_flows.cli.specs import read_spec

if TYPE_CHECKING:
    from cib_flows.runs import BuildRun

__all__ = ["build", "see_to_the_end"]


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
    see_to_the_end(run, common, f"{spec.name}:{spec.tag}, run {run.run_id}")


def see_to_the_end(run: BuildRun, common: Common, title: str) -> None:
    """Follows a run and ends the program as the run ended: 0 with a container, 1 without.

    After Ctrl-C the exit code is 130 and the run goes on.
    """
    from cib_flows.publishing import PublishRun

    started = time.monotonic()
    try:
        # nobody sees the build's log then, and each look at it takes a call of a function
        is_shown = not common.json or sys.stderr.isatty()
        last = follow(run.watch(follow_log=is_shown), title, quiet=common.json)
    except KeyboardInterrupt:
        sentence = (
            f"The run {run.run_id} goes on. Come back to it with "
            f"'cib-flows wait{common.as_words} {run.run_id}', end it with "
            f"'cib-flows cancel{common.as_words} {run.run_id}'."
        )
        note("")
        note(sentence)
        if common.json:
            print_json(
                {"ok": False, "run_id": run.run_id, "error": {"message": sentence, "hint": None}}
            )
        sys.exit(INTERRUPTED)
    if isinstance(run, PublishRun) and last.status != "INACTIVE":
        show_deliveries(run, common, last.status)
    if last.status == "SUCCEEDED":
        container = run.result()
        if common.json:
            print_json(
                {
                    "ok": True,
                    "run_id": run.run_id,
                    "status": last.status,
                    **container.as_dict(),
                }
            )
        else:
            describe_container(container, time.monotonic() - started, common.as_words)
        return
    if last.status == "INACTIVE":
        sentence = run.inactive_reason()
        note(f"Error: {sentence}")
        if common.json:
            print_json(
                {
                    "ok": False,
                    "run_id": run.run_id,
                    "status": last.status,
                    "failure": {"sentence": sentence, "code": "inactive"},
                }
            )
        sys.exit(1)
    failure = run.failure()
    describe_failure(failure, run.run_id)
    if common.json:
        print_json(
            {
                "ok": False,
                "run_id": run.run_id,
                "status": last.status,
                "failure": failure.as_dict(),
            }
        )
    sys.exit(1)
