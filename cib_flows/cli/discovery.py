"""``containers publish-search|withdraw-search|search``: containers in a Globus Search index."""

from __future__ import annotations

import click

from cib_flows.cli.options import Common, catalogue_option, common_options, limit_option
from cib_flows.cli.output import note, print_json

__all__ = ["publish_search", "search", "withdraw_search"]


@click.command("publish-search", short_help="Make containers known in a search index.")
@click.argument("index", metavar="INDEX")
@click.argument("references", metavar="[CONTAINER]…", nargs=-1)
@click.option(
    "--visible-to",
    multiple=True,
    required=True,
    help="public, all_authenticated_users, or an identity's or group's URN; may be repeated.",
)
@catalogue_option
@common_options
def publish_search(
    common: Common,
    index: str,
    references: tuple[str, ...],
    visible_to: tuple[str, ...],
    build_endpoint: str | None,
) -> None:
    """Write the records of CONTAINERs to the Globus Search index INDEX, over what stood there of them.

    Without CONTAINERs all are written, and those that the catalogue no longer has are taken out.
    """
    from cib_flows.catalogue import Catalogue
    from cib_flows.discovery import publish_records, withdraw_missing

    catalogue = Catalogue(common.connect(), build_endpoint)
    count = publish_records(catalogue, index, visible_to, references or None)
    withdrawn = 0 if references else withdraw_missing(catalogue, index)
    if common.json:
        print_json({"ok": True, "index": index, "published": count, "withdrawn": withdrawn})
        return
    click.echo(f"{count} containers were sent to the index {index}")
    if withdrawn:
        click.echo(f"{withdrawn} that are gone were taken out of it")


@click.command("withdraw-search", short_help="Take containers out of a search index.")
@click.argument("index", metavar="INDEX")
@click.argument("references", metavar="CONTAINER…", nargs=-1, required=True)
@catalogue_option
@common_options
def withdraw_search(
    common: Common, index: str, references: tuple[str, ...], build_endpoint: str | None
) -> None:
    """Take what this endpoint published of CONTAINERs out of the Globus Search index INDEX.

    A container that the catalogue no longer has is named by its whole id.
    """
    from cib_flows.catalogue import Catalogue
    from cib_flows.discovery import withdraw_records

    catalogue = Catalogue(common.connect(), build_endpoint)
    count = withdraw_records(catalogue, index, references)
    if common.json:
        print_json({"ok": True, "index": index, "withdrawn": count})
    else:
        click.echo(f"{count} containers of this endpoint are not in the index {index} any more")


@click.command("search", short_help="Find containers in a search index.")
@click.argument("query", metavar="QUERY")
@click.option("--index", metavar="INDEX", required=True, help="The index's id.")
@limit_option(20, most=100)
@common_options
def search(common: Common, query: str, index: str, limit: int) -> None:
    """Find containers by words of their names, packages, bases or descriptions."""
    from cib_flows.discovery import search_containers

    found = search_containers(common.connect(), index, query, limit)
    if common.json:
        print_json({"ok": True, "containers": found})
        return
    for row in found:
        click.echo(f"{row['container_id']}  {row['endpoint_id']}  {row['name']}  {row['path']}")
    if not found:
        note("None fits.")
