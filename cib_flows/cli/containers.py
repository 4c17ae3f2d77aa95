"""``containers list|show|exec``: what has been registered, and running commands in it."""

from __future__ import annotations

import sys

import click

from cib_flows.cli.deploy import EndpointId
from cib_flows.cli.options import Common, common_options
from cib_flows.cli.output import describe_container, human_size, print_json

__all__ = ["containers"]

endpoint_option = click.option(
    "--build-endpoint", type=EndpointId(), help="Whose catalogue; by default the deployment's."
)


@click.group(short_help="Find registered containers and run commands in them.")
def containers() -> None:
    """Find registered containers and run commands in them.

    CONTAINER is a name, name:tag, a container id, or an unambiguous beginning of one.
    """


@containers.command("list", short_help="List what is registered.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many; by default all.")
@endpoint_option
@common_options
def list_(common: Common, limit: int | None, build_endpoint: str | None) -> None:
    """List the containers of a build endpoint's catalogue, newest first."""
    from cib_flows.containers import list_containers

    rows = list_containers(common.connect(), limit, build_endpoint)
    if common.json:
        print_json({"ok": True, "containers": rows})
        return
    for row in rows:
        tags = row.get("tags") or [row.get("tag")]
        names = " ".join(f"{row['name']}:{tag}" for tag in tags if tag) or row["name"]
        size = human_size(int(row.get("bytes") or 0))
        click.echo(f"{row['container_id']}  {size:>9s}  {row.get('created_at', '')}  {names}")
    if not rows:
        click.echo("No container is registered yet.", err=True)


@containers.command(short_help="Show one container.")
@click.argument("reference", metavar="CONTAINER")
@endpoint_option
@common_options
def show(common: Common, reference: str, build_endpoint: str | None) -> None:
    """Show where CONTAINER lies and how to use it; with --json its whole record."""
    from cib_flows.containers import Container

    container = Container.get(reference, common.connect(), build_endpoint)
    if common.json:
        print_json({"ok": True, "container": container.as_dict(), "record": container.record})
    else:
        describe_container(container, options=common.as_words)


@containers.command(
    "exec",
    short_help="Run a command in a container.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("reference", metavar="CONTAINER")
@click.argument("argv", metavar="CMD…", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--timeout", type=click.FloatRange(min=0), help="Limit for the command, in seconds.")
@endpoint_option
@common_options
def exec_(
    common: Common,
    reference: str,
    argv: tuple[str, ...],
    timeout: float | None,
    build_endpoint: str | None,
) -> None:
    """Run CMD in CONTAINER through its endpoint, and exit with the command's own exit code.

    Write -- before a command that has options of its own.
    """
    from cib_flows.containers import Container

    container = Container.get(reference, common.connect(), build_endpoint)
    done = container.run(argv, timeout)
    if common.json:
        print_json(
            {
                "ok": done.returncode == 0,
                "container_id": container.container_id,
                "returncode": done.returncode,
                "stdout": done.stdout,
                "stderr": done.stderr,
            }
        )
    else:
        click.echo(done.stdout, nl=False)
        click.echo(done.stderr, nl=False, err=True)
    # A command killed by a signal has a negative code; shells show 128 + the signal.
    sys.exit(done.returncode if done.returncode >= 0 else 128 - done.returncode)
