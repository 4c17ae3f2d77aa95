"""A page of the list of runs: filtered, ordered, cut."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .documents import run_document
from .lists import ListQuery
from .roles import RUN_PERMISSIONS
from .store import LogEntry, RunSummary

__all__ = ["page"]

STATUSES = ("SUCCEEDED", "FAILED", "ENDED", "ACTIVE", "INACTIVE")
# What may be ordered by, and what it is called in a run's document.
ORDER = {
    "id": "run_id",
    "start_time": "start_time",
    "completion_time": "completion_time",
    "status": "status",
    "label": "label",
}

Document = dict[str, Any]


def page(
    runs: Callable[[int | None], Iterable[RunSummary]],
    roles_of: Callable[[RunSummary], list[str]],
    latest: Callable[[RunSummary], LogEntry | None],
    query: ListQuery,
) -> Document:
    """Of all runs, those that the caller may see and the query asks for.

    :param runs: the newest first, from the one that follows a number
    :raises Refusal: 422 for a query that cannot be read
    """
    size, order = query.size, query.order(ORDER)
    # Newest first, a page begins where the last one ended, whatever was started meanwhile; in
    # another order, after so many.
    begin = None if order else query.place
    found = _found(runs(begin), roles_of, query)
    if order:
        listed = list(found)
        for name, descending in reversed(order):
            listed.sort(key=lambda item: _key(item[0], name), reverse=descending)
        found = iter(listed)
    place = query.place if order else None
    first = query.passed_over if query.place is None else place or 0
    cut = list(itertools.islice(found, first, first + size + 1))
    more = len(cut) > size
    cut = cut[:size]
    following = first + size if order else cut[-1][0].n if cut else 0
    return {
        "runs": [run_document(run, latest(run), user_roles) for run, user_roles in cut],
        "limit": size,
        "has_next_page": more,
        "marker": query.marker(following) if more else None,
    }


def _found(
    runs: Iterable[RunSummary], roles_of: Callable[[RunSummary], list[str]], query: ListQuery
) -> Iterator[tuple[RunSummary, list[str]]]:
    flows = query.one_of("filter_flow_id")
    statuses = query.one_of("filter_status", STATUSES)
    wanted = query.roles(RUN_PERMISSIONS)
    started = query.within("filter_start_time")
    completed = query.within("filter_completion_time")
    for run in runs:
        if (
            (flows and run.flow_id not in flows)
            or (statuses and run.status not in statuses)
            or not query.holds("filter_label", [run.submission.get("label")])
            or not query.holds("filter_flow_title", [run.submission["flow_title"]])
            or not started(run.start_time)
            or not completed(run.completion_time)
        ):
            continue
        user_roles = roles_of(run)
        if user_roles and (not wanted or wanted & set(user_roles)):
            yield run, user_roles


def _key(run: RunSummary, name: str) -> str:
    value = run.submission.get("label") if name == "label" else getattr(run, _FIELDS[name])
    return str(value or "").casefold()


_FIELDS = {
    "run_id": "id",
    "start_time": "start_time",
    "completion_time": "completion_time",
    "status": "status",
}
