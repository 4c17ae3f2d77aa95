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
from .catalogue_index import image_key, read_object


def discard(
    catalogue: Catalogue,
    rows: list[dict[str, Any]],
    held: Callable[[], set[str]],
    why: str,
) -> dict[str, str]:
    """Move images and their records to the trash; returns for each image key that went the folder there.

    ``held`` is asked once, when all records are hidden: an image that it names, because somebody came to
    rely on it meanwhile, is shown again and stays.
    """
    hidden: dict[str, tuple[dict[str, Any], str]] = {}
    for row in rows:
        place = _hide(catalogue, row)
        if place:
            hidden[image_key(str(row["name"]), str(row["sha256"]))] = (row, place)
    wanted = held() if hidden else set()
    gone = {}
    for key, (row, place) in hidden.items():
        sha256 = str(row["sha256"])
        record_path = catalogue.record_path(str(row["name"]), sha256)
        aside = os.path.join(place, f"{sha256}.json")
        if key in wanted:
            os.rename(aside, record_path)
            os.rmdir(place)
            continue
        record = read_object(aside) or row
        _move_files(os.path.dirname(record_path), place, sha256)
        if os.path.exists(record_path):
            # somebody registered the same image meanwhile, relying on the file that was here
            _move_files(place, os.path.dirname(record_path), sha256)
            os.unlink(aside)
            os.rmdir(place)
            continue
        _forget(catalogue, record)
        catalogue.note("removed", record, name=str(row["name"]), why=why)
        gone[key] = place
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


def _move_files(source: str, target: str, sha256: str) -> None:
    """Move an image and whatever lies beside it, but not the record, which is hidden and shown by itself."""
    for name in os.listdir(source):
        if name.startswith(f"{sha256}.") and name != f"{sha256}.json":
            try:
                os.rename(os.path.join(source, name), os.path.join(target, name))
            except FileNotFoundError:
                pass  # another remover has it


def _forget(catalogue: Catalogue, record: dict[str, Any]) -> None:
    """Drop what pointed at the image: pin, last use, and the build pointer unless a newer image has it."""
    key = image_key(str(record["name"]), str(record["sha256"]))
    build = os.path.join(catalogue.builds, f"{record.get('build_digest')}.json")
    pointer = read_object(build)
    stale = [os.path.join(catalogue.pins, f"{key}.json"), os.path.join(catalogue.uses, key)]
    if pointer and (pointer.get("name"), pointer.get("sha256")) == (
        record["name"],
        record["sha256"],
    ):
        stale.append(build)
    for path in stale:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
