"""How results and errors look. Results go to standard output, everything else to standard error."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import click

from cib_flows.errors import CibFlowsError, RunFailedError

if TYPE_CHECKING:
    from cib_flows.containers import Container
    from cib_flows.failures import BuildFailure

__all__ = [
    "INTERRUPTED",
    "describe_container",
    "describe_failure",
    "human_duration",
    "human_size",
    "note",
    "print_error",
    "print_json",
]

LOG_LINES = 12
USUAL = re.compile("WARNING: While bind mounting .* already in the mount point list")

# The exit code that shells give to a program which Ctrl-C ended.
INTERRUPTED = 130


def print_json(document: Any) -> None:
    """The one JSON document of a command with ``--json``."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, default=str))


def note(text: str) -> None:
    """Something a person may want to know and a program need not."""
    click.echo(text, err=True)


def print_error(error: CibFlowsError, as_json: bool) -> None:
    """One sentence on standard error, the hint below it; with ``as_json`` the same as a
    document.
    """
    click.echo(f"Error: {error.message}", err=True)
    if error.hint:
        click.echo(f"Hint: {error.hint}", err=True)
    if as_json:
        document: dict[str, Any] = {"message": error.message, "hint": error.hint}
        field = getattr(error, "field", "")
        if field:
            document["field"] = field
        if error.code:
            document["code"] = error.code
        if isinstance(error, RunFailedError):
            document["failure"] = error.failure
        print_json({"ok": False, "error": document})


def human_size(size: int) -> str:
    """A number of bytes in the unit in which people say it."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def human_duration(seconds: float) -> str:
    """Seconds as ``12.3 s``, ``2 min 05 s`` or ``1 h 02 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def describe_container(
    container: Container, took_s: float | None = None, options: str = "", is_plain: bool = False
) -> None:
    """The end of a build: what there is now, and how to use it.

    ``options`` is what the proposed command needs to find the same Globus; ``is_plain`` says that no
    Globus Compute worker is in the image, so that functions cannot be sent there.
    """
    from rich.console import Console
    from rich.text import Text

    rows = [
        ("container", container.container_id),
        ("path", container.path),
        ("sha256", container.sha256),
        ("size", human_size(container.size)),
        ("endpoint", container.endpoint_id),
    ]
    if container.cached:
        rows.append(("built", "before; an identical image was registered"))
    if took_s is not None:
        rows.append(("took", human_duration(took_s)))
    reference = f"{container.name}:{container.tag}"
    call = 'run(["COMMAND", …])' if is_plain else "executor().submit(function, …)"
    rows += [
        ("", ""),
        ("in Python", f'Container.get("{reference}").{call}'),
        ("in a shell", f"cib-flows containers exec{options} {reference} -- COMMAND…"),
    ]
    if not is_plain:
        rows.append(("anywhere", json.dumps(container.executor_arguments())))
    # Lines are left to the terminal to wrap, so that paths and commands can be copied from it.
    console = Console(highlight=False, soft_wrap=True)
    if console.is_terminal:
        console.print(f"[bold green]{reference}[/] is registered")
    for key, value in rows:
        line = Text(f"{key:11s} ", style="dim").append(value, style="not dim")
        line.rstrip()
        console.print(line)


def describe_failure(failure: BuildFailure, run_id: str) -> None:
    """Why a run failed: the sentence, what to do, and where to read on."""
    click.echo(f"Error: {failure.sentence}", err=True)
    if failure.hint:
        click.echo(f"Hint: {failure.hint}", err=True)
    # what the engine says of every build is in the whole log, and tells nobody why this one failed
    lines = [line for line in failure.log_tail.strip().splitlines() if not USUAL.match(line)]
    if lines:
        click.echo("The last lines of its log:", err=True)
        for line in lines[-LOG_LINES:]:
            click.echo(f"  {line}", err=True)
    if failure.log_path:
        click.echo(f"Log: {failure.log_path}", err=True)
    click.echo(f"Run: {run_id}", err=True)
