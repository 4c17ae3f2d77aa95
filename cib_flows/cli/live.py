"""A run as it goes: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import collections
import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import click

from cib_flows.cli.output import human_duration

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cib_flows.progress import Progress

__all__ = ["follow"]

TAIL_LINES = 8
HEARTBEAT_S = 30.0


def follow(events: Iterable[Progress], title: str, quiet: bool = False) -> Progress:
    """Shows events until the last one and returns it.

    ``quiet`` shows nothing unless standard error is a terminal, as ``--json`` wants it.
    """
    show: Callable[[Progress], None]
    last: Progress | None = None
    with contextlib.ExitStack() as stack:
        if sys.stderr.isatty():
            show = stack.enter_context(_live_view(title))
        else:
            show = _PlainLines(title).show if not quiet else lambda event: None
        for event in events:
            show(event)
            last = event
    if last is None:
        raise AssertionError("a run was watched and nothing was seen")
    return last


class _PlainLines:
    """A line per step, and one now and then in between so that a log shows life."""

    def __init__(self, title: str) -> None:
        self._step = ""
        self._shown_at = 0.0
        self._last_line = ""
        click.echo(title, err=True)

    def show(self, event: Progress) -> None:
        for line in event.log.splitlines():
            self._last_line = line.strip() or self._last_line
        if event.step and event.step != self._step:
            self._say(event, event.step_title)
            self._last_line = ""
        elif self._last_line and event.elapsed_s - self._shown_at >= HEARTBEAT_S:
            self._say(event, f"{event.step_title}: {self._last_line[:200]}")
        self._step = event.step

    def _say(self, event: Progress, text: str) -> None:
        self._shown_at = event.elapsed_s
        click.echo(f"[{event.elapsed_s:7.1f} s] {text}", err=True)


@contextlib.contextmanager
def _live_view(title: str) -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.live import Live

    view = _View(title)
    console = Console(stderr=True, highlight=False)
    with Live(
        console=console, get_renderable=view.render, refresh_per_second=4, transient=True
    ) as live:

        def show(event: Progress) -> None:
            view.take(event)
            live.refresh()

        yield show


class _View:
    def __init__(self, title: str) -> None:
        from rich.spinner import Spinner

        self._title = title
        self._spinner = Spinner("dots")
        self._started = time.monotonic()
        self._what = "starting"
        self._log_path = ""
        self._tail: collections.deque[str] = collections.deque(maxlen=TAIL_LINES)
        self._rest = ""

    def take(self, event: Progress) -> None:
        self._what = event.step_title
        if event.phase and event.step.endswith("BuildImage"):
            self._what += f" ({event.phase})"
        if event.percent is not None:
            self._what += f", {event.percent:.0f} %"
        self._log_path = event.log_path
        *lines, self._rest = (self._rest + event.log).split("\n")
        self._tail.extend(line.rstrip() for line in lines if line.strip())

    def render(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        elapsed = human_duration(time.monotonic() - self._started)
        self._spinner.update(text=Text.assemble((self._what, "bold"), f"  {elapsed}"))
        lines: list[RenderableType] = [Text(self._title, style="dim"), self._spinner]
        lines.extend(
            Text(f"  {line}", style="dim", overflow="ellipsis", no_wrap=True) for line in self._tail
        )
        if self._log_path:
            lines.append(Text(f"  log: {self._log_path}", style="dim", overflow="fold"))
        return Group(*lines)
