"""A container on its way to another site: what belongs to it, and where it lies meanwhile.

A run has one folder in a site's staging. In it lie what the site offers (``offer-…``) and what is delivered
to it (``delivery-…``); the last parts of those names cannot be guessed, since staging may be writable by
others on the collection.
"""

from __future__ import annotations

import os
import re
import secrets
from typing import Any

from .catalogue import container_id_of, split_name
from .files import remove_tree
from .grammars import SHA256, UUID
from .holds import age_s, storage_time
from .results import StepFailed, shorten
from .run_folder import RUN_ID, RunFolder
from .trust import LISTED_ENDINGS, SEAL_ENDING, SUMS_ENDING
from .working import FORGOTTEN_AFTER_S

# All that travels with an image, the largest first.
DELIVERED_ENDINGS = (*LISTED_ENDINGS, SUMS_ENDING, SEAL_ENDING)
NEEDED_ENDINGS = (".sif", ".json", SUMS_ENDING)
DELIVERY_PLACE = re.compile(r"(offer|delivery)-[0-9a-f]{16}")
NEEDS_STAGING = (
    "Ask the endpoint's administrator to set 'staging' in the site profile: a folder that is part of a "
    "Globus collection."
)
DESTINATION_KEYS = {"name", "endpoint", "run_endpoint", "collection"}


def require_staging(site: dict[str, Any]) -> dict[str, str]:
    """The site's staging. Raises :class:`StepFailed` ``site_invalid`` where it has none."""
    staging: dict[str, str] | None = site["staging"]
    if not staging:
        raise StepFailed(
            "site_invalid",
            f"The site {site['name']} names no staging collection, so Globus Transfer cannot reach it.",
            NEEDS_STAGING,
        )
    return staging


def new_place(site: dict[str, Any], folder: RunFolder, kind: str) -> str:
    """Make a private folder in staging for a run's ``offer`` or ``delivery``; returns its name."""
    run_place = os.path.join(require_staging(site)["path"], folder.run_id)
    os.makedirs(run_place, mode=0o700, exist_ok=True)
    place = f"{kind}-{secrets.token_hex(8)}"
    os.mkdir(os.path.join(run_place, place), mode=0o700)
    return place


def require_wanted(site: dict[str, Any], folder: RunFolder) -> None:
    """Once a place is made: clear it and raise :class:`StepFailed` ``aborted`` where the run was cancelled."""
    if folder.is_aborted():
        clear_places(site, folder, ("offer", "delivery"))
        raise StepFailed("aborted", "The publication was cancelled.")


def place_path(site: dict[str, Any], folder: RunFolder, place: str) -> str:
    """The file system's name of a place. Raises :class:`StepFailed` ``illegal_name``."""
    if not DELIVERY_PLACE.fullmatch(str(place)):
        raise StepFailed("illegal_name", f"'{shorten(str(place), 60)}' is no place of a delivery.")
    return os.path.join(require_staging(site)["path"], folder.run_id, place)


def collection_folder(site: dict[str, Any], folder: RunFolder, place: str) -> str:
    """The collection's name of a place; it ends with a slash."""
    above = require_staging(site)["collection_path"].rstrip("/")
    return f"{above}/{folder.run_id}/{place}/"


def clear_places(site: dict[str, Any], folder: RunFolder, kinds: tuple[str, ...]) -> bool:
    """Remove a run's offers or deliveries from staging; returns whether all of them are gone."""
    staging = site["staging"]
    if not staging:
        return True
    run_place = os.path.join(staging["path"], folder.run_id)
    gone = True
    for name in _entries(run_place):
        if name.partition("-")[0] in kinds:
            gone = remove_tree(os.path.join(run_place, name)) and gone
    try:
        os.rmdir(run_place)
    except OSError:
        pass  # another's part of the same run is still there, or there never was one
    return gone


def sweep_places(site: dict[str, Any]) -> None:
    """Remove what runs left in staging that were cancelled or forgotten two weeks ago."""
    staging = site["staging"]
    if not staging or not os.path.isdir(staging["path"]):
        return
    now = storage_time(staging["path"])
    for run_id in _entries(staging["path"]):
        if not RUN_ID.fullmatch(run_id):
            continue
        run_place = os.path.join(staging["path"], run_id)
        for name in _entries(run_place):
            path = os.path.join(run_place, name)
            if age_s(path, now) > FORGOTTEN_AFTER_S and DELIVERY_PLACE.fullmatch(name):
                clear_places(site, RunFolder(site["root"], run_id), ("offer", "delivery"))
                break


