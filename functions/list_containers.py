"""What is registered on an endpoint: a page of the list, one container's record, or a name's history."""

from __future__ import annotations

import fnmatch
import json
from typing import Any

from ._shared.catalogue import Catalogue, require_text
from ._shared.catalogue_index import image_key
from ._shared.grammars import IMAGE_NAME, pip_name
from ._shared.results import MAX_RESULT_BYTES, StepFailed, fitting, run_step, shorten
from ._shared.site import load_site

DEFAULT_PAGE = 12
# A page of this size is for people and programs; what a flow asks for stays below the limit of its state.
MAX_PAGE = 1000
MAX_PAGE_BYTES = 2 * 1024**2
MAX_SHOWN_BYTES = 7000
LONG_FIELDS = ("recipe", "verification", "spec")
SORT_KEYS = {"created": "created_at", "name": "name", "size": "bytes"}


def list_containers(
    reference: str | None = None,
    limit: int = DEFAULT_PAGE,
    offset: int = 0,
    name: str | None = None,
    base: str | None = None,
    package: str | None = None,
    sort: str = "created",
    history: str | None = None,
) -> dict[str, Any]:
    """``containers`` (newest first; a page may be shorter than ``limit``), ``total`` and ``total_bytes``.

    Only those whose name fits the pattern ``name`` (``*`` and ``?``), whose base holds the text ``base``, and
    that were asked to have ``package`` (``numpy``, or ``numpy==2.1.0``). ``sort`` is created, name or size.

    With a ``reference`` (``name``, ``name:tag``, a container id or a unique beginning of one) instead
    ``container``, its record without its longest parts, which stand in the file ``record_path``. With
    ``history``, an image name, instead ``events``: what happened to it, newest first.
    """
    is_long = isinstance(limit, int) and limit > DEFAULT_PAGE
    largest = MAX_PAGE_BYTES if is_long else MAX_RESULT_BYTES
    if reference is not None:
        return run_step("list_containers", lambda: _show(reference))
    if history is not None:
        return run_step("list_containers", lambda: _history(history, limit, offset), largest)
    return run_step(
        "list_containers", lambda: _list(name, base, package, sort, limit, offset), largest
    )


def _catalogues() -> list[Catalogue]:
    site = load_site()
    return [Catalogue(root) for root in (site["root"], *site["shared_roots"])]


def _show(reference: str) -> dict[str, Any]:
    """The first catalogue that knows it: one's own, then those that are shared."""
    first: StepFailed | None = None
    for catalogue in _catalogues():
        try:
            return {"container": _shown(catalogue, catalogue.find(reference))}
        except StepFailed as missing:
            first = first or missing
    assert first is not None
    raise first


def _history(name: str, limit: int, offset: int) -> dict[str, Any]:
    require_text("history", name)
    image = name.partition(":")[0]
    if not IMAGE_NAME.fullmatch(image):
        # the name of a folder, too: nothing but an image's may be looked into
        raise StepFailed("illegal_name", f"'{shorten(image, 80)}' is not an image name.")
    first, count, budget = _page(limit, offset)
    events = _catalogues()[0].events(image)
    if not events:
        raise StepFailed(
            "container_not_found", f"Nothing is known of an image '{image[:80]}' on this endpoint."
        )
    return {"total": len(events), "events": _fitting_rows(events[first : first + count], budget)}


