"""The top of the command line: which commands there are, and how an error leaves the program."""

from __future__ import annotations

import importlib
import logging
from typing import Any

import click

from cib_flows._version import __version__
from cib_flows.cli.output import print_error
from cib_flows.errors import CibFlowsError

__all__ = ["main"]

# Where each command is defined; imported only when it is called or described.
COMMANDS = {
    "build": "cib_flows.cli.build:build",
    "render": "cib_flows.cli.specs:render",
    "validate": "cib_flows.cli.specs:validate",
    "deploy": "cib_flows.cli.deploy:deploy",
    "start": "cib_flows.cli.runs:start",
    "status": "cib_flows.cli.runs:status",
    "logs": "cib_flows.cli.runs:logs",
    "wait": "cib_flows.cli.runs:wait",
    "cancel": "cib_flows.cli.runs:cancel",
    "resume": "cib_flows.cli.runs:resume",
    "containers": "cib_flows.cli.containers:containers",
    "doctor": "cib_flows.cli.doctor:doctor",
    "flow": "cib_flows.cli.flow:flow",
    "local": "cib_flows.cli.local:local",
}


class CommandGroup(click.Group):
    """A group that imports a command when it is needed and turns this package's errors into exit
    codes.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CibFlowsError as error:
            print_error(error, as_json=bool(ctx.obj.get("json")))
            ctx.exit(error.exit_code)


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cib-flows")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Turn a container spec into a verified, registered Apptainer image by a Globus Flow."""
    ctx.obj = {}
    # What the SDK logs is said again, in our words, by the error that follows.
    logging.getLogger("globus_compute_sdk").addHandler(logging.NullHandler())
