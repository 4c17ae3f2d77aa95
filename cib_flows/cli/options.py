"""The options that every command takes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from cib_flows.profiles import Globus

__all__ = ["Common", "common_options", "spec_argument"]

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Common:
    """What ``--json``, ``--profile`` and ``--home`` said."""

    json: bool
    profile: str | None
    home: str | None

    def connect(self) -> Globus:
        """The Globus that the options choose."""
        from cib_flows.profiles import connect

        return connect(self.profile, self.home)

    @property
    def as_words(self) -> str:
        """The same options for a command that a message proposes."""
        words = [f" --profile {self.profile}"] if self.profile else []
        return "".join([*words, f" --home {self.home}" if self.home else ""])


def common_options(command: Command) -> Callable[..., Any]:
    """Adds the common options and passes them as one ``Common``, before the command's own
    arguments.
    """

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
    @click.option(
        "--profile",
        type=click.Choice(["local", "globus"]),
        help="Which Globus: the local one (default) or globus.org. [env: CIB_FLOWS_PROFILE]",
    )
    @click.option(
        "--home",
        type=click.Path(file_okay=False),
        help="Folder of the local Globus. [env: CIB_FLOWS_HOME]",
    )
    @click.pass_context
    @functools.wraps(command)
    def wrapped(
        ctx: click.Context,
        /,
        *args: Any,
        as_json: bool,
        profile: str | None,
        home: str | None,
        **kwargs: Any,
    ) -> Any:
        if isinstance(ctx.find_root().obj, dict):
            ctx.find_root().obj["json"] = as_json
        return command(Common(as_json, profile, home), *args, **kwargs)

    return wrapped


def spec_argument(command: Command) -> Command:
    """Adds the argument SPEC: a YAML or JSON file, or ``-`` for standard input."""
    argument = click.argument("spec_path", metavar="SPEC", type=click.Path(allow_dash=True))
    return argument(command)
