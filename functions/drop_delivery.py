"""Removes what a publication left in a site's staging, where it did not come to its end."""

from __future__ import annotations

from typing import Any

from ._shared.deliveries import clear_places
from ._shared.files import remove_tree, write_text
from ._shared.results import run_step
from ._shared.run_folder import RunFolder
from ._shared.site import load_site


def drop_delivery(run_id: str, cancel: bool = False) -> dict[str, Any]:
    """Remove the run's deliveries from this site's staging. With ``cancel`` the run is over: what it offers goes
    too, and a step that is under way stops.

    What is registered stays. Returns ``cleaned``, whether all of it is gone.
    """
    return run_step("drop_delivery", lambda: _drop(run_id, cancel))


def _drop(run_id: str, cancel: bool) -> dict[str, Any]:
    site = load_site()
    folder = RunFolder(site["root"], run_id)
    if cancel:
        # said before anything is removed: a step looks for it after it has put something there
        folder.create()
        write_text(folder.abort, "")
    gone = remove_tree(folder.work)
    kinds = ("delivery", "offer") if cancel else ("delivery",)
    return {"cleaned": clear_places(site, folder, kinds) and gone}
