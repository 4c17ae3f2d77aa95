"""Says whether a site takes a container, and where in its staging Globus Transfer shall bring it."""

from __future__ import annotations

import os
from typing import Any

from ._shared.catalogue import Catalogue
from ._shared.deliveries import (
    check_destination,
    check_offer,
    collection_folder,
    new_place,
    require_agreed,
    require_staging,
    require_wanted,
    sweep_places,
    wanted_name,
)
from ._shared.results import StepFailed, run_step
from ._shared.run_folder import RunFolder
from ._shared.site import load_site

MARGIN_BYTES = 64 * 1024 * 1024
UNIT = 1024 * 1024


def expect_container(
    run_id: str,
    offer: dict[str, Any],
    destination: dict[str, Any],
    name_tag: str | None = None,
    move: bool = False,
) -> dict[str, Any]:
    """Second step of a publication, at the destination.

    ``offer`` is what ``offer_container`` returned; ``destination`` as the run's input has it. Refuses, before
    anything travels, a name that is another container's, a disk that is too full, and a collection that is not
    the site's own.

    Returns ``present``: the container is registered here already and only its name is to be set. Otherwise
    also ``collection_id`` and ``folder``, where Transfer shall bring the files, and ``place``, the folder's name
    for ``receive_container``.
    """
    return run_step("expect_container", lambda: _expect(run_id, offer, destination, name_tag, move))


def _expect(
    run_id: str,
    given: dict[str, Any],
    destination: dict[str, Any],
    name_tag: str | None,
    move: bool,
) -> dict[str, Any]:
    site = load_site()
    folder = RunFolder(site["root"], run_id)
    offer = check_offer(given)
    asked = check_destination(destination)
    name, tag = wanted_name(name_tag, offer)
    catalogue = Catalogue(site["root"])
    taken = catalogue.tags_of(name).get(tag)
    if taken and taken["sha256"] != offer["sha256"] and not move:
        raise StepFailed(
            "already_exists",
            f"{name}:{tag} names another container at {site['name']}.",
            "Move the name on purpose, or choose another tag.",
        )
    about = {"container_id": offer["container_id"], "name": name, "tag": tag, "site": site["name"]}
    if catalogue.is_whole(name, offer["sha256"]):
        return {**about, "present": True, "collection_id": "", "folder": "", "place": ""}
    require_agreed(site, asked["collection"])
    _require_room(site, offer["bytes"])
    sweep_places(site)
    place = new_place(site, folder, "delivery")
    require_wanted(site, folder)
    return {
        **about,
        "present": False,
        "collection_id": site["staging"]["collection_id"],
        "folder": collection_folder(site, folder, place),
        "place": place,
    }


def _require_room(site: dict[str, Any], size: int) -> None:
    """The files lie in staging and are copied to the root from there, where nobody else can change them."""
    os.makedirs(site["root"], exist_ok=True)
    staging = require_staging(site)["path"]
    needs: dict[int, list[Any]] = {}
    for path in (staging, site["root"]):
        need = needs.setdefault(os.stat(path).st_dev, [path, MARGIN_BYTES])
        need[1] += size
    for path, need_bytes in needs.values():
        info = os.statvfs(path)
        free = info.f_bavail * info.f_frsize
        if free < need_bytes:
            raise StepFailed(
                "disk_full",
                f"The site {site['name']} has {free // UNIT} MiB free in {path}, and the container needs "
                f"{need_bytes // UNIT} MiB there while it is registered.",
                "Make room with 'cib-flows containers gc', or ask the endpoint's administrator.",
            )
