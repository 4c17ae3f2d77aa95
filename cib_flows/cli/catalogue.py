"""The verbs of ``containers`` that manage the catalogue: names, registration, removal, retention."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cib_flows.cli.options import (
    Common,
    catalogue_option,
    common_options,
    limit_option,
    move_option,
    run_endpoint_option,
)
from cib_flows.cli.output import human_size, note, print_json

if TYPE_CHECKING:
    from cib_flows.catalogue import Catalogue

__all__ = ["VERBS"]

reference_argument = click.argument("reference", metavar="CONTAINER")

_Command = TypeVar("_Command", bound=Callable[..., Any])

SIZES = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class _Amount(click.ParamType):
    """A number with a unit, such as 500G or 30d."""

    def __init__(self, name: str, units: dict[str, int], wanted: str) -> None:
        self.name = name
        self._units = units
        self._wanted = wanted

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        units = "".join(self._units)
        found = re.fullmatch(rf"([0-9]+)([{units}]?)(i?B)?", str(value).strip())
        if not found or found[2] not in self._units or (found[3] and "K" not in self._units):
            self.fail(f"{value!r} is not {self._wanted}.", param, ctx)
        return int(found[1]) * self._units[found[2]]


SIZE = _Amount("SIZE", SIZES, "a size such as 500G (units K, M, G, T)")
TIME = _Amount("TIME", TIMES, "a time such as 30d (units s, m, h, d)")


def _catalogue(common: Common, build_endpoint: str | None) -> Catalogue:
    from cib_flows.catalogue import Catalogue

    return Catalogue(common.connect(), build_endpoint)


def _comes_as(sha256_help: str) -> Callable[[_Command], _Command]:
    """The options of the verbs that bring an image into the catalogue."""

    def decorate(command: _Command) -> _Command:
        command = move_option(command)
        return click.option("--sha256", help=sha256_help)(run_endpoint_option(command))

    return decorate


def _tell_name(common: Common, answer: dict[str, Any]) -> None:
    name = f"{answer['name']}:{answer['tag']}"
    _tell(common, answer, f"{name} is {answer['container_id']}, {answer['path']}")


def _tell(common: Common, answer: dict[str, Any], sentence: str) -> None:
    if common.json:
        print_json(answer)
    else:
        click.echo(sentence)


@click.command(short_help="Give a container a further name.")
@reference_argument
@click.argument("name_tag", metavar="NAME:TAG")
@move_option
@catalogue_option
@common_options
def tag(
    common: Common, reference: str, name_tag: str, move: bool, build_endpoint: str | None
) -> None:
    """Give CONTAINER the further name NAME:TAG; a TAG alone belongs to the container's own name."""
    answer = _catalogue(common, build_endpoint).tag(reference, name_tag, move=move)
    name = f"{answer['name']}:{answer['tag']}"
    _tell(common, answer, f"{name} is {answer['container_id']}")


@click.command(short_help="Take a name away.")
@click.argument("name_tag", metavar="NAME:TAG")
@catalogue_option
@common_options
def untag(common: Common, name_tag: str, build_endpoint: str | None) -> None:
    """Take NAME:TAG away; its container stays until gc lets it go."""
    answer = _catalogue(common, build_endpoint).untag(name_tag)
    _tell(common, answer, f"{name_tag} no longer names {answer['container_id']}")


@click.command(short_help="Keep a container whatever its age.")
@reference_argument
@click.option("--why", default="", help="A reason, for whoever wonders later.")
@catalogue_option
@common_options
def pin(common: Common, reference: str, why: str, build_endpoint: str | None) -> None:
    """Keep CONTAINER whatever its age and the space it takes, until it is unpinned."""
    answer = _catalogue(common, build_endpoint).pin(reference, why)
    _tell(common, answer, f"{answer['container_id']} is pinned")


