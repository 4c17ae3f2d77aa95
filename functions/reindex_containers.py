"""Makes the catalogue anew from what cannot be lost without losing everything: the images."""

from __future__ import annotations

import os
from typing import Any

from ._shared.catalogue import Catalogue, utc_now
from ._shared.files import sha256_file
from ._shared.grammars import IMAGE_NAME, SHA256
from ._shared.holds import storage_time
from ._shared.recovery import recover
from ._shared.results import run_step
from ._shared.site import load_site

MIN_AGE_S = 15 * 60


def reindex_containers(min_age_s: float = MIN_AGE_S) -> dict[str, Any]:
    """Read every record anew, and write one for each image that has none and whose content is still what its
    name says: from its signed provenance, where it carries one, and sealed again only where the site's keys
    confirm that. Give each name without any tag the tag ``latest`` again; restore the pointers from builds.

    Images younger than ``min_age_s`` are left alone, since a registration may be under way. Returns
    ``containers``, how many there are, and lists of what was ``recovered``, is ``damaged`` or has
    ``missing`` images, at most twenty each.
    """
    return run_step("reindex_containers", lambda: _reindex(min_age_s))


def _reindex(min_age_s: float) -> dict[str, Any]:
    site = load_site()
    catalogue = Catalogue(site["root"])
    now = storage_time(catalogue.root)
    recovered, damaged = [], []
    for name, sha256 in _orphans(catalogue, now, min_age_s):
        path = catalogue.image_path(name, sha256)
        if sha256_file(path) != sha256:
            damaged.append(path)
            continue
        record = recover(site, catalogue, name, sha256)
        catalogue.note("recovered", record)
        recovered.append(path)
    count = catalogue.index.rebuild()
    rows = catalogue.rows()
    _restore_tags(catalogue, rows)
    _restore_pointers(catalogue, rows)
    missing = [row["path"] for row in rows if not row["present"]]
    return {
        "containers": count,
        "recovered": recovered[:20],
        "damaged": damaged[:20],
        "missing": missing[:20],
    }


def _orphans(catalogue: Catalogue, now: float, min_age_s: float) -> list[tuple[str, str]]:
    found = []
    for folder, _, names in os.walk(catalogue.images):
        name = os.path.basename(folder)
        for entry in names:
            sha256 = entry.removesuffix(".sif")
            if (
                entry.endswith(".sif")
                and SHA256.fullmatch(sha256)
                and IMAGE_NAME.fullmatch(name)
                and f"{sha256}.json" not in names
                # a link into place changes this time, and no one can set it
                and now - os.stat(os.path.join(folder, entry)).st_ctime >= min_age_s
            ):
                found.append((name, sha256))
    return sorted(found)


def _restore_tags(catalogue: Catalogue, rows: list[dict[str, Any]]) -> None:
    tagged = catalogue.index.tags()
    for row in rows:  # newest first
        if row["name"] not in tagged and row["present"]:
            catalogue.tag(row["name"], "latest", row, utc_now().isoformat(timespec="seconds"))
            tagged[row["name"]] = {"latest": row["sha256"]}


def _restore_pointers(catalogue: Catalogue, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        digest = row["build_digest"]
        if digest and row["present"] and catalogue.built(digest) is None:
            catalogue.point(digest, row)
