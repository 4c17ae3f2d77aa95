"""The top of the command line: which commands there are, and how an error leaves the program."""

from __future__ import annotations

import contextlib
import errno
import importlib
import itertools
import logging
import os
from collections.abc import Iterator
from typing import Any

import click

from cib_flows._version import __version__
from cib_flows.cli.output import INTERRUPTED, print_error, print_json
from cib_flows.errors import CibFlowsError

__all__ = ["main"]

# Where each command is defined; imported only when it is called or described.
COMMANDS = {
    "build": "cib_flows.cli.build:build",
    "render": "cib_flows.cli.specs:render",
    "validate": "cib_flows.cli.specs:validate",
    "deploy": "cib_flows.cli.deploy:deploy",
    "start": "cib_flows.cli.runs:start",
    "runs": "cib_flows.cli.runs:runs",
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
    """A group that imports a command when it is needed, and sees to it that every error ends as one
    sentence and an exit code, and as a document too where ``--json`` was given.
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

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # Read here and not by the commands: an error may come before a command knows its options.
        ctx.meta["as_json"] = "--json" in itertools.takewhile(lambda word: word != "--", args)
        with _told_as_document(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with _told_as_document(ctx):
                return super().invoke(ctx)
        except CibFlowsError as error:
            print_error(error, ctx.meta["as_json"])
            ctx.exit(error.exit_code)
        except OSError as problem:
            # a closed pipe is click's to end; what names no file is a bug, and shown as one
            if problem.errno == errno.EPIPE or not problem.filename:
                raise
            sentence = f"{problem.filename} cannot be used: {problem.strerror}."
            print_error(CibFlowsError(sentence), ctx.meta["as_json"])
            ctx.exit(CibFlowsError.exit_code)
        except KeyboardInterrupt:
            print_error(CibFlowsError("Interrupted."), ctx.meta["as_json"])
            ctx.exit(INTERRUPTED)


@contextlib.contextmanager
def _told_as_document(ctx: click.Context) -> Iterator[None]:
    """With ``--json``, prints what click is about to say of wrong usage on standard error."""
    try:
        yield
    except click.ClickException as error:
        if ctx.meta["as_json"]:
            print_json({"ok": False, "error": {"message": error.format_message(), "hint": None}})
        raise


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cib-flows")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Turn a container spec into a verified, registered Apptainer image by a Globus Flow."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    # What the SDK logs is said again, in our words, by the error that follows.
    logging.getLogger("globus_compute_sdk").addHandler(logging.NullHandler())
