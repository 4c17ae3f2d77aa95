"""The options and arguments that several commands take."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from cib_flows.profiles import Globus

__all__ = [
    "COLLECTION",
    "ENDPOINT",
    "Common",
    "build_options",
    "catalogue_option",
    "common_options",
    "home_option",
    "json_option",
    "launch_options",
    "limit_option",
    "move_option",
    "run_endpoint_option",
    "spec_argument",
]

Command = TypeVar("Command", bound=Callable[..., Any])


class Uuid(click.ParamType):
    """The UUID of a thing, such as an endpoint."""

    name = "UUID"

    def __init__(self, whose: str) -> None:
        self._whose = whose

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return str(uuid.UUID(str(value)))
        except ValueError:
            self.fail(f"{value!r} is not {self._whose} UUID.", param, ctx)


ENDPOINT = Uuid("an endpoint's")
COLLECTION = Uuid("a collection's")


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


# ``root`` looks for the same word, so that errors before a command begins are documents too.
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
home_option = click.option(
    "--home",
    "home_path",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Folder of the local Globus; default ~/.cib-flows/local. [env: CIB_FLOWS_HOME]",
)


def common_options(command: Command) -> Callable[..., Any]:
    """Adds the common options and passes them as one ``Common``, before the command's own
    arguments.
    """

    @json_option
    @click.option(
        "--profile",
        type=click.Choice(["local", "globus"]),
        help="Which Globus: the local one (default) or globus.org. [env: CIB_FLOWS_PROFILE]",
    )
    @home_option
    @functools.wraps(command)
    def wrapped(
        *args: Any, as_json: bool, profile: str | None, home_path: str | None, **kwargs: Any
    ) -> Any:
        return command(Common(as_json, profile, home_path), *args, **kwargs)

    return wrapped


def spec_argument(command: Command) -> Command:
    """Adds the argument SPEC: a YAML or JSON file, or ``-`` for standard input."""
    argument = click.argument("spec_path", metavar="SPEC", type=click.Path(allow_dash=True))
    return argument(command)


run_endpoint_option = click.option(
    "--run-endpoint", type=ENDPOINT, help="Endpoint that will run functions."
)


def build_options(command: Command) -> Command:
    """Adds what a build can be started with: ``label, force, build_endpoint, run_endpoint``."""
    for option in (
        run_endpoint_option,
        click.option("--build-endpoint", type=ENDPOINT, help="Endpoint that builds."),
        click.option("--force", is_flag=True, help="Build even if an identical image exists."),
        click.option("--label", help="What lists of runs show; by default name:tag."),
    ):
        command = option(command)
    return command


def launch_options(command: Command) -> Command:
    """Adds how a program is started in an image: ``timeout, gpu, ranks``."""
    for option in (
        click.option(
            "--ranks", type=click.IntRange(min=1), help="Copies for the MPI launcher to start."
        ),
        click.option(
            "--gpu", type=click.Choice(["nvidia", "amd"]), help="Bind the node's GPU driver."
        ),
        click.option(
            "--timeout", type=click.FloatRange(min=0), help="Limit for the program, in seconds."
        ),
    ):
        command = option(command)
    return command


def limit_option(default: int, most: int | None = None) -> Callable[[Command], Command]:
    """The option of a list: how many of it are shown."""
    return click.option(
        "--limit",
        type=click.IntRange(1, most),
        default=default,
        show_default=True,
        help="At most so many.",
    )


catalogue_option = click.option(
    "--build-endpoint", type=ENDPOINT, help="Whose catalogue; by default the deployment's."
)
move_option = click.option(
    "--move", is_flag=True, help="Take the name from another container that has it."
)
