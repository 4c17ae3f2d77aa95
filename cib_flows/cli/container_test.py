"""``containers test``: one command in an image, started exactly as an endpoint starts its workers."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from cib_flows.cli.options import Common, catalogue_option, common_options
from cib_flows.cli.output import note, print_json

__all__ = ["container_test"]

STANDARD_ERROR = 2


@click.command(
    "test",
    short_help="Run a command on this computer as an endpoint would.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("reference", metavar="CONTAINER")
@click.argument("argv", metavar="[CMD]…", nargs=-1, type=click.UNPROCESSED)
@click.option("--site", default="local", show_default=True, help="Whose endpoint files to follow.")
@click.option(
    "--template",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="An endpoint's own user_config_template.yaml.j2, instead of --site.",
)
@click.option("--gpu", type=click.Choice(["nvidia", "amd"]), help="As a task's 'gpu' option.")
@catalogue_option
@common_options
def container_test(
    common: Common,
    reference: str,
    argv: tuple[str, ...],
    site: str,
    template: Path | None,
    gpu: str | None,
    build_endpoint: str | None,
) -> None:
    """Run CMD in CONTAINER on this computer, with the very command that the endpoint's template starts workers
    with, and exit with its exit code. CONTAINER may be the path of an image too. Without CMD, the Globus
    Compute worker says its version.

    This computer must see the image: it is for login nodes and workstations with the endpoint's file system.
    Write -- before a command that has options of its own.
    """
    from cib_flows.errors import UsageError
    from cib_flows.launching import shipped_template, sites, try_image

    if template is None and site not in sites():
        raise UsageError(
            f"There are no endpoint files for '{site}'; known are {', '.join(sites())}."
        )
    text = shipped_template(site) if template is None else template.read_text(encoding="utf-8")
    image = reference
    if "/" not in reference:
        from cib_flows.containers import Container

        image = Container.get(reference, common.connect(), build_endpoint).path
    command = argv or ("globus-compute-endpoint", "version")
    line: list[str] = []

    def tell(words: list[str]) -> None:
        line.extend(words)
        if not common.json:
            note(f"+ {shlex.join(words)}")

    # with --json, standard output holds the one document and nothing else
    code = try_image(text, image, command, gpu, tell, STANDARD_ERROR if common.json else None)
    code = code if code >= 0 else 128 - code
    if common.json:
        print_json({"ok": code == 0, "path": image, "command": line, "returncode": code})
    sys.exit(code)
