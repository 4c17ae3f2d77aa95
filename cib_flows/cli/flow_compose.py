"""``flow compose``: the build inserted into another flow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from cib_flows.cli.options import Common, common_options
from cib_flows.cli.output import note, print_json
from cib_flows.errors import UsageError

__all__ = ["compose"]


@click.command(short_help="Insert the build into a flow.")
@click.argument("path", metavar="HOST", type=click.Path(dir_okay=False))
@click.option("--before", metavar="STATE", help="Every way to this state leads through the build.")
@click.option("--after", metavar="STATE", help="The way on from this state leads to the build.")
@click.option(
    "--schema",
    "schema_path",
    type=click.Path(dir_okay=False),
    help="The host's input schema; by default input_schema.json or schema.json beside HOST.",
)
@click.option(
    "--flow",
    "name",
    type=click.Choice(["build_container", "publish_container"]),
    default="build_container",
    show_default=True,
    help="What to insert.",
)
@click.option(
    "--prefix",
    help="Stands before the inserted states' names, and is the field of their document.  [default:"
    " Build or Publish]",
)
@click.option(
    "--property",
    "input_property",
    metavar="NAME",
    help="Property of the run's input that holds the spec.  [default: container_spec or"
    " publication]",
)
@click.option(
    "--spec",
    "spec_path",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="A spec that every run builds.",
)
@click.option(
    "--inputs",
    "template_path",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="A template of the input, as in Parameters, with '.$' and '.=' fields.",
)
@click.option("--spec-path", "spec_place", metavar="$.PATH", help="Where the host has the input.")
@click.option(
    "--to",
    "result",
    metavar="$.PATH",
    help="Where the result goes.  [default: $.container or $.published]",
)
@click.option("--on-failure", metavar="STATE", help="The host's state to go to when it fails.")
@click.option(
    "--failure-to",
    "failure",
    metavar="$.PATH",
    help="Where the reason goes then.  [default: $.build_failure or $.publish_failure]",
)
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    type=click.Path(dir_okay=False),
    help="Write the definition to this file, and its input schema beside it.",
)
@common_options
def compose(
    common: Common,
    path: str,
    before: str | None,
    after: str | None,
    schema_path: str | None,
    name: str,
    prefix: str | None,
    input_property: str | None,
    spec_path: str | None,
    template_path: str | None,
    spec_place: str | None,
    result: str | None,
    on_failure: str | None,
    failure: str | None,
    output: str | None,
) -> None:
    """Insert the states of the build, or of publishing, into the flow in HOST, before or after one of its states.

    HOST is JSON or YAML: a definition, or a whole flow with its definition and input_schema. The
    functions and endpoints are those of the deployment. Without -o one document with definition and
    input_schema is printed, which 'cib-flows flow lint' and 'cib-flows flow graph' read.
    """
    from cib_flows.flow import compose as composed
    from cib_flows.flow_files import read_flow, read_object, schema_file_for
    from cib_flows.flow_parts import NAMES, flow_part, recorded_deployment

    if len([1 for given in (input_property, spec_path, template_path, spec_place) if given]) > 1:
        raise UsageError("Give one of --property, --spec, --inputs and --spec-path.")
    if spec_path and name != "build_container":
        raise UsageError("--spec is for build_container; give --property, --inputs or --spec-path.")
    inputs: str | dict[str, Any] | None = spec_place
    if spec_path is not None:
        inputs = _constant(spec_path)
    elif template_path is not None:
        inputs = read_object(template_path)
    usual = NAMES[name]
    host, schema = read_flow(path, schema_path)
    larger = composed(
        host,
        flow_part(recorded_deployment(common.profile, common.home), name),
        before=before,
        after=after,
        schema=schema,
        prefix=prefix or usual.prefix,
        inputs=inputs,
        input_property=input_property or usual.input_property,
        output=result or usual.output,
        on_failure=on_failure,
        failure=failure or usual.failure,
    )
    for remark in larger.remarks:
        note(f"{remark.severity} [{remark.code}] {'.'.join(map(str, remark.place))}")
        note(f"    {remark.message}")
    if output is None:
        print_json({"definition": larger.definition, "input_schema": larger.input_schema})
        return
    beside = schema_file_for(Path(output))
    _write(Path(output), larger.definition)
    _write(beside, larger.input_schema)
    if common.json:
        print_json({"ok": True, "definition": output, "input_schema": str(beside)})
    else:
        note(f"Written to {output} and {beside}.")


def _constant(path: str) -> dict[str, Any]:
    """A spec as a template that says exactly this."""
    from cib_flows.spec import ContainerSpec

    fields = ContainerSpec.from_file(path).to_dict()
    marked = next(_marked(fields), None)
    if marked is not None:
        raise UsageError(
            f"The spec {path} has a field {marked!r}, which a flow would read as a reference; hand"
            " the spec in with the run's input."
        )
    return fields


def _marked(value: Any) -> Any:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key.endswith((".$", ".=")) or key == "__Private_Parameters":
                yield key
            yield from _marked(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _marked(inner)


def _write(path: Path, document: dict[str, Any]) -> None:
    from cib_flows.files import write_whole

    try:
        write_whole(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}.") from None
