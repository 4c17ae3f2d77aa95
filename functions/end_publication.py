"""Every publication ends here: the source's staging is cleaned, and one sentence says what came of it."""

from __future__ import annotations

from typing import Any

from ._shared.caught import caught_failure
from ._shared.deliveries import clear_places
from ._shared.results import StepFailed, run_step, shorten
from ._shared.run_folder import RunFolder
from ._shared.site import load_site

MAX_NAMED = 8


def end_publication(
    run_id: str,
    outcomes: list[dict[str, Any]],
    caught: Any = None,
    offered: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """``outcomes`` has an entry for each destination, with ``name``, ``ok`` and, where it failed, ``sentence``.
    ``caught`` and ``offered`` tell of the source's own step where the run did not get to a destination.

    Returns ``sentence``, ``failed`` (how many destinations), ``registered`` (how many) and ``cleaned``.
    """
    return run_step("end_publication", lambda: _end(run_id, outcomes, caught, offered))


def _end(
    run_id: str, outcomes: list[dict[str, Any]], caught: Any, offered: dict[str, Any] | None
) -> dict[str, Any]:
    error: dict[str, str] | None = None
    try:
        site = load_site()
        cleaned = clear_places(site, RunFolder(site["root"], run_id), ("offer",))
    except StepFailed as failure:
        # the first failure may be that very thing, which must still be told
        cleaned, error = False, failure.as_json()
    failed = [entry for entry in outcomes if not entry.get("ok")]
    if not outcomes:
        error = _source_error(caught, offered) or error
    if error and not outcomes:
        sentence = error["message"]
    elif not failed:
        sentence = f"The container is registered at {_counted(len(outcomes))}."
    else:
        sentence = _of_failures(failed, len(outcomes))
    return {
        "sentence": sentence,
        "failed": len(failed),
        "registered": len(outcomes) - len(failed),
        "cleaned": cleaned,
        "error": error,
    }


def _source_error(caught: Any, offered: dict[str, Any] | None) -> dict[str, str] | None:
    if isinstance(offered, dict) and isinstance(offered.get("error"), dict):
        return {key: str(offered["error"].get(key, "")) for key in ("code", "message", "hint")}
    return caught_failure(caught, "The container could not be made ready at its source").as_json()


def _of_failures(failed: list[dict[str, Any]], total: int) -> str:
    """One sentence that names every destination that failed, and why as far as there is room."""
    room = 420 // min(len(failed), MAX_NAMED)
    named = [
        f"{shorten(str(entry.get('name')), 40)} ({shorten(str(entry.get('sentence')).rstrip('.'), room)})"
        for entry in failed[:MAX_NAMED]
    ]
    more = f" and {len(failed) - MAX_NAMED} more" if len(failed) > MAX_NAMED else ""
    reached = total - len(failed)
    kept = f"; it is registered at {_counted(reached)}" if reached else ""
    return f"The container could not be published to {', '.join(named)}{more}{kept}."


def _counted(number: int) -> str:
    return "one destination" if number == 1 else f"{number} destinations"
