"""``start``, ``runs``, ``status``, ``logs``, ``wait``, ``cancel`` and ``resume``: runs one by one."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

import click

from cib_flows.cli.ending import see_to_the_end
from cib_flows.cli.options import Common, build_options, common_options, limit_option, spec_argument
from cib_flows.cli.output import note, print_json
from cib_flows.cli.specs import read_spec
from cib_flows.errors import UsageError

__all__ = ["cancel", "logs", "resume", "runs", "start", "status", "wait"]

run_argument = click.argument("run_id", metavar="RUN")


@click.command(short_help="Start a build and return at once.")
@spec_argument
@build_options
@common_options
def start(
    common: Common,
    spec_path: str,
    label: str | None,
    force: bool,
    build_endpoint: str | None,
    run_endpoint: str | None,
) -> None:
    """Start a build of SPEC and print the run's id."""
    spec = read_spec(spec_path)
    from cib_flows.builder import ContainerBuilder

    builder = ContainerBuilder(
        globus=common.connect(), build_endpoint=build_endpoint, run_endpoint=run_endpoint
    )
    run = builder.build(
        spec, label, force=True if force else None, say=None if common.json else note
    )
    if common.json:
        print_json({"ok": True, "run_id": run.run_id})
    else:
        click.echo(run.run_id)


@click.command(short_help="List the newest runs.")
@limit_option(20)
@common_options
def runs(common: Common, limit: int) -> None:
    """List the runs of the deployed flows that you may see, newest first."""
    from cib_flows.run_status import newest_runs

    found = newest_runs(common.connect(), limit)
    if common.json:
        print_json({"ok": True, "runs": [asdict(run) for run in found]})
        return
    for run in found:
        click.echo(f"{run.run_id}  {run.status:9s}  {run.started_at:32s}  {run.label}")
    if not found:
        note("There is no run yet.")


@click.command(short_help="Say where a run is.")
@run_argument
@common_options
def status(common: Common, run_id: str) -> None:
    """Say where the run RUN is, and why it failed if it did; exits with 1 then."""
    from cib_flows.progress import newest_entries, step_in, title_of
    from cib_flows.publishing import attach_run

    globus = common.connect()
    run = attach_run(globus, run_id)
    now = run.status()
    step = step_in(newest_entries(globus, run.run_id)) or ""
    document: dict[str, Any] = {"ok": now.status != "FAILED", **asdict(now), "step": step}
    if now.status == "FAILED":
        document["failure"] = run.failure().as_dict()
    elif now.status == "INACTIVE":
        document["description"] = run.inactive_reason()
    if common.json:
        print_json(document)
    else:
        click.echo(f"{now.status}  {now.label}")
        click.echo(f"started  {now.started_at}")
        if now.completed_at:
            click.echo(f"ended    {now.completed_at}")
        if step and not now.is_over:
            click.echo(f"step     {title_of(step)}")
        failure = document.get("failure", {})
        click.echo(failure.get("sentence") or document["description"])
        if failure.get("hint"):
            click.echo(f"Hint: {failure['hint']}")
    sys.exit(0 if document["ok"] else 1)


@click.command(short_help="Print a run's log.")
@run_argument
@click.option("--build-log", is_flag=True, help="The end of the build's own log instead.")
@common_options
def logs(common: Common, run_id: str, build_log: bool) -> None:
    """Print what the flow wrote down about the run RUN, or the end of the build's own log."""
    from cib_flows.publishing import attach_run

    run = attach_run(common.connect(), run_id)
    if build_log:
        text, path = run.build_log_tail()
        if common.json:
            print_json({"ok": True, "run_id": run.run_id, "log_path": path, "log": text})
        else:
            click.echo(text, nl=False)
            note(f"The whole log lies on the endpoint: {path}")
        return
    entries = run.logs()
    if common.json:
        print_json({"ok": True, "run_id": run.run_id, "entries": entries})
        return
    for entry in entries:
        click.echo(f"{entry.get('time')}  {entry.get('code'):24s} {entry.get('description')}")


@click.command(short_help="Wait for a run.")
@run_argument
@common_options
def wait(common: Common, run_id: str) -> None:
    """Follow the run RUN to its end, as 'build' does. Exits with 1 if it failed."""
    from cib_flows.publishing import attach_run

    run = attach_run(common.connect(), run_id)
    see_to_the_end(run, common, f"run {run.run_id}")


@click.command(short_help="Cancel a run and stop its build.")
@run_argument
@common_options
def cancel(common: Common, run_id: str) -> None:
    """Cancel the run RUN and tell its endpoint to stop building."""
    from cib_flows.publishing import attach_run

    run = attach_run(common.connect(), run_id)
    cancelled = run.cancel()
    if common.json:
        print_json({"ok": True, "run_id": run.run_id, "cancelled": cancelled})
    elif cancelled:
        click.echo(f"The run {run.run_id} is cancelled.")
    else:
        click.echo(f"The run {run.run_id} had ended already.")


@click.command(short_help="Let a paused run go on.")
@run_argument
@common_options
def resume(common: Common, run_id: str) -> None:
    """Let the run RUN go on after the consent that it waits for was given."""
    from cib_flows.publishing import attach_run

    run = attach_run(common.connect(), run_id)
    now = run.status()
    if now.status != "INACTIVE":
        raise UsageError(
            f"The run {run.run_id} is {now.status}; only an INACTIVE run can be resumed."
        )
    run.resume()
    if common.json:
        print_json({"ok": True, "run_id": run.run_id})
    else:
        click.echo(f"The run {run.run_id} goes on.")
