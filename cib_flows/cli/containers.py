"""``containers list|show|run|exec``: what has been registered, and running commands in it.

The verbs that change the catalogue are in ``cli.catalogue``.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TextIO

import click

from cib_flows.cli.catalogue import VERBS
from cib_flows.cli.container_test import container_test
from cib_flows.cli.discovery import publish_search, search, withdraw_search
from cib_flows.cli.locks import diff, lock
from cib_flows.cli.options import (
    Common,
    catalogue_option,
    common_options,
    launch_options,
    limit_option,
)
from cib_flows.cli.output import describe_container, human_size, note, print_json
from cib_flows.cli.publish import download, publish
from cib_flows.errors import UsageError

if TYPE_CHECKING:
    from cib_flows.containers import CommandResult, Container

__all__ = ["containers"]


@click.group(short_help="Find and manage registered containers, and run commands in them.")
def containers() -> None:
    """Find and manage registered containers, and run commands in them.

    CONTAINER is a name, name:tag, a container id, or an unambiguous beginning of one.
    """


for verb in (
    *VERBS,
    lock,
    diff,
    container_test,
    download,
    publish,
    publish_search,
    withdraw_search,
    search,
):
    containers.add_command(verb)


@containers.command("list", short_help="List what is registered.")
@limit_option(50)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--name", help="Only names that fit this pattern with * and ?.")
@click.option("--base", help="Only those whose base image holds this text.")
@click.option("--package", help="Only those asked to have it: numpy, or numpy==2.1.0.")
@click.option("--sort", type=click.Choice(["created", "name", "size"]), help="By default created.")
@catalogue_option
@common_options
def list_(
    common: Common,
    limit: int,
    everything: bool,
    name: str | None,
    base: str | None,
    package: str | None,
    sort: str | None,
    build_endpoint: str | None,
) -> None:
    """List the containers of a build endpoint's catalogue, newest first."""
    from cib_flows.catalogue import Catalogue

    catalogue = Catalogue(common.connect(), build_endpoint)
    most = None if everything else limit
    rows = catalogue.list(most, name=name, base=base, package=package, sort=sort)
    if common.json:
        print_json({"ok": True, "containers": rows})
        return
    for row in rows:
        tags = row.get("tags") or [row.get("tag")]
        own = [f"{row['name']}:{tag}" for tag in tags if tag]
        names = " ".join([*own, *row.get("other_names", [])]) or row["name"]
        size = human_size(int(row.get("bytes") or 0))
        where = " (shared)" if row.get("shared") else ""
        lost = " (its image is missing)" if row.get("image_is_missing") else ""
        created = row.get("created_at", "")
        click.echo(f"{row['container_id']}  {size:>9s}  {created}  {names}{where}{lost}")
    if not rows:
        note("No container is registered yet." if not (name or base or package) else "None fits.")
    elif len(rows) == most:
        note(f"These are {most}; there may be more, which --all shows.")


@containers.command(short_help="Show one container.")
@click.argument("reference", metavar="CONTAINER")
@catalogue_option
@common_options
def show(common: Common, reference: str, build_endpoint: str | None) -> None:
    """Show where CONTAINER lies and how to use it; with --json its whole record."""
    from cib_flows.containers import Container

    container = Container.get(reference, common.connect(), build_endpoint)
    if common.json:
        print_json({"ok": True, "container": container.as_dict(), "record": container.record})
    else:
        from cib_flows.host_runs import has_worker

        plain = not has_worker(container.record)
        describe_container(container, options=common.as_words, is_plain=plain)


@containers.command(
    "run",
    short_help="Run a Python script in a container.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("reference", metavar="CONTAINER")
@click.argument("script", type=click.File("r", encoding="utf-8"))
@click.argument("argv", metavar="ARGS…", nargs=-1, type=click.UNPROCESSED)
@launch_options
@catalogue_option
@common_options
def run(
    common: Common,
    reference: str,
    script: TextIO,
    argv: tuple[str, ...],
    timeout: float | None,
    gpu: str | None,
    ranks: int | None,
    build_endpoint: str | None,
) -> None:
    """Run the Python file SCRIPT of this computer in CONTAINER on its endpoint, and exit with the
    script's own exit code. The image needs a Python, and no Globus software.
    """
    from cib_flows.containers import Container

    try:
        source = script.read()
    except UnicodeDecodeError:
        raise UsageError(f"{script.name} is not a text file in UTF-8.") from None
    container = Container.get(reference, common.connect(), build_endpoint)
    done = container.run_script(
        source,
        argv,
        script=os.path.basename(script.name),
        gpu=gpu,
        ranks=ranks,
        timeout_s=timeout,
    )
    _leave(common, container, done)


@containers.command(
    "exec",
    short_help="Run a command in a container.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("reference", metavar="CONTAINER")
@click.argument("argv", metavar="CMD…", nargs=-1, required=True, type=click.UNPROCESSED)
@launch_options
@catalogue_option
@common_options
def exec_(
    common: Common,
    reference: str,
    argv: tuple[str, ...],
    timeout: float | None,
    gpu: str | None,
    ranks: int | None,
    build_endpoint: str | None,
) -> None:
    """Run CMD in CONTAINER through its endpoint, and exit with the command's own exit code.

    Options stand before CONTAINER, or before a -- and a command that has options of its own.
    """
    from cib_flows.containers import Container

    container = Container.get(reference, common.connect(), build_endpoint)
    _leave(common, container, container.run(argv, timeout, gpu=gpu, ranks=ranks))


def _leave(common: Common, container: Container, done: CommandResult) -> None:
    """Show what a program in a container said, and exit with its code."""
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
