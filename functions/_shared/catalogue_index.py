"""An index over the records and tags, so that ten thousand of them are listed without opening each.

The truth stays in the folders. The index remembers, for each folder, the time of its last change and what was
read in it; a folder whose time differs is listed again, and only records that are new in it are opened, since
records never change. Losing the index, or two writers replacing each other's, costs time and nothing else.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from typing import Any

from .files import read_json
from .grammars import SHA256, TAG, pip_name

INDEX_FORMAT = 2
# A folder that changed so shortly before it was listed may change again without a newer time.
RACY_NS = 2_000_000_000
# What a record must have to be listed at all.
LISTED = {
    "container_id": str,
    "name": str,
    "path": str,
    "sha256": str,
    "created_at": str,
    "bytes": int,
}

Rows = list[dict[str, Any]]
# folder name -> (time of its last change, or 0 where that cannot be trusted; what was found in it)
Part = dict[str, tuple[int, Any]]


def read_object(path: str) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is none that can be read."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def image_key(name: str, sha256: str) -> str:
    """What tells images apart: one content may be registered under several names."""
    return f"{name}@{sha256}"


class CatalogueIndex:
    """The index of one root."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.path = os.path.join(root, "index.json")

    def read(self) -> tuple[Rows, dict[str, dict[str, str]]]:
        """``rows`` and ``tags`` in one look."""
        images, tags = self._current(False)
        return (
            [row for _, rows in images.values() for row in rows],
            {name: found for name, (_, found) in tags.items() if found},
        )

    def rows(self) -> Rows:
        """A short row for each record: the listed fields, ``base``, ``packages``, ``build_digest`` and whether
        the image is ``present``.
        """
        return self.read()[0]

    def tags(self) -> dict[str, dict[str, str]]:
        """Image name -> tag -> key of the image it points at (:func:`image_key`)."""
        return self.read()[1]

    def rebuild(self) -> int:
        """Read every record anew; returns how many there are."""
        images, _ = self._current(True)
        return sum(len(rows) for _, rows in images.values())

    def _current(self, forget: bool) -> tuple[Part, Part]:
        known = None if forget else read_object(self.path)
        if not known or known.get("format") != INDEX_FORMAT:
            known = {}
        parts, changed = [], False
        for kind, read in (("images", _read_images), ("tags", _read_tags)):
            before = known.get(kind)
            before = before if isinstance(before, dict) else {}
            part, differs = self._part(os.path.join(self.root, kind), before, read)
            parts.append(part)
            changed = changed or differs
        if changed or forget:
            self._write(parts[0], parts[1])
        return parts[0], parts[1]

    def _part(
        self, place: str, known: dict[str, Any], read: Callable[[str, Any], Any]
    ) -> tuple[Part, bool]:
        """The part of the index for one kind of folder, and whether it differs from what was known."""
        try:
            with os.scandir(place) as entries:
                times = {e.name: e.stat().st_mtime_ns for e in entries if e.is_dir()}
        except OSError:
            return {}, bool(known)
        part: Part = {}
        changed = times.keys() != known.keys()
        now: int | None = None
        for name, time_ns in times.items():
            was = known.get(name)
            if was and was[0] == time_ns:
                part[name] = (time_ns, was[1])
                continue
            if now is None:
                now = self._now_ns()
            folder = os.path.join(place, name)
            time_ns = os.stat(folder).st_mtime_ns
            found = read(folder, was[1] if was else None)
            stands_still = time_ns < now - RACY_NS
            part[name] = (time_ns if stands_still else 0, found)
            changed = changed or stands_still or not was or found != was[1]
        return part, changed

    def _now_ns(self) -> int:
        """The file system's own time, which is what the folders' times are compared with; 0 where this
        account may not write, so that nothing it lists counts as standing still.
        """
        probe = os.path.join(self.root, f".now.{secrets.token_hex(6)}")
        try:
            handle = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError:
            return 0
        try:
            return os.fstat(handle).st_mtime_ns
        finally:
            os.close(handle)
            os.unlink(probe)

    def _write(self, images: Part, tags: Part) -> None:
        """Not synced to disk: after a power cut the index is made again."""
        text = json.dumps({"format": INDEX_FORMAT, "images": images, "tags": tags})
        aside = os.path.join(self.root, f".index.json.{secrets.token_hex(6)}")
        try:
            with open(aside, "x", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(text)
            os.replace(aside, self.path)
        except OSError:
            # a reader of someone else's catalogue, or a full disk: the list is right all the same
            if os.path.lexists(aside):
                os.unlink(aside)


def _read_images(folder: str, known: Any) -> Rows:
    """The rows of one name's records; those known are taken over, since records never change."""
    rows = {row["sha256"]: row for row in known} if known else {}
    names = set(os.listdir(folder))
    found = []
    for name in sorted(names):
        sha256, dot, ending = name.partition(".")
        if not dot or ending != "json" or not SHA256.fullmatch(sha256):
            continue
        row = rows.get(sha256) or _row(read_object(os.path.join(folder, name)))
        if row and row["sha256"] == sha256:
            found.append({**row, "present": f"{sha256}.sif" in names})
    return found


def _row(record: dict[str, Any] | None) -> dict[str, Any] | None:
    if not record or not all(isinstance(record.get(k), kind) for k, kind in LISTED.items()):
        return None
    row = {key: record[key] for key in LISTED}
    base, spec = record.get("base"), record.get("spec")
    verification, worker = record.get("verification"), record.get("worker")
    row["build_digest"] = str(record.get("build_digest") or "")
    row["base"] = str(base.get("image", "")) if isinstance(base, dict) else ""
    asked = set(worker) if isinstance(worker, dict) else set()
    packages: dict[str, str] = {}
    if isinstance(spec, dict):
        asked |= {_pip_name(str(item)) for item in spec.get("pip") or []}
        packages = {str(item): "" for kind in ("apt", "conda") for item in spec.get(kind) or []}
    versions = verification.get("packages") if isinstance(verification, dict) else None
    if isinstance(versions, dict):
        packages.update({name: str(versions[name]) for name in sorted(asked) if name in versions})
    row["packages"] = packages
    return row


def _pip_name(requirement: str) -> str:
    try:
        return pip_name(requirement)
    except ValueError:
        return requirement  # of a record that another version wrote


def _read_tags(folder: str, _known: Any) -> dict[str, str]:
    found = {}
    for name in sorted(os.listdir(folder)):
        if name.endswith(".json") and TAG.fullmatch(name[:-5]):
            pointer = read_object(os.path.join(folder, name))
            if pointer and SHA256.fullmatch(str(pointer.get("sha256"))) and pointer.get("name"):
                found[name[:-5]] = image_key(str(pointer["name"]), str(pointer["sha256"]))
    return found
