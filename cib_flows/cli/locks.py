"""``containers lock`` and ``containers diff``: what exactly is in an image, and in one but not another."""

from __future__ import annotations

import json
from typing import Any

import click

from cib_flows.cli.options import Common, catalogue_option, common_options
from cib_flows.cli.output import human_size, note, print_json

__all__ = ["diff", "lock"]

MAX_SHOWN = 40


@click.command(short_help="Print what exactly a container holds.")
@click.argument("reference", metavar="CONTAINER")
@catalogue_option
@common_options
def lock(common: Common, reference: str, build_endpoint: str | None) -> None:
    """Print the lock of CONTAINER: its base and every package with version and hash, as JSON.

    'cib-flows build --locked FILE' builds from it again, at any site.
    """
    from cib_flows.catalogue import Catalogue

    answer = Catalogue(common.connect(), build_endpoint).lock(reference)
    if common.json:
        print_json(answer)
        return
    click.echo(json.dumps(answer["lock"], indent=1, sort_keys=True))
    for sentence in answer["lock"].get("unknown") or []:
        note(f"Not known: {sentence}")


@click.command(short_help="Say what differs between two containers.")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--content", is_flag=True, help="Compare the files in both images too.")
@catalogue_option
@common_options
def diff(
    common: Common, first: str, second: str, content: bool, build_endpoint: str | None
) -> None:
    """Say what B has otherwise than A: base, packages, environment, recipe, size.

    With --content every file is compared, whatever their times; what takes no part is told with --json.
    """
    from cib_flows.catalogue import Catalogue

    found = Catalogue(common.connect(), build_endpoint).diff(first, second, content=content)
    if common.json:
        print_json(found)
        return
    for line in describe_difference(found):
        click.echo(line)


def describe_difference(found: dict[str, Any]) -> list[str]:
    """The lines that tell a person what ``diff_containers`` found."""
    if found["same_image"]:
        return ["Both are the same image."]
    lines = []
    if found["base"]:
        was, now = (str(digest or "unknown")[:19] for digest in found["base"]["digests"])
        lines.append(f"base: {' became '.join(map(str, found['base']['images']))} ({was}, {now})")
    tables = [*found["packages"].items(), ("environment", found["environment"])]
    for kind, table in tables:
        rows = [f"+ {name} {version}" for name, version in table["added"].items()]
        rows += [f"- {name} {version}" for name, version in table["removed"].items()]
        rows += [f"  {name} {was} -> {now}" for name, (was, now) in table["changed"].items()]
        lines += [f"{kind}: {row}" for row in _cut(rows, table["total"])]
    lines += _cut([f"recipe: {line}" for line in found["recipe"][2:]], len(found["recipe"]) - 2)
    lines.append(f"size: {'+' if found['bytes'] >= 0 else '-'}{human_size(abs(found['bytes']))}")
    content = found.get("content")
    if content and content["identical"]:
        lines.append("Their files are content-identical.")
    elif content:
        rows = [f"{row['path']}: {row['what']}" for row in content["differences"]]
        lines += _cut(rows, content["differing"])
        lines.append(f"{content['differing']} of {content['compared']} paths differ.")
    return lines


def _cut(rows: list[str], total: int) -> list[str]:
    """At most ``MAX_SHOWN`` rows, and how many of ``total`` are not shown."""
    shown = rows[:MAX_SHOWN]
    left = max(total, len(rows)) - len(shown)
    return [*shown, f"… and {left} more, see --json"] if left > 0 else shown
