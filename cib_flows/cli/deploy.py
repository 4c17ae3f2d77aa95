"""``deploy``: put the functions and the flow on a Globus."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cib_flows.cli.options import COLLECTION, ENDPOINT, Common, common_options
from cib_flows.cli.output import note, print_json
from cib_flows.errors import UsageError
from cib_flows.flow_source import FLOWS

if TYPE_CHECKING:
    from cib_flows.profiles import Globus

__all__ = ["deploy"]


ROLE_OPTIONS = {
    "viewer": "flow_viewers",
    "starter": "flow_starters",
    "administrator": "flow_administrators",
    "run_manager": "run_managers",
    "run_monitor": "run_monitors",
}
PRINCIPAL = "PRINCIPAL"


@click.command(short_help="Register the functions and create or update the flow.")
@click.option("--build-endpoint", type=ENDPOINT, help="Endpoint that builds by default.")
@click.option("--run-endpoint", type=ENDPOINT, help="Endpoint that runs functions by default.")
@click.option(
    "--flow",
    "flows",
    multiple=True,
    type=click.Choice(FLOWS),
    help="Deploy this flow too, and give the roles to it; it stays part of the deployment.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option("--check", is_flag=True, help="Only compare; exit with 1 when something differs.")
@click.option("--force", is_flag=True, help="Register every function anew and send all roles.")
@click.option("--viewer", multiple=True, metavar=PRINCIPAL, help="May see the flow.")
@click.option("--starter", multiple=True, metavar=PRINCIPAL, help="May start runs.")
@click.option("--administrator", multiple=True, metavar=PRINCIPAL, help="May change the flow.")
@click.option("--run-manager", multiple=True, metavar=PRINCIPAL, help="May manage its runs.")
@click.option("--run-monitor", multiple=True, metavar=PRINCIPAL, help="May see its runs.")
@click.option("--subscription-id", metavar="UUID", help="Globus subscription, or DEFAULT.")
@click.option(
    "--data-access",
    multiple=True,
    type=COLLECTION,
    help="Mapped collection for whose data_access consent runs ask. Repeat for several.",
)
@click.option(
    "--allowed-functions",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write the endpoint administrator's allowed_functions there; - prints it.",
)
@common_options
def deploy(
    common: Common,
    build_endpoint: str | None,
    run_endpoint: str | None,
    flows: tuple[str, ...],
    dry_run: bool,
    check: bool,
    force: bool,
    subscription_id: str | None,
    data_access: tuple[str, ...],
    allowed_functions: str | None,
    **principals: tuple[str, ...],
) -> None:
    """Register the functions whose text is new and create or update the flow.

    That is the build flow, and every other one that was once named with --flow. Doing it again
    changes nothing. What is deployed is written to a record without secrets, whose path is printed.
    When something fails half-way, what was done is taken back.

    A PRINCIPAL is the URN of an identity or a group, all_authenticated_users, or (for --viewer)
    public. Each role may be given several times; the principals given for it replace those it had, and are remembered.
    """
    from dataclasses import asdict

    from cib_flows.allow_list import as_yaml
    from cib_flows.deployment import Choices, plan_deployment
    from cib_flows.deployment import deploy as put

    globus = common.connect()
    if check:
        _check(common, globus)
        return
    choices = Choices(
        build_endpoint=build_endpoint,
        run_endpoint=run_endpoint,
        roles={ROLE_OPTIONS[key]: list(names) for key, names in principals.items() if names},
        subscription_id=_subscription(subscription_id),
        data_access=list(data_access) or None,
        flows=flows,
    )
    if dry_run:
        plan = plan_deployment(globus, choices, force)
        if common.json:
            print_json({"ok": True, "plan": plan.as_dict()})
        else:
            for line in plan.lines():
                click.echo(line)
        return
    changes: list[str] = []
    deployment = put(globus, force=force, say=changes.append, choices=choices)
    if allowed_functions and not (common.json and allowed_functions == "-"):
        _write_list(allowed_functions, as_yaml(deployment, globus.record_path))
    if common.json:
        print_json(
            {
                "ok": True,
                "changes": changes,
                "record": str(globus.record_path),
                "deployment": asdict(deployment),
                "allowed_functions": deployment.allowed_functions,
            }
        )
        return
    for change in changes or ["nothing has changed"]:
        note(change)
    if allowed_functions == "-":
        return
    click.echo(f"flow            {deployment.flow_id}")
    for name, flow in sorted(deployment.further.items()):
        click.echo(f"{name:19s} {flow.flow_id}")
    click.echo(f"build endpoint  {deployment.build_endpoint}")
    click.echo(f"run endpoint    {deployment.run_endpoint}")
    for name, function in sorted(deployment.functions.items()):
        click.echo(f"{name:19s} {function.id}")
    click.echo(f"record          {globus.record_path}")


def _write_list(path: str, text: str) -> None:
    from cib_flows.files import write_whole

    if path == "-":
        click.echo(text, nl=False)
        return
    try:
        write_whole(Path(path), text)
    except OSError as problem:
        raise UsageError(
            f"{path} cannot be written: {problem.strerror or problem}.",
            hint="The flow is deployed all the same; give the command again with another file.",
        ) from None


def _check(common: Common, globus: Globus) -> None:
    from cib_flows.deployment import find_drift

    drift = find_drift(globus)
    if common.json:
        print_json({"ok": not drift, "drift": drift, "record": str(globus.record_path)})
    else:
        for line in drift or ["what is deployed is what the record and the files say"]:
            click.echo(line)
        if drift:
            note("'cib-flows deploy --dry-run' shows what a deployment would do about it;")
            note("roles that were changed on the service are sent again only with --force.")
    sys.exit(1 if drift else 0)


def _subscription(given: str | None) -> str | None:
    if given is None or given == "DEFAULT":
        return given
    try:
        return str(uuid.UUID(given))
    except ValueError:
        raise click.BadParameter(
            f"{given!r} is neither a subscription's UUID nor DEFAULT.",
            param_hint="--subscription-id",
        ) from None
