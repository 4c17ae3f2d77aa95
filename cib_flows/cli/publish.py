"""``containers publish``: bring a container to other sites."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cib_flows.cli.ending import see_all_to_the_end, see_to_the_end
from cib_flows.cli.options import (
    COLLECTION,
    ENDPOINT,
    Common,
    catalogue_option,
    common_options,
    move_option,
)
from cib_flows.cli.output import human_size, print_json

if TYPE_CHECKING:
    from cib_flows.profiles import Globus
    from cib_flows.sites import Site

__all__ = ["download", "publish"]


@click.command(short_help="Bring a container to other sites, and register it there.")
@click.argument("reference", metavar="CONTAINER")
@click.option("--to", "names", multiple=True, metavar="SITE[,SITE]", help="Sites. Repeatable.")
@click.option("--endpoint", type=ENDPOINT, help="One more site: its endpoint.")
@click.option("--collection", type=COLLECTION, help="Files may go to this collection only.")
@click.option("--path", help="And there only below this folder.")
@click.option(
    "--sites", "sites_file", type=click.Path(path_type=Path), help="File that names sites."
)
@click.option("--as", "name_tag", default="", metavar="NAME:TAG", help="Name it so there.")
@move_option
@click.option("--source-endpoint", type=ENDPOINT, help="Whose catalogue has the container.")
@click.option(
    "--at-once", is_flag=True, help="A run for each site, so that none waits for another."
)
@click.option("--no-wait", is_flag=True, help="Print the run's id and return at once.")
@common_options
def publish(
    common: Common,
    reference: str,
    names: tuple[str, ...],
    endpoint: str | None,
    collection: str | None,
    path: str | None,
    sites_file: Path | None,
    name_tag: str,
    move: bool,
    source_endpoint: str | None,
    at_once: bool,
    no_wait: bool,
) -> None:
    """Bring CONTAINER to other sites by Globus Transfer; each checks it and registers it.

    SITE is a name in the file of sites, or a Compute endpoint's name or UUID. Exits with 1 when a site
    did not get it; the others have it all the same.
    """
    words = [word for given in names for word in given.split(",") if word]
    if not words and endpoint is None:
        raise click.UsageError("Name a site with --to, or its endpoint with --endpoint.")
    if endpoint is None and (collection or path):
        raise click.UsageError("--collection and --path belong to --endpoint.")
    if path is not None and (collection is None or not path.startswith("/")):
        raise click.UsageError("--path must begin with '/', and needs --collection.")
    from cib_flows.publishing import publish as start
    from cib_flows.publishing import publish_at_once

    globus = common.connect()
    sites = _sites(globus, words, sites_file)
    if endpoint is not None:
        from cib_flows.sites import Site

        sites.append(Site(endpoint, endpoint, collection, path))
    if at_once:
        runs = publish_at_once(
            reference, sites, globus, name_tag=name_tag, move=move, source_endpoint=source_endpoint
        )
        if no_wait:
            ids = [run.run_id for run in runs]
            print_json({"ok": True, "run_ids": ids}) if common.json else click.echo("\n".join(ids))
            return
        see_all_to_the_end(runs, [site.name for site in sites], common)
    run = start(
        reference, sites, globus, name_tag=name_tag, move=move, source_endpoint=source_endpoint
    )
    if no_wait:
        if common.json:
            print_json({"ok": True, "run_id": run.run_id})
        else:
            click.echo(run.run_id)
        return
    where = ", ".join(site.name for site in sites)
    see_to_the_end(run, common, f"{reference} to {where}, run {run.run_id}")


@click.command(short_help="Save a container's image on this computer.")
@click.argument("reference", metavar="CONTAINER")
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", is_flag=True, help="Replace FILE where there is one.")
@catalogue_option
@common_options
def download(
    common: Common, reference: str, target: Path, force: bool, build_endpoint: str | None
) -> None:
    """Save the image of CONTAINER as FILE, by HTTPS from the collection of its endpoint's staging.

    What broke off goes on where it stopped when the command is given again.
    """
    from cib_flows.downloading import download_container

    answer = download_container(reference, target, common.connect(), build_endpoint, force=force)
    if common.json:
        print_json(answer)
    else:
        size = human_size(int(answer["bytes"]))
        click.echo(f"{target} ({size}) is {answer['container_id']}, sha256 {answer['sha256']}")


def _sites(globus: Globus, words: list[str], sites_file: Path | None) -> list[Site]:
    from cib_flows.sites import find_site, read_sites

    known = read_sites(sites_file) if words else {}
    return [find_site(globus, word, known) for word in dict.fromkeys(words)]
