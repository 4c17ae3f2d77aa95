"""Takes a container out of the catalogue, unless something still holds it."""

from __future__ import annotations

from typing import Any

from ._shared.catalogue import Catalogue
from ._shared.catalogue_index import image_key
from ._shared.holds import holds, storage_time
from ._shared.removal import discard
from ._shared.results import StepFailed, run_step
from ._shared.site import load_site

# What even force does not overrule: somebody is using the image at this moment.
IN_USE = ("lease", "run")


def remove_container(reference: str, force: bool = False) -> dict[str, Any]:
    """Move the image and its record to the trash, which ``collect_garbage`` empties later.

    Refused with ``in_use`` while the image has tags or a pin, unless ``force`` is given, which takes them
    away; and always while a lease or a run under way holds it. Returns ``container_id``, ``sha256``,
    ``bytes``, the ``tags`` that were taken away, and ``trash``, the folder in which it lies for now.
    """
    return run_step("remove_container", lambda: _remove(reference, force))


def _remove(reference: str, force: bool) -> dict[str, Any]:
    catalogue = Catalogue(load_site()["root"])
    record = catalogue.find(reference)
    sha256 = str(record["sha256"])
    key = image_key(str(record["name"]), sha256)
    found = holds(catalogue, storage_time(catalogue.root)).get(key, [])
    _refuse(record, [h for h in found if h[0] in IN_USE or not force], force)
    tags = [name for kind, name in found if kind == "tag"]

    def held_since() -> set[str]:
        now = holds(catalogue, storage_time(catalogue.root)).get(key, [])
        return {key} if any(hold not in found for hold in now) else set()

    place = discard(catalogue, [record], held_since, "removed by hand").get(key)
    if place is None:
        raise StepFailed(
            "in_use",
            f"{record['name']} {record['container_id']} was tagged or taken into use just now.",
            "Look at it again before removing it.",
        )
    for name_tag in tags:
        name, _, tag = name_tag.partition(":")
        if catalogue.tags_of(name).get(tag, {}).get("sha256") == sha256:
            catalogue.untag(name, tag)
    return {
        "container_id": record["container_id"],
        "sha256": sha256,
        "bytes": record["bytes"],
        "tags": tags[:20],
        "trash": place,
    }


def _refuse(record: dict[str, Any], found: list[tuple[str, str]], force: bool) -> None:
    if not found:
        return
    what = {
        "tag": "the tag {}",
        "pin": "a pin",
        "lease": "a use of it under way ({})",
        "run": "the run {}, which is under way",
    }
    names = ", ".join(what[kind].format(name) for kind, name in found[:5])
    raise StepFailed(
        "in_use",
        f"{record['name']} {record['container_id']} is held by {names}.",
        "Wait until that has ended."
        if any(kind in IN_USE for kind, _ in found)
        else "Untag or unpin it first, or force the removal, which takes tags and pins away.",
    )
