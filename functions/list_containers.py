"""What is registered on an endpoint: a page of the list, or one container's record."""

from __future__ import annotations

import json
from typing import Any

from ._shared.catalogue import Catalogue
from ._shared.grammars import pip_name
from ._shared.results import run_step
from ._shared.site import load_site

MAX_PAGE = 12
MAX_SHOWN_BYTES = 7000
LONG_FIELDS = ("recipe", "verification", "spec")


def list_containers(
    reference: str | None = None, limit: int = MAX_PAGE, offset: int = 0
) -> dict[str, Any]:
    """``containers`` (newest first; a page may be shorter than ``limit``) and ``total``; with a ``reference``
    (``name``, ``name:tag``, a container id or a unique beginning of one) ``container``, its record without its
    longest parts, which stand in the file ``record_path``.
    """
    return run_step("list_containers", lambda: _list(reference, limit, offset))


def _list(reference: str | None, limit: int, offset: int) -> dict[str, Any]:
    catalogue = Catalogue(load_site()["root"])
    if reference is not None:
        return {"container": _shown(catalogue, catalogue.find(reference))}
    records = catalogue.records()
    page = records[max(0, offset) : max(0, offset) + max(1, min(limit, MAX_PAGE))]
    tags: dict[str, dict[str, dict[str, Any]]] = {r["name"]: {} for r in page}
    for name in tags:
        tags[name] = catalogue.tags_of(name)
    rows = [
        {
            "container_id": record["container_id"],
            "name": record["name"],
            "tags": [
                tag
                for tag, pointer in tags[record["name"]].items()
                if pointer["sha256"] == record["sha256"]
            ][:5],
            "path": record["path"],
            "sha256": record["sha256"],
            "bytes": record["bytes"],
            "created_at": record["created_at"],
        }
        for record in page
    ]
    while len(rows) > 1 and len(json.dumps(rows)) > MAX_SHOWN_BYTES:
        rows.pop()
    return {"total": len(records), "containers": rows}


def _shown(catalogue: Catalogue, record: dict[str, Any]) -> dict[str, Any]:
    short = {key: value for key, value in record.items() if key not in LONG_FIELDS}
    verification = record["verification"]
    tags = [
        tag
        for tag, pointer in catalogue.tags_of(record["name"]).items()
        if pointer["sha256"] == record["sha256"]
    ]
    short["tags"] = tags[:20]
    short["record_path"] = catalogue.record_path(record["name"], record["sha256"])
    short["python"] = verification["python"]
    short["imports"] = verification["imports"][:60]
    short["package_count"] = len(verification["packages"])
    asked = {pip_name(item) for item in record["spec"]["pip"]} | set(record["worker"])
    short["packages"] = {n: v for n, v in verification["packages"].items() if n in asked}
    while len(json.dumps(short)) > MAX_SHOWN_BYTES and (short["packages"] or short["imports"]):
        # the whole lists stand in the record's file
        short["imports"] = short["imports"][: len(short["imports"]) // 2]
        short["packages"] = dict(list(short["packages"].items())[: len(short["packages"]) // 2])
    return short
