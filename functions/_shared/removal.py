"""Taking an image out of the catalogue: hidden first, then moved to the trash, deleted only later.

A container that runs from an image keeps its open file through a rename, on NFS too, where deleting would
break it. So a removed image lies in ``<root>/trash`` for a while, one folder for each, before gc deletes it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from typing import Any

from .catalogue import Catalogue, utc_now
from .catalogue_index import read_object


def discard(
    catalogue: Catalogue, row: dict[str, Any], is_held: Callable[[str], bool], why: str
) -> str | None:
    """Move an image and its record to the trash; returns the folder there.

    None, and everything is as it was, when ``is_held`` says that somebody came to rely on the image while it
    was being hidden.
    """
    name, sha256 = str(row["name"]), str(row["sha256"])
    record_path = catalogue.record_path(name, sha256)
    record = read_object(record_path) or row
    trash = os.path.join(catalogue.root, "trash")
    stamp = utc_now().strftime("%Y%m%dT%H%M%S")
    place = os.path.join(trash, f"{stamp}-{sha256[:12]}-{secrets.token_hex(3)}")
    os.makedirs(place, mode=0o700)
    hidden = os.path.join(place, f"{sha256}.json")
    try:
        os.rename(record_path, hidden)
    except FileNotFoundError:
        os.rmdir(place)  # another was faster
        return None
    if is_held(sha256):
        os.rename(hidden, record_path)
        os.rmdir(place)
        return None
    image = catalogue.image_path(name, sha256)
    if os.path.exists(image):
        os.rename(image, os.path.join(place, f"{sha256}.sif"))
    _forget_build(catalogue, record)
    for kind in (catalogue.pins, catalogue.uses):
        for entry in (sha256, f"{sha256}.json"):
            path = os.path.join(kind, entry)
            if os.path.exists(path):
                os.unlink(path)
    catalogue.note("removed", record, name=name, why=why)
    return place


def _forget_build(catalogue: Catalogue, record: dict[str, Any]) -> None:
    """Drop the pointer of its build digest, unless a newer image has taken it."""
    path = os.path.join(catalogue.builds, f"{record.get('build_digest')}.json")
    pointer = read_object(path)
    if pointer and pointer.get("sha256") == record.get("sha256"):
        os.unlink(path)