def _list(
    name: str | None, base: str | None, package: str | None, sort: str, limit: int, offset: int
) -> dict[str, Any]:
    if not isinstance(sort, str) or sort not in SORT_KEYS:
        wrong = shorten(str(sort), 40)
        raise StepFailed("illegal_name", f"'sort' is one of {', '.join(SORT_KEYS)}, not {wrong}.")
    for field, given in (("name", name), ("base", base), ("package", package)):
        if given is not None:
            require_text(field, given)
    first, count, budget = _page(limit, offset)
    own = load_site()["root"]
    rows: list[dict[str, Any]] = []
    tags: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for place in _catalogues():
        found, tagged = place.index.read()
        rows += [
            {**row, "root": place.root} for row in found if _fits_filter(row, name, base, package)
        ]
        for image, its_tags in tagged.items():
            for tag, key in its_tags.items():
                tags.setdefault((place.root, key), []).append((image, tag))
    rows.sort(key=lambda r: (r[SORT_KEYS[sort]], r["sha256"]), reverse=sort != "name")
    page = []
    for row in rows[first : first + count]:
        names = tags.get((row["root"], image_key(row["name"], row["sha256"])), [])
        others = [f"{image}:{tag}" for image, tag in names if image != row["name"]]
        shown = ("container_id", "name", "path", "sha256", "bytes", "created_at")
        page.append(
            {
                **{key: row[key] for key in shown},
                "tags": [tag for image, tag in names if image == row["name"]][:5],
                **({"other_names": others[:5]} if others else {}),
                **({} if row["present"] else {"image_is_missing": True}),
                **({} if row["root"] == own else {"shared": row["root"]}),
            }
        )
    return {
        "total": len(rows),
        "total_bytes": sum(row["bytes"] for row in rows),
        "containers": _fitting_rows(page, budget),
    }


def _page(limit: int, offset: int) -> tuple[int, int, int]:
    """Where a page begins, how many rows it may have, and how many bytes."""
    for field, value in (("limit", limit), ("offset", offset)):
        if not isinstance(value, int):
            raise StepFailed("illegal_name", f"'{field}' must be a whole number.")
    budget = MAX_SHOWN_BYTES if limit <= DEFAULT_PAGE else MAX_PAGE_BYTES - 2000
    return max(0, offset), max(1, min(limit, MAX_PAGE)), budget


def _fitting_rows(rows: list[dict[str, Any]], budget: int) -> list[dict[str, Any]]:
    kept: list[dict[str, Any]] = []
    size = 2
    for row in rows:
        size += len(json.dumps(row)) + 2
        if kept and size > budget:
            break
        kept.append(row)
    return kept


def _fits_filter(
    row: dict[str, Any], name: str | None, base: str | None, package: str | None
) -> bool:
    if name is not None and not fnmatch.fnmatchcase(row["name"], name):
        return False
    if base is not None and base not in row["base"]:
        return False
    if package is None:
        return True
    wanted, _, version = package.partition("==")
    try:
        wanted = pip_name(wanted)
    except ValueError:
        return False
    found = row["packages"].get(wanted)
    return found is not None and version in ("", found)


def _shown(catalogue: Catalogue, record: dict[str, Any]) -> dict[str, Any]:
    short = {key: value for key, value in record.items() if key not in LONG_FIELDS}
    verification = record.get("verification") or {}
    tags = [
        tag
        for tag, pointer in catalogue.tags_of(record["name"]).items()
        if (pointer["name"], pointer["sha256"]) == (record["name"], record["sha256"])
    ]
    short["tags"] = tags[:20]
    short["record_path"] = catalogue.record_path(record["name"], record["sha256"])
    packages, spec = verification.get("packages") or {}, record.get("spec") or {}
    short["description"] = fitting(str(spec.get("description") or ""))
    short["python"] = verification.get("python")
    short["imports"] = (verification.get("imports") or [])[:60]
    short["package_count"] = len(packages)
    asked = {pip_name(item) for item in spec.get("pip") or []} | set(record.get("worker") or {})
    short["packages"] = {n: v for n, v in packages.items() if n in asked}
    while len(json.dumps(short)) > MAX_SHOWN_BYTES and (short["packages"] or short["imports"]):
        # the whole lists stand in the record's file
        short["imports"] = short["imports"][: len(short["imports"]) // 2]
        short["packages"] = dict(list(short["packages"].items())[: len(short["packages"]) // 2])
    return short
