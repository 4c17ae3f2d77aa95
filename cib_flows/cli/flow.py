"""``flow``: what can be said about anyone's flow without any Globus, and the build inserted into
one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cib_flows.cli.flow_compose import compose
from cib_flows.cli.options import json_option
from cib_flows.cli.output import note, print_json
from cib_flows.errors import UsageError

if TYPE_CHECKING:
    from cib_flows.flow.linter import Report

__all__ = ["flow"]


@click.group(short_help="Check, draw and combine flow definitions.")
def flow() -> None:
    """Check and draw the definition of any Globus Flow, or insert the build into it."""


flow.add_command(compose)


def _list_codes(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from cib_flows.flow.findings import CODES

    for code, (severity, meaning) in CODES.items():
        click.echo(f"{severity:8s} {code:28s} {meaning}")
    ctx.exit()


@flow.command(short_help="Say what is wrong with a flow.")
@click.argument("path", metavar="FILE", type=click.Path(dir_okay=False))
@click.option(
    "--schema",
    type=click.Path(dir_okay=False),
    help="The flow's input schema; by default input_schema.json or schema.json beside FILE.",
)
@click.option("--strict", is_flag=True, help="End with 1 for warnings too.")
@click.option("--ignore", metavar="CODE", multiple=True, help="Leave out this code; repeatable.")
@click.option(
    "--list-codes",
    is_flag=True,
    is_eager=True,
    callback=_list_codes,
    expose_value=False,
    help="Print every code with its meaning.",
)
@json_option
@click.pass_context
def lint(
    ctx: click.Context,
    path: str,
    schema: str | None,
    strict: bool,
    ignore: tuple[str, ...],
    as_json: bool,
) -> None:
    """Say what the service would refuse about the definition in FILE (errors), and what it would
    silently do wrong (warnings).

    FILE is JSON or YAML: a definition, or a whole flow with its definition and input_schema. Ends
    with 0 when there is no error, 1 when there is one, and 2 when FILE cannot be read.
    """
    from cib_flows.flow import lint as check

    report = check(path, schema, ignore)
    if as_json:
        print_json(report.document())
    else:
        _print_report(report)
    ctx.exit(1 if report.errors or (strict and report.warnings) else 0)


def _print_report(report: Report) -> None:
    for finding in report.findings:
        said = finding.remark
        color = "red" if said.severity == "error" else "yellow"
        where = click.style(f"{finding.file}:{finding.line}:{finding.column}", bold=True)
        click.echo(f"{where} {click.style(said.severity, fg=color)} [{said.code}]")
        click.echo(f"    {said.message}")
        click.echo(f"    {click.style('→', dim=True)} {said.advice}")
    if report.schema is not None:
        note(f"Input schema: {report.schema}")
    elif report.input_paths:
        note(f"Without a schema: the input must have {', '.join(report.input_paths)}")
    counts = f"{_counted(report.errors, 'error')}, {_counted(report.warnings, 'warning')}"
    note(f"{report.definition}: {counts if report.findings else 'nothing to remark'}.")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


FORMATS = {".svg": "svg", ".mmd": "mermaid", ".mermaid": "mermaid", ".dot": "dot", ".gv": "dot"}


@flow.command(short_help="Draw a flow.")
@click.argument("path", metavar="FILE", type=click.Path(dir_okay=False))
@click.option(
    "--format",
    "form",
    type=click.Choice(["svg", "mermaid", "dot"]),
    help="By default what the name of OUT says, else svg.",
)
@click.option(
    "-o", "--output", metavar="OUT", type=click.Path(dir_okay=False), help="Write to this file."
)
@json_option
def graph(path: str, form: str | None, output: str | None, as_json: bool) -> None:
    """Draw the states of the definition in FILE and the ways between them.

    Ways after an error are dashed; what ends in failure is red.
    """
    from cib_flows.files import write_whole
    from cib_flows.flow import draw

    if form is None and output is not None:
        form = FORMATS.get(Path(output).suffix.lower())
        if form is None:
            raise UsageError(
                f"The name of {output} does not say what to draw; give --format, or a name that"
                f" ends with {', '.join(FORMATS)}."
            )
    form = form or "svg"
    text = draw(path, form)
    if output is None:
        if as_json:
            print_json({"ok": True, "format": form, "drawing": text})
        else:
            click.echo(text, nl=False)
        return
    try:
        write_whole(Path(output), text)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror or error}.") from None
    if as_json:
        print_json({"ok": True, "format": form, "output": output})
    else:
        note(f"Drawn to {output}.")
