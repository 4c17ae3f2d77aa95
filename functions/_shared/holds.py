"""What holds an image: a tag, a pin, a lease while it is used, a run under way that builds on it."""

from __future__ import annotations

import errno
import os
import platform
import secrets
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from .catalogue import Catalogue, container_of_image, utc_now
from .catalogue_index import image_key, read_object
from .files import write_json
from .results import StepFailed
from .run_folder import RUN_ID, RunFolder
from .working import DEAD_AFTER_S, FORGOTTEN_AFTER_S

LEASE_BEAT_S = 60.0
FORGOTTEN_LEASE_S = 24 * 3600.0
# No place for a lease is no reason not to run an image.
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


@contextmanager
def leased(catalogue: Catalogue, name: str, sha256: str, why: str) -> Iterator[None]:
    """Keep an image from being removed while the block uses it.

    The lease is a file that is written anew every minute; one that has not been for a quarter of an hour, by
    the file system's own clock, counts for nothing. Raises :class:`StepFailed` ``container_not_found``.
    """
    folder = os.path.join(catalogue.root, "leases", image_key(name, sha256))
    os.makedirs(folder, mode=0o755, exist_ok=True)
    path = os.path.join(folder, f"{secrets.token_hex(6)}.json")
    lease = {"why": why, "host": platform.node(), "since": utc_now().isoformat(timespec="seconds")}
    write_json(path, lease)
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(LEASE_BEAT_S):
            try:
                write_json(path, lease)
            except OSError:
                pass  # a full disk must not end what the image is used for

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        if not catalogue.is_whole(name, sha256):
            raise StepFailed(
                "container_not_found", f"The image {sha256[:12]} of {name} was removed just now."
            )
        yield
    finally:
        stop.set()
        thread.join()
        if os.path.exists(path):
            os.unlink(path)
        catalogue.touch(name, sha256)


@contextmanager
def leased_where_registered(site: dict[str, Any], image: str, why: str) -> Iterator[None]:
    """Lease the image in the file ``image`` where it lies in a catalogue of the site; another file is nobody's.

    Where no lease can be written it is used without: what is removed lies in the trash for a day before it is
    deleted.
    """
    with ExitStack() as stack:
        for root in (site["root"], *site["shared_roots"]):
            catalogue = Catalogue(root)
            found = container_of_image(catalogue, image)
            if found and catalogue.is_whole(*found):
                try:
                    stack.enter_context(leased(catalogue, *found, why))
                except OSError as error:
                    if error.errno not in UNWRITABLE:
                        raise
                break
        yield


def pin(catalogue: Catalogue, name: str, sha256: str, why: str) -> None:
    """Keep an image until it is unpinned, whatever its tags and age."""
    os.makedirs(catalogue.pins, mode=0o755, exist_ok=True)
    at = utc_now().isoformat(timespec="seconds")
    path = os.path.join(catalogue.pins, f"{image_key(name, sha256)}.json")
    write_json(path, {"why": why, "at": at})


def unpin(catalogue: Catalogue, name: str, sha256: str) -> bool:
    """Whether there was a pin to take away."""
    try:
        os.unlink(os.path.join(catalogue.pins, f"{image_key(name, sha256)}.json"))
    except FileNotFoundError:
        return False
    return True


def holds(catalogue: Catalogue, now: float) -> dict[str, list[tuple[str, str]]]:
    """Image key -> what holds that image: ``(kind, name)``, where the kind is tag, pin, lease or run.

    ``now`` is the file system's time (:func:`storage_time`).
    """
    found: dict[str, list[tuple[str, str]]] = {}
    for name, tags in catalogue.index.tags().items():
        for tag, key in tags.items():
            found.setdefault(key, []).append(("tag", f"{name}:{tag}"))
    for entry in _names(catalogue.pins):
        if entry.endswith(".json") and not entry.startswith("."):
            found.setdefault(entry[:-5], []).append(("pin", ""))
    leases = os.path.join(catalogue.root, "leases")
    for key in _names(leases):
        folder = os.path.join(leases, key)
        for entry in _names(folder):
            if age_s(os.path.join(folder, entry), now) < DEAD_AFTER_S:
                lease = read_object(os.path.join(folder, entry)) or {}
                found.setdefault(key, []).append(("lease", str(lease.get("why", ""))))
    for run_id in live_runs(catalogue.root, now):
        for key in _needed_by(catalogue, run_id):
            found.setdefault(key, []).append(("run", run_id))
    return found


def sweep_leases(catalogue: Catalogue, now: float) -> None:
    """Remove leases that nobody has renewed for a day: those of jobs that were killed."""
    leases = os.path.join(catalogue.root, "leases")
    for key in _names(leases):
        for entry in _names(os.path.join(leases, key)):
            path = os.path.join(leases, key, entry)
            # an infinite age is that of a lease that has just ended
            if FORGOTTEN_LEASE_S < age_s(path, now) < float("inf"):
                try:
                    os.unlink(path)
                except OSError:
                    pass  # another gc was faster


def live_runs(root: str, now: float) -> list[str]:
    """Runs with a work area whose steps have shown themselves lately, or that wait for their next step."""
    found = []
    for run_id in _names(os.path.join(root, "work")):
        if not RUN_ID.fullmatch(run_id):
            continue
        folder = RunFolder(root, run_id)
        status = read_object(folder.status) or {}
        silent_s = age_s(os.path.join(folder.path, "heartbeat"), now)
        limit_s = DEAD_AFTER_S if status.get("state") == "running" else FORGOTTEN_AFTER_S
        if silent_s < limit_s or (silent_s == float("inf") and age_s(folder.work, now) < limit_s):
            found.append(run_id)
    return found


def _needed_by(catalogue: Catalogue, run_id: str) -> list[str]:
    """Keys of the images that a run builds upon or has found as the answer to its spec."""
    plan = read_object(os.path.join(RunFolder(catalogue.root, run_id).path, "plan.json")) or {}
    base = plan.get("base")
    path = str(base.get("resolved", "")) if isinstance(base, dict) else ""
    needed = []
    if path.startswith(catalogue.images + os.sep):
        name, sha256 = os.path.split(path[len(catalogue.images) + 1 :])
        needed.append(image_key(name, sha256.removesuffix(".sif")))
    built = catalogue.built(str(plan["build_digest"])) if plan.get("build_digest") else None
    if built:
        needed.append(image_key(str(built["name"]), str(built["sha256"])))
    return needed


def storage_time(root: str) -> float:
    """The time by the clock of the storage itself: ages are differences of its files' times, so that no
    host's clock matters.
    """
    probe = os.path.join(root, f".now.{secrets.token_hex(6)}")
    handle = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        return os.fstat(handle).st_mtime
    finally:
        os.close(handle)
        os.unlink(probe)


def age_s(path: str, now: float) -> float:
    """Seconds since a file last changed; infinite when there is none."""
    try:
        return now - os.stat(path).st_mtime
    except OSError:
        return float("inf")


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