@click.command(short_help="End a pin.")
@reference_argument
@catalogue_option
@common_options
def unpin(common: Common, reference: str, build_endpoint: str | None) -> None:
    """Let gc decide about CONTAINER again."""
    answer = _catalogue(common, build_endpoint).unpin(reference)
    _tell(common, answer, f"{answer['container_id']} is not pinned")


@click.command(short_help="Register an image that exists.")
@click.argument("path", metavar="PATH")
@click.argument("name_tag", metavar="NAME:TAG")
@_comes_as("What the file must have.")
@catalogue_option
@common_options
def register(
    common: Common,
    path: str,
    name_tag: str,
    sha256: str | None,
    run_endpoint: str | None,
    move: bool,
    build_endpoint: str | None,
) -> None:
    """Prove the SIF image PATH and register it as NAME:TAG.

    PATH lies on the endpoint: below its root, or in its staging collection, where Globus Transfer
    brought it. The file moves into the catalogue. A record beside it is taken over.
    """
    answer = _catalogue(common, build_endpoint).register(
        path, name_tag, sha256=sha256, run_endpoint=run_endpoint, move=move
    )
    _tell_name(common, answer)


@click.command(short_help="Prove a container again.")
@reference_argument
@click.option("--only-trust", is_flag=True, help="Check bytes, signatures and policy; run nothing.")
@catalogue_option
@common_options
def verify(common: Common, reference: str, only_trust: bool, build_endpoint: str | None) -> None:
    """Prove that CONTAINER is unchanged, that the site's policy allows it, and that what it was
    registered for still works.
    """
    answer = _catalogue(common, build_endpoint).verify(reference, only_trust=only_trust)
    trust = answer.get("trust") or {}
    signed = f"signed by {trust['signer'][:16]}…" if trust.get("signer") else "not signed"
    works = "" if only_trust else f" and works; {answer['verification_path']}"
    _tell(common, answer, f"{answer['container_id']} is unchanged, {signed}{works}")


@click.command(short_help="Push an image to a registry.")
@reference_argument
@click.argument("artifact", metavar="oras://HOST/NAME:TAG")
@catalogue_option
@common_options
def push(common: Common, reference: str, artifact: str, build_endpoint: str | None) -> None:
    """Push the image of CONTAINER to a registry, with the endpoint's own login there."""
    answer = _catalogue(common, build_endpoint).push(reference, artifact)
    _tell(common, answer, f"{answer['reference']} has the sha256 {answer['sha256']}")


@click.command(short_help="Pull or download an image and register it.")
@click.argument("artifact", metavar="ADDRESS")
@click.argument("name_tag", metavar="NAME:TAG")
@_comes_as("What the image must have; needed for https.")
@catalogue_option
@common_options
def pull(
    common: Common,
    artifact: str,
    name_tag: str,
    sha256: str | None,
    run_endpoint: str | None,
    move: bool,
    build_endpoint: str | None,
) -> None:
    """Bring the image at ADDRESS to the endpoint, prove it and register it as NAME:TAG.

    ADDRESS is oras://HOST/NAME:TAG of a registry, or an https address of a SIF file. What broke off
    goes on where it stopped when the command is given again.
    """
    answer = _catalogue(common, build_endpoint).pull(
        artifact, name_tag, sha256=sha256, run_endpoint=run_endpoint, move=move
    )
    _tell_name(common, answer)


@click.command(short_help="Remove a container.")
@reference_argument
@click.option("--force", is_flag=True, help="Take its tags and pin away as well.")
@catalogue_option
@common_options
def remove(common: Common, reference: str, force: bool, build_endpoint: str | None) -> None:
    """Move CONTAINER to the endpoint's trash, which gc empties later.

    Refused while it has tags or a pin, unless forced, and always while it is being used.
    """
    answer = _catalogue(common, build_endpoint).remove(reference, force=force)
    size = human_size(int(answer["bytes"]))
    _tell(common, answer, f"{answer['container_id']} ({size}) is in the trash {answer['trash']}")


