"""Removes what the site's retention rules let go: images, old runs, what was left half-way, caches, the trash."""

from __future__ import annotations

import os
import secrets
import stat
from typing import Any

from ._shared.catalogue import Catalogue, utc_now
from ._shared.catalogue_index import image_key
from ._shared.files import remove_tree, walk_tree, write_json
from ._shared.holds import age_s, holds, live_runs, storage_time, sweep_leases
from ._shared.removal import UNDECIDED, discard, return_wanted, still_held
from ._shared.results import StepFailed, run_step
from ._shared.retention import choose, retention_of
from ._shared.run_folder import RUN_ID, RunFolder
from ._shared.site import load_site

BATCH = 200
MAX_NAMED = 8


def collect_garbage(
    dry_run: bool = True, rules: dict[str, Any] | None = None, empty_trash: bool = False
) -> dict[str, Any]:
    """Apply the site's ``retention`` with ``rules`` over it; with ``dry_run`` only say what would go.

    What a tag, a pin, a lease or a run under way holds is never removed, nor deleted from the trash; what was
    tagged while another host removed it is put back. ``empty_trash`` deletes all else that was removed before,
    whatever its age. Returns ``images``, ``trash``, ``runs``, ``work``, ``incoming``, ``locks`` and ``cache``, each
    with ``count``, ``bytes`` and the first ``names``; ``total_bytes`` of the images before; ``held`` images;
    ``over_bytes``, by which what has to stay exceeds ``max_bytes``; and ``report_path``, the whole list.
    """
    return run_step("collect_garbage", lambda: _collect(dry_run, rules, empty_trash))


def _collect(dry_run: bool, rules: dict[str, Any] | None, empty_trash: bool) -> dict[str, Any]:
    site = load_site()
    try:
        policy = retention_of(site, rules)
    except ValueError as wrong:
        raise StepFailed("site_invalid", str(wrong)) from None
    catalogue = Catalogue(site["root"])
    now = storage_time(site["root"])
    if not dry_run:
        return_wanted(catalogue, holds(catalogue, now), now)
    found = holds(catalogue, now)
    held = set(found)
    rows = [
        {**row, "idle_s": idle} for row, idle in _with_idle_times(catalogue, now) if row["present"]
    ]
    chosen = choose(rows, held, policy)
    total = sum(row["bytes"] for row in rows)
    limit = policy["max_bytes"]
    left = total - sum(row["bytes"] for row, _ in chosen)
    report: dict[str, list[tuple[str, int]]] = {
        # the trash first: what goes there now shall lie there for a while
        "trash": _old_trash(catalogue, found, now, 0 if empty_trash else policy["trash_age_s"]),
        "runs": _old_runs(site["root"], now, policy["runs_age_s"]),
        "work": _dead_work(site["root"], now),
        "incoming": _older(os.path.join(site["root"], "incoming"), now, policy["incoming_age_s"]),
        # a run copies its lock into its folder: a sent lock is needed no longer than the folders are
        "locks": _older(os.path.join(site["root"], "locks"), now, policy["runs_age_s"]),
        "cache": _large_cache(site, now, policy["cache_bytes"]),
    }
    images = [(f"{row['name']} {row['container_id']}", row["bytes"]) for row, _ in chosen]
    if not dry_run:
        for kind in ("trash", "runs", "work", "incoming", "locks"):
            for path, _ in report[kind]:
                remove_tree(path)
        sweep_leases(catalogue, now)
        for path, _ in report["cache"]:
            _empty_cache(site["root"], path)
        gone = _remove_images(catalogue, [row for row, _ in chosen])
        images = [
            (f"{row['name']} {row['container_id']}", row["bytes"])
            for row, _ in chosen
            if image_key(row["name"], row["sha256"]) in gone
        ]
    report["images"] = images
    path = os.path.join(site["root"], "gc.json")
    at = utc_now().isoformat(timespec="seconds")
    write_json(path, {"at": at, "dry_run": dry_run, "rules": policy, **report})
    return {
        "dry_run": dry_run,
        **{kind: _summary(found) for kind, found in report.items()},
        "total_bytes": total,
        "held": sum(1 for row in rows if image_key(row["name"], row["sha256"]) in held),
        "over_bytes": max(0, left - int(limit)) if limit is not None else 0,
        "report_path": path,
    }


def _summary(found: list[tuple[str, int]]) -> dict[str, Any]:
    return {
        "count": len(found),
        "bytes": sum(size for _, size in found),
        "names": [name for name, _ in found[:MAX_NAMED]],
    }


