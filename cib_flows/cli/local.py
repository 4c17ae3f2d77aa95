"""``cib-flows local``: the embedded Globus on this machine."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cib_flows.cli.options import home_option, json_option
from cib_flows.errors import UsageError

if TYPE_CHECKING:
    from cib_flows.local.home import Home, ServerRecord

__all__ = ["local"]

NO_COMPUTE_PORT = (
    "Port 5000 is not this home's, so globus_compute_sdk (Client, Executor) cannot reach it; "
    "everything else can."
)

Command = TypeVar("Command", bound=Callable[..., Any])


def _common(command: Command) -> Command:
    """The options of every command here."""
    return json_option(home_option(command))


def _home(path: str | None) -> Home:
    from cib_flows.local.home import Home

    return Home(path)


def _say(as_json: bool, document: Mapping[str, Any], text: str) -> None:
    click.echo(json.dumps(document, indent=2) if as_json else text)


def _describe(home: Home, record: ServerRecord | None) -> dict[str, Any]:
    """What ``start`` and ``status`` report."""
    document: dict[str, Any] = {"running": record is not None, "home": str(home.path)}
    if record is not None:
        client = home.client()
        document |= {
            "pid": record.pid,
            "url": record.url,
            "compute_url": "http://localhost:5000" if record.compute_port else None,
            "amqp_port": record.amqp_port,
            "endpoint_id": client.endpoint_id,
            "staging_collection_id": client.staging_collection_id,
            "log": str(home.log_path),
            "note": None if record.compute_port else NO_COMPUTE_PORT,
        }
    return document


def _text(document: Mapping[str, Any], headline: str) -> str:
    lines = [headline]
    if document["running"]:
        lines += [
            f"  pid        {document['pid']}",
            f"  services   {document['url']}",
            f"  endpoint   {document['endpoint_id']}",
            f"  staging    {document['staging_collection_id']}",
            f"  log        {document['log']}",
        ]
        if document["note"]:
            lines.append(f"  note       {document['note']}")
    return "\n".join(lines)


@click.group(short_help="Run Globus on this machine.")
def local() -> None:
    """Run Globus on this machine: Flows, Compute, Transfer and Auth on loopback."""


@local.command(short_help="Start the local Globus in the background.")
@_common
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port of the services  [default: chosen]."
)
@click.option(
    "--site",
    "site_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A site profile (JSON), merged over this home's default.",
)
@click.option("--no-compute-port", is_flag=True, help="Leave port 5000 alone.")
@click.option(
    "--broker",
    metavar="URL",
    envvar="CIB_FLOWS_LOCAL_BROKER",
    help="A RabbitMQ for endpoint daemons (amqp://…), or 'embedded'  [default: as last time].",
)
@click.option(
    "--faults",
    metavar="SPEC",
    help="Answer unreliably: KIND[:VALUE][@PATH]=RATE,…[,seed=N], with a KIND of latency (ms), "
    "429 (s), 500, 502, 503, 504, drop, lost, expired, lost-result, duplicate-result, "
    "kill-before (nth change), kill-after (nth change).",
)
def start(
    home_path: str | None,
    as_json: bool,
    port: int | None,
    site_path: Path | None,
    no_compute_port: bool,
    broker: str | None,
    faults: str | None,
) -> None:
    """Start the local Globus in the background; a running one is left alone."""
    _require_extra()
    from cib_flows.local import control

    home = _home(home_path)
    if faults is not None:
        from cib_flows.local.faults import parse_faults

        parse_faults(faults)
    started = control.start(
        home,
        port=port,
        site=_site(site_path) if site_path else None,
        compute_port=not no_compute_port,
        broker=broker,
        faults=faults,
    )
    document = _describe(home, started.record) | {"already_running": started.already}
    headline = "already runs" if started.already else "is up"
    text = _text(document, f"The local Globus in {home.path} {headline}.")
    if started.already and site_path:
        text += "\n  note       --site was not applied; stop the local Globus first."
    _say(as_json, document, text)


def _require_extra() -> None:
    """The client alone installs without what a server needs; say so before something fails to import."""
    needed = ("uvicorn", "starlette", "simpleeval", "pika", "globus_compute_endpoint")
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"The local Globus needs packages that are not installed here ({', '.join(missing)}); "
            "install cib-flows with its extra: pip install 'cib-flows[local]'."
        )


def _site(path: Path) -> dict[str, Any]:
    try:
        site = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as problem:
        raise UsageError(f"The site profile {path} is not readable JSON: {problem}.") from None
    if not isinstance(site, dict):
        raise UsageError(f"The site profile {path} must hold one JSON object.")
    return site


@local.command(short_help="Stop the local Globus.")
@_common
def stop(home_path: str | None, as_json: bool) -> None:
    """Stop the local Globus; what it knows is kept."""
    from cib_flows.local import control

    home = _home(home_path)
    stopped = control.stop(home)
    text = "has stopped" if stopped else "was not running"
    _say(
        as_json,
        {"home": str(home.path), "stopped": stopped},
        f"The local Globus in {home.path} {text}.",
    )


@local.command(short_help="Say whether the local Globus runs.")
@_common
def status(home_path: str | None, as_json: bool) -> None:
    """Say whether the local Globus runs, and where. Exit code 1 when it does not."""
    home = _home(home_path)
    document = _describe(home, home.running())
    verb = "runs" if document["running"] else "is not running"
    text = _text(document, f"The local Globus in {home.path} {verb}.")
    last = home.last_record()
    if not document["running"] and last is not None and last.pid is not None:
        text += f"\n  note       its last server (process {last.pid}) ended without being stopped."
    _say(as_json, document, text)
    if not document["running"]:
        raise SystemExit(1)


@local.command(short_help="Print what points the Globus clients at it.")
@_common
@click.option("--identity", metavar="NAME", help="Act as this identity  [default: the home's own].")
def env(home_path: str | None, as_json: bool, identity: str | None) -> None:
    """Print what points the Globus clients at it: eval "$(cib-flows local env)"."""
    home = _home(home_path)
    environment = home.environment()
    if identity is not None:
        from cib_flows.local.identities import Identities

        environment |= Identities.of_home(home).named(identity).environment()
    lines = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    _say(as_json, environment, "\n".join(lines))


@local.group(short_help="Declare and list collections.")
def collection() -> None:
    """Folders that the local Transfer service serves as collections."""


@collection.command("add", short_help="Serve a folder as a collection.")
@_common
@click.argument("name")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--data-access",
    is_flag=True,
    help="Flows may touch it only for those who consented, as on a mapped collection.",
)
def add_collection(
    home_path: str | None, as_json: bool, name: str, folder: Path, data_access: bool
) -> None:
    """Declare FOLDER as a collection called NAME, and print its id. May be done while the server
    runs."""
    from cib_flows.local.transfer.collections import Collections

    home = _home(home_path)
    home.client()
    added = Collections.of_home(home).add(name, folder, data_access)
    _say(as_json, added.document(), added.id)


@collection.command("list", short_help="List the collections.")
@_common
def list_collections(home_path: str | None, as_json: bool) -> None:
    """List the collections of a home."""
    from cib_flows.local.transfer.collections import Collections

    home = _home(home_path)
    home.client()
    found = Collections.of_home(home).all()
    text = "\n".join(f"{item.id}  {item.name}  {item.path}" for item in found)
    _say(as_json, {"collections": [item.document() for item in found]}, text)


@local.group(short_help="Declare, list and remove further endpoints.")
def endpoint() -> None:
    """Further Compute endpoints on this machine, to try several sites with."""


@endpoint.command("add", short_help="Declare a further endpoint.")
@_common
@click.argument("name")
@click.option(
    "--site",
    "site_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A site profile (JSON), merged over this endpoint's default.",
)
def add_endpoint(home_path: str | None, as_json: bool, name: str, site_path: Path | None) -> None:
    """Declare an endpoint called NAME with a root and a staging collection of its own, and print its
    id. May be done while the server runs."""
    from cib_flows.local.compute.sites import add_site

    home = _home(home_path)
    home.client()
    added = add_site(home, name, _site(site_path) if site_path else None)
    _say(as_json, vars(added), added.id)


@endpoint.command("list", short_help="List the further endpoints.")
@_common
def list_endpoints(home_path: str | None, as_json: bool) -> None:
    """List the further endpoints of a home."""
    from cib_flows.local.compute.sites import known_sites

    home = _home(home_path)
    home.client()
    found = known_sites(home)
    text = "\n".join(f"{entry.id}  {entry.name}  {entry.root}" for entry in found)
    _say(as_json, {"endpoints": [vars(entry) for entry in found]}, text)


@endpoint.command("remove", short_help="Take a further endpoint off.")
@_common
@click.argument("name")
def remove_endpoint(home_path: str | None, as_json: bool, name: str) -> None:
    """Take the endpoint NAME off; its root and its staging folder stay."""
    from cib_flows.local.compute.sites import remove_site

    home = _home(home_path)
    home.client()
    removed = remove_site(home, name)
    _say(as_json, vars(removed), f"{removed.name} is gone; its images stay in {removed.root}")


@local.command(short_help="Print a code for an application's login.")
@_common
@click.option(
    "--identity", metavar="NAME", help="Log in as this identity  [default: the home's own]."
)
def code(home_path: str | None, as_json: bool, identity: str | None) -> None:
    """Print a code for an application that waits for one to be pasted. Good once, for ten
    minutes."""
    from cib_flows.local.auth import AuthService
    from cib_flows.local.database import Database
    from cib_flows.local.identities import Identities

    home = _home(home_path)
    identities = Identities.of_home(home)
    known = identities.named(identity) if identity is not None else identities.own
    database = Database(home.database_path)
    try:
        service = AuthService(home.client().signing_key, identities, database)
        printed = service.issue("", [], "code", known.id)
    finally:
        database.close()
    _say(as_json, {"code": printed, "username": known.username}, printed)


@local.group(short_help="Declare and list further identities.")
def identity() -> None:
    """Identities beside the home's own, to try roles and permissions with."""


@identity.command("add", short_help="Declare an identity.")
@_common
@click.argument("name")
def add_identity(home_path: str | None, as_json: bool, name: str) -> None:
    """Declare an identity called NAME (alice, alice@example.org), and print its id. May be done
    while the server runs; 'local env --identity NAME' prints how to act as it."""
    from cib_flows.local.identities import Identities

    added = Identities.of_home(_home(home_path)).add(name)
    document = {
        "id": added.id,
        "username": added.username,
        "client_secret": added.secret,
        "token": added.token,
    }
    _say(as_json, document, added.id)


@identity.command("list", short_help="List the identities.")
@_common
def list_identities(home_path: str | None, as_json: bool) -> None:
    """List the identities of a home, its own first."""
    from cib_flows.local.identities import Identities

    found = Identities.of_home(_home(home_path)).all()
    text = "\n".join(f"{known.id}  {known.username}" for known in found)
    documents = [{"id": known.id, "username": known.username} for known in found]
    _say(as_json, {"identities": documents}, text)
