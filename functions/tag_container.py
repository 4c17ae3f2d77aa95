"""Gives containers further names, moves and takes names away, and pins what must stay."""

from __future__ import annotations

from typing import Any

from ._shared.catalogue import Catalogue, split_name, utc_now
from ._shared.holds import pin, unpin
from ._shared.results import StepFailed, run_step, shorten
from ._shared.site import load_site

ACTIONS = ("tag", "move", "untag", "pin", "unpin")


def tag_container(
    action: str, reference: str, name_tag: str | None = None, why: str = ""
) -> dict[str, Any]:
    """``tag`` gives the container ``reference`` the new name ``name_tag`` (``name:tag``, or a tag alone);
    ``move`` does so even if that name is another container's; ``untag`` takes the name ``reference`` away;
    ``pin`` keeps the container whatever its age, for a reason ``why``; ``unpin`` ends that.

    Returns ``container_id``, ``name``, ``tag`` and, for ``untag``, what is left in ``tags``.
    """
    return run_step("tag_container", lambda: _tag(action, reference, name_tag, why))


def _tag(action: str, reference: str, name_tag: str | None, why: str) -> dict[str, Any]:
    if action not in ACTIONS:
        raise StepFailed("illegal_name", f"'action' is one of {', '.join(ACTIONS)}.")
    catalogue = Catalogue(load_site()["root"])
    if action == "untag":
        name, tag = split_name(reference)
        pointer = catalogue.untag(name, tag)
        left = [t for t, p in catalogue.tags_of(name).items() if p["sha256"] == pointer["sha256"]]
        return {
            "container_id": pointer["container_id"],
            "name": name,
            "tag": tag,
            "tags": left[:20],
        }
    record = catalogue.find(reference)
    if action in ("tag", "move"):
        name, tag = split_name(name_tag or "", record["name"])
        now = utc_now().isoformat(timespec="seconds")
        catalogue.tag(
            name,
            tag,
            record,
            now,
            is_new=action == "tag" and not _is_its(catalogue, name, tag, record),
        )
        return {"container_id": record["container_id"], "name": name, "tag": tag}
    if action == "pin":
        pin(catalogue, record["name"], record["sha256"], shorten(why, 500))
        catalogue.note("pinned", record, why=shorten(why, 500))
    elif unpin(catalogue, record["name"], record["sha256"]):
        catalogue.note("unpinned", record)
    return {"container_id": record["container_id"], "name": record["name"], "tag": None}


def _is_its(catalogue: Catalogue, name: str, tag: str, record: dict[str, Any]) -> bool:
    """Whether the name is this very container's already: asking twice is no conflict."""
    pointer = catalogue.tags_of(name).get(tag)
    return pointer is not None and all(pointer[k] == record[k] for k in ("name", "sha256"))
