"""Taking images out of the catalogue: hidden first, then moved to the trash, deleted only later.

A container that runs from an image keeps its open file through a rename, on NFS too, where deleting would
break it. So a removed image lies in ``<root>/trash`` for a while, one folder for each, before gc deletes it.
While a removal is not decided its folder begins with a dot, and no gc deletes that.

An NFS client may see another's tag up to a minute late, and so remove what was tagged in that minute. It is
noticed in the trash, where :func:`return_wanted` finds it and puts it back.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from typing import Any

from .catalogue import Catalogue, utc_now
from .catalogue_index import image_key, read_object
from .grammars import IMAGE_NAME, SHA256
from .holds import age_s

UNDECIDED = "."
# No removal takes so long; one that does was killed between hiding a record and moving its image.
UNDECIDED_FOR_S = 3600.0


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
        gone[key] = _decided(place)
    return gone


def return_wanted(
    catalogue: Catalogue, found: dict[str, list[tuple[str, str]]], now: float
) -> None:
    """Put back what lies in the trash although a tag or a pin names it, and what a removal that was killed left
    undecided. ``found`` is what :func:`holds` says, ``now`` the file system's time.
    """
    trash = os.path.join(catalogue.root, "trash")
    for entry in _names_in(trash):
        place = os.path.join(trash, entry)
        if entry.startswith(UNDECIDED) and UNDECIDED_FOR_S < age_s(place, now) < float("inf"):
            _return(catalogue, place)
    for place, kinds in _held(catalogue, found):
        if kinds & {"tag", "pin"}:
            _return(catalogue, place)


def still_held(catalogue: Catalogue, found: dict[str, list[tuple[str, str]]]) -> set[str]:
    """Folders of the trash that must not be deleted: a job runs from the image, or nothing else has what is wanted."""
    return {place for place, _ in _held(catalogue, found)}


def _held(
    catalogue: Catalogue, found: dict[str, list[tuple[str, str]]]
) -> Iterator[tuple[str, set[str]]]:
    """Each folder of the trash whose image is held, and by which kinds of holds; only a lease may mean this copy
    of an image that is in the catalogue again.
    """
    trash = os.path.join(catalogue.root, "trash")
    # the names of folders tell images apart well enough to open few of them
    beginnings = {key.rpartition("@")[2][:12] for key in found}
    for entry in _names_in(trash):
        parts = entry.split("-")
        if entry.startswith(UNDECIDED) or len(parts) != 3 or parts[1] not in beginnings:
            continue
        place = os.path.join(trash, entry)
        record = _record_in(place)
        key = image_key(str(record.get("name")), str(record.get("sha256"))) if record else ""
        kinds = {kind for kind, _ in found.get(key, [])}
        if "lease" in kinds or (kinds and record and not _is_there(catalogue, record)):
            yield place, kinds


def _is_there(catalogue: Catalogue, record: dict[str, Any]) -> bool:
    return catalogue.is_whole(str(record["name"]), str(record["sha256"]))


def _return(catalogue: Catalogue, place: str) -> None:
    """Move everything in a folder of the trash back to the catalogue, the record last.

    Where the catalogue has another copy by now, or nothing is known of the folder, it becomes plain trash.
    """
    record = _record_in(place)
    name, sha256 = (str(record.get(key)) for key in ("name", "sha256")) if record else ("", "")
    if record and not os.path.exists(catalogue.record_path(name, sha256)):
        folder = os.path.dirname(catalogue.record_path(name, sha256))
        os.makedirs(folder, mode=0o755, exist_ok=True)
        _move_files(place, folder, sha256)
        if os.path.exists(catalogue.image_path(name, sha256)):
            try:
                os.rename(
                    os.path.join(place, f"{sha256}.json"), catalogue.record_path(name, sha256)
                )
                os.rmdir(place)
            except FileNotFoundError:
                return  # another gc was faster
            catalogue.note("put back", record)
            return
    _decided(place)


def _decided(place: str) -> str:
    """Make a hidden folder of the trash one that gc may delete; returns its path."""
    folder, name = os.path.split(place)
    plain = os.path.join(folder, name.lstrip(UNDECIDED))
    if plain != place:
        try:
            os.rename(place, plain)
        except FileNotFoundError:
            pass  # another gc was faster
    return plain


def _record_in(place: str) -> dict[str, Any] | None:
    """The record that lies in a folder of the trash."""
    for name in _names_in(place):
        if name.endswith(".json") and SHA256.fullmatch(name[:-5]):
            record = read_object(os.path.join(place, name))
            if (
                record
                and record.get("sha256") == name[:-5]
                and IMAGE_NAME.fullmatch(str(record.get("name")))
            ):
                return record
    return None


def _names_in(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _hide(catalogue: Catalogue, row: dict[str, Any]) -> str | None:
    """Move one record to a new hidden folder in the trash, which is returned; None where another was faster."""
    sha256 = str(row["sha256"])
    stamp = utc_now().strftime("%Y%m%dT%H%M%S")
    name = f"{UNDECIDED}{stamp}-{sha256[:12]}-{secrets.token_hex(3)}"
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
    for name in _names_in(source):
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
