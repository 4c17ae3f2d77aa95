"""What differs between two registered containers, from their records and locks, or file by file."""

from __future__ import annotations

import difflib
import itertools
import json
import os
import uuid
from typing import Any

from ._shared.catalogue import Catalogue
from ._shared.files import read_json
from ._shared.lock import package_table
from ._shared.lock_files import lock_path
from ._shared.places import choose_tmpdir
from ._shared.results import StepFailed, run_step, shorten
from ._shared.sif import SquashPartition, partition_sha256, squash_partition
from ._shared.site import load_site
from ._shared.tree_manifest import LEFT_OUT, differences, digest_files, entries_of
from ._shared.working import scratch_folder

MAX_DIFF_BYTES = 256 * 1024
MAX_PACKAGES = 500
MAX_RECIPE_LINES = 200
MAX_PATHS = 100
UNPACKED_FACTOR = 5  # how much larger a tree may be than the image it comes from


def diff_containers(first: str, second: str, content: bool = False) -> dict[str, Any]:
    """Compare two containers, each named as ``list_containers`` takes a reference.

    Returns ``same_image``, ``first`` and ``second`` (id, name, size), ``base``, ``packages`` (for ``debian``,
    ``pip`` and ``conda``: ``added``, ``removed``, ``changed``), ``environment``, ``recipe`` (a unified
    difference) and what was cut. With ``content``: ``content.identical`` and the first paths that differ, with
    the patterns that were ``left_out`` and why.
    """
    return run_step(
        "diff_containers", lambda: _diff_containers(first, second, content), MAX_DIFF_BYTES
    )


class _Side:
    """One of the two: its record, lock and image."""

    def __init__(self, roots: list[str], reference: str) -> None:
        missing: StepFailed | None = None
        for root in roots:
            catalogue = Catalogue(root)
            try:
                self.record = catalogue.find(reference)
            except StepFailed as failure:
                missing = missing or failure
                continue
            name, sha256 = str(self.record["name"]), str(self.record["sha256"])
            self.image = catalogue.image_path(name, sha256)
            try:
                self.lock: dict[str, Any] = read_json(lock_path(catalogue, name, sha256))
            except (OSError, ValueError):
                self.lock = {}
            return
        assert missing is not None
        raise missing

    def packages(self, kind: str) -> dict[str, str]:
        """Name -> version; from the verification where an older version made no lock."""
        if not self.lock and kind == "pip":
            return dict((self.record.get("verification") or {}).get("packages") or {})
        return package_table(self.lock.get(kind))

    def environment(self) -> dict[str, str]:
        return dict((self.record.get("spec") or {}).get("environment") or {})

    def shown(self) -> dict[str, Any]:
        return {
            **{key: self.record.get(key) for key in ("container_id", "name", "sha256", "bytes")},
            "created_at": self.record.get("created_at"),
            "has_lock": bool(self.lock),
        }


def _diff_containers(first: str, second: str, content: bool) -> dict[str, Any]:
    site = load_site()
    roots = [site["root"], *site["shared_roots"]]
    one, two = _Side(roots, first), _Side(roots, second)
    same = one.record["sha256"] == two.record["sha256"]
    found: dict[str, Any] = {
        "same_image": same,
        "first": one.shown(),
        "second": two.shown(),
        "bytes": int(two.record["bytes"]) - int(one.record["bytes"]),
        "base": _changed_base(one, two),
        "packages": {
            kind: _changed(one.packages(kind), two.packages(kind))
            for kind in ("debian", "pip", "conda")
        },
        "environment": _changed(one.environment(), two.environment()),
        "recipe": _changed_lines(
            str(one.record.get("recipe") or ""), str(two.record.get("recipe") or "")
        ),
    }
    if content:
        found["content"] = (
            {"identical": True, "compared": 0, "differing": 0, "differences": []}
            if same
            else _compare_content(site, one, two)
        )
    while len(json.dumps(found)) > MAX_DIFF_BYTES - 2000 and found["recipe"]:
        found["recipe"] = found["recipe"][: len(found["recipe"]) // 2]
    return found


def _changed_base(one: _Side, two: _Side) -> dict[str, Any] | None:
    bases = [side.record.get("base") or {} for side in (one, two)]
    digests = [base.get("digest") for base in bases]
    if digests[0] == digests[1]:
        return None
    return {
        "images": [base.get("image") for base in bases],
        "digests": digests,
    }


def _changed(before: dict[str, str], after: dict[str, str]) -> dict[str, Any]:
    """What was added, removed and changed, each cut at ``MAX_PACKAGES``; ``total`` counts all."""
    added = {k: shorten(str(after[k]), 200) for k in sorted(after.keys() - before.keys())}
    removed = {k: shorten(str(before[k]), 200) for k in sorted(before.keys() - after.keys())}
    changed = {
        k: [shorten(str(before[k]), 200), shorten(str(after[k]), 200)]
        for k in sorted(before.keys() & after.keys())
        if before[k] != after[k]
    }
    return {
        "total": len(added) + len(removed) + len(changed),
        "added": dict(list(added.items())[:MAX_PACKAGES]),
        "removed": dict(list(removed.items())[:MAX_PACKAGES]),
        "changed": dict(list(changed.items())[:MAX_PACKAGES]),
    }


def _changed_lines(before: str, after: str) -> list[str]:
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), "first", "second", n=1, lineterm=""
    )
    return [shorten_line(line) for line in itertools.islice(lines, MAX_RECIPE_LINES)]


def shorten_line(line: str) -> str:
    return line if len(line) <= 300 else f"{line[:297]}..."


def _compare_content(site: dict[str, Any], one: _Side, two: _Side) -> dict[str, Any]:
    partitions = [_partition(side) for side in (one, two)]
    digests = [partition_sha256(s.image, p) for s, p in zip((one, two), partitions, strict=True)]
    if digests[0] == digests[1]:
        return {"identical": True, "compared": 0, "differing": 0, "differences": []}
    trees = [entries_of(s.image, p) for s, p in zip((one, two), partitions, strict=True)]
    common = [
        path
        for path, entry in trees[0].items()
        if entry.mode[0] == "-" and path in trees[1] and trees[1][path].shape() == entry.shape()
    ]
    need = UNPACKED_FACTOR * max(os.path.getsize(side.image) for side in (one, two))
    work = os.path.join(site["root"], "work")
    os.makedirs(work, mode=0o755, exist_ok=True)
    with scratch_folder(choose_tmpdir(site["tmpdir"], work, need), uuid.uuid4().hex) as scratch:
        for side, partition, tree in zip((one, two), partitions, trees, strict=True):
            digest_files(side.image, partition, [tree[path] for path in common], scratch)
    found = differences(trees[0], trees[1])
    return {
        "identical": not found,
        "compared": len(trees[0].keys() | trees[1].keys()),
        "differing": len(found),
        "differences": [
            {"path": shorten_line(d["path"]), "what": shorten_line(d["what"])}
            for d in found[:MAX_PATHS]
        ],
        "left_out": [{"paths": pattern, "why": why} for pattern, why in LEFT_OUT],
    }


def _partition(side: _Side) -> SquashPartition:
    partition = squash_partition(side.image) if os.path.exists(side.image) else None
    if partition is None:
        raise StepFailed(
            "image_unreadable",
            f"The image {side.image} is missing or is no SIF file with a squashfs.",
        )
    return partition