def check_offer(offer: Any) -> dict[str, Any]:
    """What another site offers, with every field checked: it may be anything at all.

    Raises :class:`StepFailed` ``illegal_name``.
    """
    if not isinstance(offer, dict):
        raise StepFailed(
            "illegal_name", "'offer' must be an object, as offer_container returns it."
        )
    sha256, files = offer.get("sha256"), offer.get("files")
    for field in ("sha256", "sums_sha256"):
        if not SHA256.fullmatch(str(offer.get(field))):
            raise StepFailed(
                "illegal_name", f"The offer's '{field}' must be 64 hexadecimal digits."
            )
    if type(offer.get("bytes")) is not int or offer["bytes"] <= 0:
        raise StepFailed("illegal_name", "The offer's 'bytes' must be a positive number.")
    known = [f"{sha256}{ending}" for ending in DELIVERED_ENDINGS]
    if (
        not isinstance(files, list)
        or not all(name in known for name in files)
        or len(set(files)) != len(files)
        or not all(f"{sha256}{ending}" in files for ending in NEEDED_ENDINGS)
    ):
        raise StepFailed("illegal_name", "The offer lists other files than those of one container.")
    if offer.get("container_id") != container_id_of(str(sha256)):
        raise StepFailed("illegal_name", "The offer's container id is not that of its sha256.")
    name, tag = split_name(f"{offer.get('name')}:{offer.get('tag')}")
    keys = ("container_id", "sha256", "sums_sha256", "bytes", "files")
    return {"name": name, "tag": tag, **{key: offer[key] for key in keys}}


def check_destination(destination: Any) -> dict[str, Any]:
    """A destination as a run's input names it, with every field checked and present.

    Raises :class:`StepFailed` ``illegal_name``.
    """
    given = destination if isinstance(destination, dict) else {}
    unknown = sorted(set(given) - DESTINATION_KEYS)
    if unknown or not given:
        raise StepFailed(
            "illegal_name",
            f"A destination has the fields {', '.join(sorted(DESTINATION_KEYS))}, "
            f"not {shorten(', '.join(unknown) or str(destination), 80)}.",
        )
    for field in ("endpoint", "run_endpoint"):
        value = given.get(field)
        if (value is not None or field == "endpoint") and not UUID.fullmatch(str(value)):
            raise StepFailed(
                "illegal_name",
                f"The destination's '{field}' is not a UUID: {shorten(str(value), 60)}.",
            )
    collection = given.get("collection") or {}
    if not isinstance(collection, dict) or set(collection) - {"id", "path"}:
        raise StepFailed(
            "illegal_name", "The destination's 'collection' has the fields id and path."
        )
    return {
        "name": shorten(str(given.get("name") or given["endpoint"]), 80),
        "endpoint": given["endpoint"],
        "run_endpoint": given.get("run_endpoint"),
        "collection": collection if collection.get("id") else None,
    }


def require_agreed(site: dict[str, Any], collection: dict[str, Any] | None) -> None:
    """Raise :class:`StepFailed` ``site_invalid`` unless the site's staging lies where the run's input says that
    files may go; without ``collection`` the site decides.
    """
    staging = require_staging(site)
    if not collection:
        return
    above = str(collection.get("path") or "/").rstrip("/") + "/"
    inside = staging["collection_path"].rstrip("/") + "/"
    if str(collection["id"]).lower() == staging["collection_id"].lower() and inside.startswith(
        above
    ):
        return
    raise StepFailed(
        "site_invalid",
        f"The site's staging is {staging['collection_path']} on collection {staging['collection_id']}, and the "
        f"destination asks for {shorten(above, 100)} on {shorten(str(collection['id']), 60)}.",
        "Leave the collection out, or name the site's own and a folder that holds its staging.",
    )


def wanted_name(name_tag: str | None, offer: dict[str, Any]) -> tuple[str, str]:
    """Name and tag under which a delivered container is registered."""
    if not name_tag:
        return str(offer["name"]), str(offer["tag"])
    return split_name(name_tag, str(offer["name"]))


def _entries(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []
