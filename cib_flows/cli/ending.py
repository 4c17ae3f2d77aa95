"""A run followed to its end on the command line: what is shown then, and the exit code."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn

import click

from cib_flows.cli.live import follow
from cib_flows.cli.options import Common
from cib_flows.cli.output import (
    INTERRUPTED,
    describe_container,
    describe_failure,
    human_duration,
    human_size,
    note,
    print_json,
)

if TYPE_CHECKING:
    from cib_flows.publishing import Delivery, PublishRun
    from cib_flows.runs import BuildRun

__all__ = ["see_to_the_end"]


def see_to_the_end(run: BuildRun, common: Common, title: str) -> None:
    """Follows a run and ends the program as the run ended: 0 with a container, 1 without.

    After Ctrl-C the exit code is 130 and the run goes on.
    """
    from cib_flows.publishing import PublishRun

    started = time.monotonic()
    try:
        # nobody sees the build's log then, and each look at it takes a call of a function
        is_shown = not common.json or sys.stderr.isatty()
        last = follow(run.watch(follow_log=is_shown), title, quiet=common.json)
    except KeyboardInterrupt:
        sentence = (
            f"The run {run.run_id} goes on. Come back to it with "
            f"'cib-flows wait{common.as_words} {run.run_id}', end it with "
            f"'cib-flows cancel{common.as_words} {run.run_id}'."
        )
        note("")
        note(sentence)
        if common.json:
            print_json(
                {"ok": False, "run_id": run.run_id, "error": {"message": sentence, "hint": None}}
            )
        sys.exit(INTERRUPTED)
    if isinstance(run, PublishRun) and last.status != "INACTIVE":
        _show_deliveries(run, common, last.status)
    if last.status == "SUCCEEDED":
        container = run.result()
        if common.json:
            print_json(
                {
                    "ok": True,
                    "run_id": run.run_id,
                    "status": last.status,
                    **container.as_dict(),
                }
            )
        else:
            describe_container(container, time.monotonic() - started, common.as_words)
        return
    if last.status == "INACTIVE":
        sentence = run.inactive_reason()
        note(f"Error: {sentence}")
        if common.json:
            print_json(
                {
                    "ok": False,
                    "run_id": run.run_id,
                    "status": last.status,
                    "failure": {"sentence": sentence, "code": "inactive"},
                }
            )
        sys.exit(1)
    failure = run.failure()
    describe_failure(failure, run.run_id)
    if common.json:
        print_json(
            {
                "ok": False,
                "run_id": run.run_id,
                "status": last.status,
                "failure": failure.as_dict(),
            }
        )
    sys.exit(1)


def _show_deliveries(run: PublishRun, common: Common, status: str) -> NoReturn:
    """What came of each site, and the end of the program: 0 when all of them have the container."""
    deliveries = run.deliveries()
    ok = status == "SUCCEEDED"
    failure = None if ok else run.failure()
    if common.json:
        document: dict[str, Any] = {"ok": ok, "run_id": run.run_id, "status": status}
        document["deliveries"] = [delivery.as_dict() for delivery in deliveries]
        if failure:
            document["failure"] = failure.as_dict()
        print_json(document)
    else:
        for delivery in deliveries:
            click.echo(_line(delivery))
    if failure:
        note(f"Error: {failure.sentence}")
        if failure.hint:
            note(f"Hint: {failure.hint}")
    sys.exit(0 if ok else 1)


def _line(delivery: Delivery) -> str:
    container = delivery.container
    if container is None:
        return f"{delivery.name:16s}  failed      {delivery.sentence}"
    what = f"{container.name}:{container.tag} is {container.container_id}, {container.path}"
    if delivery.present:
        return f"{delivery.name:16s}  was there   {what}"
    took = [
        f"{word} {human_duration(seconds)}"
        for word, seconds in (
            ("transferred in", delivery.transfer_s),
            ("registered in", delivery.register_s),
        )
        if seconds is not None
    ]
    return (
        f"{delivery.name:16s}  registered  {what} ({human_size(container.size)}, {', '.join(took)})"
    )