@click.command(short_help="Show what happened to a name.")
@click.argument("name", metavar="NAME")
@limit_option(100)
@catalogue_option
@common_options
def history(common: Common, name: str, limit: int, build_endpoint: str | None) -> None:
    """Show when containers called NAME were registered, tagged, verified and removed."""
    events = _catalogue(common, build_endpoint).history(name, limit)
    if common.json:
        print_json({"ok": True, "events": events})
        return
    for event in events:
        what = " ".join(str(event[key]) for key in ("event", "tag") if event.get(key))
        if event.get("ok") is False:
            what += f" and refused ({event.get('code')})"
        click.echo(f"{event['at']}  {event['container_id']}  {event['account']}  {what}")


@click.command(short_help="Remove what the retention rules let go.")
@click.option("--dry-run", is_flag=True, help="Only show what would go.")
@click.option("--max-size", type=SIZE, help="Of all images together, such as 500G.")
@click.option("--max-age", type=TIME, help="Since an image was made or last used, such as 30d.")
@click.option("--keep-last", type=click.IntRange(min=0), help="Of each name, the newest so many.")
@click.option("--runs-age", type=TIME, help="Of folders of runs that have ended.")
@click.option("--cache-size", type=SIZE, help="Empty the build engine's cache when it is larger.")
@click.option("--empty-trash", is_flag=True, help="Delete what was removed before, at once.")
@catalogue_option
@common_options
def gc(
    common: Common,
    dry_run: bool,
    max_size: int | None,
    max_age: int | None,
    keep_last: int | None,
    runs_age: int | None,
    cache_size: int | None,
    empty_trash: bool,
    build_endpoint: str | None,
) -> None:
    """Remove images that nothing holds, old runs and caches, by the site's retention rules and
    these options.

    What a tag, a pin, a lease or a run under way holds stays. Images go to the trash first.
    """
    given = {
        "max_bytes": max_size,
        "max_age_s": max_age,
        "keep_last": keep_last,
        "runs_age_s": runs_age,
        "cache_bytes": cache_size,
    }
    rules = {key: float(value) for key, value in given.items() if value is not None}
    answer = _catalogue(common, build_endpoint).collect_garbage(
        dry_run=dry_run, rules=rules, empty_trash=empty_trash
    )
    if common.json:
        print_json(answer)
        return
    does = "would go" if dry_run else "gone"
    for kind, what in (
        ("images", "images to the trash"),
        ("trash", "from the trash"),
        ("runs", "folders of old runs"),
        ("work", "work areas of dead runs"),
        ("incoming", "fetched and never registered"),
        ("locks", "locks of old runs"),
        ("cache", "caches"),
    ):
        found = answer[kind]
        size = human_size(int(found["bytes"]))
        click.echo(f"{found['count']:6d}  {size:>9s}  {what}")
        for name in found["names"]:
            note(f"    {does}: {name}")
    click.echo(f"all images {human_size(int(answer['total_bytes']))}, {answer['held']} held")
    if answer["over_bytes"]:
        over = human_size(int(answer["over_bytes"]))
        note(f"What has to stay is still {over} more than allowed: untag or unpin some.")
    note(f"The whole list is in {answer['report_path']} on the endpoint.")


@click.command(short_help="Make index and lost records anew.")
@catalogue_option
@common_options
def reindex(common: Common, build_endpoint: str | None) -> None:
    """Make the index, and records, tags and pointers that are lost, anew from the images."""
    answer = _catalogue(common, build_endpoint).reindex()
    if common.json:
        print_json(answer)
        return
    click.echo(f"{answer['containers']} containers")
    for kind in ("recovered", "damaged", "missing"):
        for path in answer[kind]:
            note(f"{kind}: {path}")


VERBS: tuple[click.Command, ...] = (
    register,
    tag,
    untag,
    pin,
    unpin,
    verify,
    push,
    pull,
    remove,
    history,
    gc,
    reindex,
)
