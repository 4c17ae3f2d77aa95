"""``validate`` and ``render``: what can be said about a spec without any Globus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cib_flows.cli.options import Common, common_options, spec_argument
from cib_flows.cli.output import note, print_json
from cib_flows.errors import CibFlowsError, SpecError, UsageError
from cib_flows.quick_start import load_jsonschema

if TYPE_CHECKING:
    from cib_flows.spec import ContainerSpec

__all__ = ["read_spec", "render", "validate"]

ENDPOINT_PACKAGE = "globus-compute-endpoint"
WORKER_PACKAGES = (ENDPOINT_PACKAGE, "parsl")


def read_spec(spec_path: str) -> ContainerSpec:
    """The spec in a file, or on standard input where the path is ``-``. Raises ``SpecError``."""
    load_jsonschema()
    from cib_flows.spec import ContainerSpec

    if spec_path != "-":
        return ContainerSpec.from_file(spec_path)
    try:
        text = click.get_text_stream("stdin", encoding="utf-8", errors="strict").read()
    except UnicodeDecodeError:
        raise SpecError("Standard input is not a text file in UTF-8.") from None
    return ContainerSpec.from_text(text, "Standard input")


@click.command(short_help="Check a spec.")
@spec_argument
@common_options
def validate(common: Common, spec_path: str) -> None:
    """Check SPEC and say whether a build would take it. Needs no Globus."""
    spec = read_spec(spec_path)
    if common.json:
        print_json({"ok": True, "name": spec.name, "tag": spec.tag, "digest": spec.digest})
    else:
        click.echo(f"{spec.name}:{spec.tag} is valid; spec digest {spec.digest}")


@click.command(short_help="Print the recipe of a spec.")
@spec_argument
@click.option(
    "--worker",
    metavar="NAME==VERSION,…",
    help=f"Versions of {' and '.join(WORKER_PACKAGES)}; by default those installed here, "
    "else those of the last image built.",
)
@common_options
def render(common: Common, spec_path: str, worker: str | None) -> None:
    """Print the Apptainer recipe of SPEC, and nothing else. Needs no Globus, endpoint or Apptainer.

    The build endpoint renders it again, with its own versions and the base image's digest.
    """
    from cib_flows.functions._shared.recipe import render_text
    from cib_flows.functions._shared.results import StepFailed

    spec = read_spec(spec_path)
    versions, source = _worker_versions(common, worker)
    try:
        fields = spec.complete()
        if fields["worker"] not in ("endpoint", "none") and versions:
            versions[ENDPOINT_PACKAGE] = fields["worker"]
        recipe = render_text(fields, versions or None, None)
    except StepFailed as failed:
        raise SpecError(failed.message, hint=failed.hint or None) from None
    if fields["worker"] == "none":
        source = "none, as the spec asks"
    elif not versions:
        source = "unknown here; the build endpoint fills in the lines of "
        source += f"{' and '.join(WORKER_PACKAGES)} with its own versions"
    if common.json:
        print_json({"ok": True, "recipe": recipe, "worker": versions, "worker_source": source})
        return
    note(f"Worker versions: {source}.")
    click.echo(recipe, nl=not recipe.endswith("\n"))


def _worker_versions(common: Common, given: str | None) -> tuple[dict[str, str], str]:
    """The versions of the worker's packages, and where they come from in words."""
    if given is not None:
        return _parse_worker(given), "from --worker"
    installed = _installed()
    if installed:
        return installed, f"those installed here ({_shown(installed)})"
    deployed = _deployed(common)
    if deployed:
        return deployed, f"those of the last image that was built ({_shown(deployed)})"
    return {}, ""


def _parse_worker(given: str) -> dict[str, str]:
    versions: dict[str, str] = {}
    for part in given.split(","):
        name, equals, version = (word.strip() for word in part.partition("=="))
        valid = version.replace(".", "").isalnum() and version[:1].isdigit()
        if name not in WORKER_PACKAGES or not equals or not valid:
            raise UsageError(
                f"--worker has {part.strip()!r}, which is not one of "
                f"{' and '.join(f'{package}==VERSION' for package in WORKER_PACKAGES)}."
            )
        versions[name] = version
    missing = [name for name in WORKER_PACKAGES if name not in versions]
    if missing:
        raise UsageError(
            f"--worker does not say which {missing[0]}; give both, separated by a comma."
        )
    return versions


def _installed() -> dict[str, str]:
    from importlib import metadata

    try:
        return {name: metadata.version(name) for name in WORKER_PACKAGES}
    except metadata.PackageNotFoundError:
        return {}


def _deployed(common: Common) -> dict[str, str]:
    from cib_flows.deployment_record import read_record
    from cib_flows.profiles import record_place

    try:
        record: Any = read_record(record_place(common.profile, common.home))
    except CibFlowsError:
        return {}
    return dict(record.worker) if record else {}


def _shown(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
