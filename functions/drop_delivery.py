"""Removes what a publication left in a site's staging, where it did not come to its end."""

from __future__ import annotations

from typing import Any

from ._shared.deliveries import clear_places
from ._shared.files import remove_tree
from ._shared.results import run_step
from ._shared.run_folder import RunFolder
from ._shared.site import load_site


def drop_delivery(run_id: str, offer: bool = False) -> dict[str, Any]:
    """Remove the run's deliveries from this site's staging, and with ``offer`` what it offers too.

    What is registered stays. Returns ``cleaned``, whether all of it is gone.
    """
    return run_step("drop_delivery", lambda: _drop(run_id, offer))


def _drop(run_id: str, offer: bool) -> dict[str, Any]:
    site = load_site()
    folder = RunFolder(site["root"], run_id)
    gone = remove_tree(folder.work)
    kinds = ("delivery", "offer") if offer else ("delivery",)
    return {"cleaned": clear_places(site, folder, kinds) and gone}
