"""Taking images out of the catalogue: hidden first, then moved to the trash, deleted only later.

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
    catalogue: Catalogue,
    rows: list[dict[str, Any]],
    held: Callable[[], set[str]],
    why: str,
) -> dict[str, str]:
    """Move images and their records to the trash; returns for each sha256 that went the folder there.

    ``held`` is asked once, when all records are hidden: an image that it names, because somebody came to
    rely on it meanwhile, is shown again and stays.
    """
    hidden: dict[str, tuple[dict[str, Any], str]] = {}
    for row in rows:
        place = _hide(catalogue, row)
        if place:
            hidden[str(row["sha256"])] = (row, place)
    wanted = held() if hidden else set()
    gone = {}
    for sha256, (row, place) in hidden.items():
        record_path = catalogue.record_path(str(row["name"]), sha256)
        aside = os.path.join(place, f"{sha256}.json")
        if sha256 in wanted:
            os.rename(aside, record_path)
            os.rmdir(place)
            continue
        record = read_object(aside) or row
        image = catalogue.image_path(str(row["name"]), sha256)
        if os.path.exists(image):
            os.rename(image, os.path.join(place, f"{sha256}.sif"))
        _forget(catalogue, record)
        catalogue.note("removed", record, name=str(row["name"]), why=why)
        gone[sha256] = place
    return gone


def _hide(catalogue: Catalogue, row: dict[str, Any]) -> str | None:
    """Move one record to a new folder in the trash, which is returned; None where another was faster."""
    sha256 = str(row["sha256"])
    stamp = utc_now().strftime("%Y%m%dT%H%M%S")
    name = f"{stamp}-{sha256[:12]}-{secrets.token_hex(3)}"
    place = os.path.join(catalogue.root, "trash", name)
    os.makedirs(place, mode=0o700)
    try:
        record_path = catalogue.record_path(str(row["name"]), sha256)
        os.rename(record_path, os.path.join(place, f"{sha256}.json"))
    except FileNotFoundError:
        os.rmdir(place)
        return None
    return place


def _forget(catalogue: Catalogue, record: dict[str, Any]) -> None:
    """Drop what pointed at the image: pin, last use, and the build pointer unless a newer image has it."""
    sha256 = record["sha256"]
    build = os.path.join(catalogue.builds, f"{record.get('build_digest')}.json")
    pointer = read_object(build)
    stale = [os.path.join(catalogue.pins, f"{sha256}.json"), os.path.join(catalogue.uses, sha256)]
    if pointer and pointer.get("sha256") == sha256:
        stale.append(build)
    for path in stale:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
