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
    from collections.abc import Sequence

    from cib_flows.publishing import Delivery, PublishRun
    from cib_flows.runs import BuildRun

__all__ = ["see_all_to_the_end", "see_to_the_end"]


def see_to_the_end(run: BuildRun, common: Common, title: str, is_plain: bool = False) -> None:
    """Follows a run and ends the program as the run ended: 0 with a container, 1 without.

    After Ctrl-C the exit code is 130 and the run goes on. ``is_plain`` says that the image is built
    without a Globus Compute worker.
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
        _interrupted(common, sentence, run_id=run.run_id)
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
            describe_container(container, time.monotonic() - started, common.as_words, is_plain)
        return
    if last.status == "INACTIVE":
        document = _paused(run)
    else:
        failure = run.failure()
        describe_failure(failure, run.run_id)
        document = _failed(run, last.status, failure.as_dict())
    if common.json:
        print_json(document)
    sys.exit(1)


def see_all_to_the_end(
    runs: Sequence[PublishRun], sites: Sequence[str], common: Common
) -> NoReturn:
    """Waits for publications that were started at once, one for each of ``sites``, and ends the program: 0
    when all sites have the container. After Ctrl-C the exit code is 130 and the runs go on.
    """
    for run, site in zip(runs, sites, strict=True):
        note(f"{site:16s}  run {run.run_id}")
    documents = []
    try:
        for run, site in zip(runs, sites, strict=True):
            status = run.wait()
            if status.status == "INACTIVE":
                documents.append(_paused(run, f"{site}: "))
            else:
                documents.append(_shown(run, common, status.status))
    except KeyboardInterrupt:
        left = [run.run_id for run in runs[len(documents) :]]
        sentence = f"The runs go on: {', '.join(left)}. 'cib-flows wait{common.as_words} RUN' comes back to one."
        _interrupted(common, sentence, run_ids=left)
    ok = all(document["ok"] for document in documents)
    if common.json:
        print_json({"ok": ok, "runs": documents})
    sys.exit(0 if ok else 1)


def _paused(run: BuildRun, where: str = "") -> dict[str, Any]:
    """Says why a run is INACTIVE; returns the document for programs."""
    sentence = run.inactive_reason()
    note(f"Error: {where}{sentence}")
    return _failed(run, "INACTIVE", {"sentence": sentence, "code": "inactive"})


def _failed(run: BuildRun, status: str, failure: dict[str, Any]) -> dict[str, Any]:
    return {"ok": False, "run_id": run.run_id, "status": status, "failure": failure}


def _interrupted(common: Common, sentence: str, **runs: Any) -> NoReturn:
    note("")
    note(sentence)
    if common.json:
        print_json({"ok": False, **runs, "error": {"message": sentence, "hint": None}})
    sys.exit(INTERRUPTED)


def _show_deliveries(run: PublishRun, common: Common, status: str) -> NoReturn:
    """What came of each site, and the end of the program: 0 when all of them have the container."""
    document = _shown(run, common, status)
    if common.json:
        print_json(document)
    sys.exit(0 if document["ok"] else 1)


def _shown(run: PublishRun, common: Common, status: str) -> dict[str, Any]:
    """What came of each site of a run, as lines for people; returns the document for programs."""
    deliveries = run.deliveries()
    ok = status == "SUCCEEDED"
    failure = None if ok else run.failure()
    document: dict[str, Any] = {"ok": ok, "run_id": run.run_id, "status": status}
    document["deliveries"] = [delivery.as_dict() for delivery in deliveries]
    if not common.json:
        for delivery in deliveries:
            click.echo(_line(delivery))
    if failure:
        document["failure"] = failure.as_dict()
        note(f"Error: {failure.sentence}")
        if failure.hint:
            note(f"Hint: {failure.hint}")
    return document


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
