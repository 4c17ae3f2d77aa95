"""Stops a run's build where it runs: Globus Compute itself cannot cancel a task."""

from __future__ import annotations

from typing import Any

from ._shared.files import write_text
from ._shared.results import run_step
from ._shared.run_folder import RunFolder
from ._shared.site import load_site


def abort_build(run_id: str) -> dict[str, Any]:
    """Ask the run's step under way to stop; it does within about a second and cleans up behind itself.

    Returns ``aborted``: False when the run has finished already.
    """
    return run_step("abort_build", lambda: _abort(run_id))


def _abort(run_id: str) -> dict[str, Any]:
    site = load_site()
    folder = RunFolder(site["root"], run_id)
    folder.require()
    if folder.has("result.json"):
        return {"aborted": False}
    write_text(folder.abort, "asked to stop\n")
    try:
        state = folder.read("status.json")["state"]
    except (OSError, ValueError, KeyError):
        state = "between"
    if state != "running":
        # no step is there to notice, and after a cancel none will come
        folder.clean_work(site)
        folder.set_status("finished", "", "aborted", 100)
    return {"aborted": True}