def _with_idle_times(catalogue: Catalogue, now: float) -> list[tuple[dict[str, Any], float]]:
    """Each row with the seconds since its image was made or last used, whichever is less."""
    used = _times(catalogue.uses)
    made: dict[str, dict[str, float]] = {}
    found = []
    for row in catalogue.rows():
        name, sha256 = row["name"], row["sha256"]
        if name not in made:
            made[name] = _times(os.path.join(catalogue.images, name))
        last = max(made[name].get(f"{sha256}.json", 0.0), used.get(image_key(name, sha256), 0.0))
        found.append((row, now - last))
    return found


def _times(folder: str) -> dict[str, float]:
    try:
        names = os.listdir(folder)
    except OSError:
        return {}
    times = {}
    for name in names:
        try:
            times[name] = os.lstat(os.path.join(folder, name)).st_mtime
        except OSError:
            pass  # gone meanwhile, which says nothing of the others
    return times


def _remove_images(catalogue: Catalogue, rows: list[dict[str, Any]]) -> set[str]:
    gone: set[str] = set()

    def held() -> set[str]:
        return set(holds(catalogue, storage_time(catalogue.root)))

    for first in range(0, len(rows), BATCH):
        gone |= discard(catalogue, rows[first : first + BATCH], held, "retention").keys()
    return gone


def _older(place: str, now: float, limit_s: float | None) -> list[tuple[str, int]]:
    """Entries of a folder that were last changed ``limit_s`` ago or more."""
    if limit_s is None:
        return []
    return [
        (os.path.join(place, name), _size(os.path.join(place, name)))
        for name, time in sorted(_times(place).items())
        if now - time >= limit_s
    ]


def _old_trash(
    catalogue: Catalogue, found: dict[str, list[tuple[str, str]]], now: float, limit_s: float | None
) -> list[tuple[str, int]]:
    """What may be deleted from the trash: not what a job still runs from, nor what is on its way there."""
    kept = still_held(catalogue, found)
    return [
        (path, size)
        for path, size in _older(os.path.join(catalogue.root, "trash"), now, limit_s)
        if path not in kept and not os.path.basename(path).startswith(UNDECIDED)
    ]


def _old_runs(root: str, now: float, limit_s: float | None) -> list[tuple[str, int]]:
    """Folders of runs that have ended; one with a work area has not, or is swept as dead first."""
    if limit_s is None:
        return []
    found = []
    for run_id in sorted(_times(os.path.join(root, "runs"))):
        if not RUN_ID.fullmatch(run_id):
            continue
        folder = RunFolder(root, run_id)
        silent_s = min(
            age_s(os.path.join(folder.path, name), now) for name in ("heartbeat", "status.json", "")
        )
        if silent_s > limit_s and not os.path.exists(folder.work):
            found.append((folder.path, _size(folder.path)))
    return found


def _dead_work(root: str, now: float) -> list[tuple[str, int]]:
    place = os.path.join(root, "work")
    alive = set(live_runs(root, now))
    return [
        (os.path.join(place, run_id), _size(os.path.join(place, run_id)))
        for run_id in sorted(_times(place))
        if RUN_ID.fullmatch(run_id) and run_id not in alive
    ]


def _large_cache(site: dict[str, Any], now: float, limit: float | None) -> list[tuple[str, int]]:
    """The build engine's cache where it is larger than allowed, and no run is under way that may read it.

    A cache that the site has put outside the root is the site's own.
    """
    path = os.path.join(site["root"], "cache", "apptainer")
    if limit is None or not os.path.isdir(path) or live_runs(site["root"], now):
        return []
    size = _size(path)
    return [(path, size)] if size > limit else []


def _empty_cache(root: str, path: str) -> None:
    """Rename it away first: a build that starts now begins a new one. What a kill leaves there is trash."""
    trash = os.path.join(root, "trash")
    os.makedirs(trash, mode=0o700, exist_ok=True)
    aside = os.path.join(trash, f"cache-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        os.rename(path, aside)
        if live_runs(root, storage_time(root)) and not os.path.exists(path):
            os.rename(aside, path)  # a build began meanwhile, and may have begun to read it
            return
    except FileNotFoundError:
        return  # another gc was faster
    remove_tree(aside)


def _size(path: str) -> int:
    """Bytes of a file, or of all files below a folder; a second name of a registered image counts for nothing."""
    found = [path]
    for folder, _, names in walk_tree(path):
        found += [os.path.join(folder, name) for name in names]
    total = 0
    for name in found:
        try:
            info = os.lstat(name)
        except OSError:
            continue
        total += info.st_size if stat.S_ISREG(info.st_mode) and info.st_nlink == 1 else 0
    return total
