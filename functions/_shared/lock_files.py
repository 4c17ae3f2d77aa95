"""Where locks lie: beside an image's record, or, when one was sent from elsewhere, below ``<root>/locks``."""

from __future__ import annotations

import json
import os
from typing import Any

from .catalogue import Catalogue
from .files import read_json, sha256_file, sha256_text, write_text
from .grammars import SHA256
from .lock import check_lock, lent_lock, lock_differences, make_lock
from .results import StepFailed, shorten
from .run_folder import RunFolder

ASKED_LOCK = "locked.json"  # in a run's folder: the lock that it is to build from
MADE_LOCK = "lock.json"  # and that of the image it built


def lock_path(catalogue: Catalogue, name: str, sha256: str) -> str:
    return os.path.join(catalogue.images, name, f"{sha256}.lock.json")


def lock_text(lock: dict[str, Any]) -> str:
    return json.dumps(lock, indent=1, sort_keys=True, ensure_ascii=True) + "\n"


def write_made_lock(
    folder: RunFolder,
    plan: dict[str, Any],
    spec: dict[str, Any],
    verification: dict[str, Any],
    inventory: dict[str, Any],
) -> str:
    """Write the lock of the image that was just proved, and return its sha256.

    Raises :class:`StepFailed` ``lock_mismatch`` where the run was to build from a lock and did not.
    """
    lock = make_lock(plan, spec, verification, inventory)
    if folder.has(ASKED_LOCK):
        told = lock_differences(folder.read(ASKED_LOCK), lock)
        if told:
            raise StepFailed(
                "lock_mismatch",
                f"The image is not what the lock lists: {len(told)} differ, first {told[0]}.",
                "A version may be gone from its archive; use a mirror that keeps old ones, or build without the "
                "lock.",
                log_tail="\n".join(told[:50]),
            )
    text = lock_text(lock)
    write_text(os.path.join(folder.path, MADE_LOCK), text)
    return sha256_text(text)


def publish_lock(
    catalogue: Catalogue, folder: RunFolder, name: str, sif_sha256: str, lock_sha256: str
) -> dict[str, str]:
    """Put the run's lock beside the image's record; returns ``path`` and ``sha256``."""
    source = os.path.join(folder.path, MADE_LOCK)
    if sha256_file(source) != lock_sha256:
        raise StepFailed("image_changed", "The lock is no longer the one that was made.")
    path = lock_path(catalogue, name, sif_sha256)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    if not os.path.exists(path):
        with open(source, encoding="utf-8") as stream:
            write_text(path, stream.read(), 0o444)
    # an image that was there already has the lock of the run that made it
    return {"path": path, "sha256": sha256_file(path)}


def keep_lock(root: str, lock: Any) -> str:
    """Keep a lock that was sent from elsewhere; returns its sha256, by which a spec names it."""
    text = lock_text(check_lock(lock))
    sha256 = sha256_text(text)
    path = os.path.join(root, "locks", f"{sha256}.json")
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    try:
        os.utime(path)  # sent again: it is as young as the run that will ask for it
    except FileNotFoundError:
        write_text(path, text, 0o444)
    return sha256


def find_lock(roots: list[str], reference: str) -> tuple[str, dict[str, Any]]:
    """``(sha256, lock)`` by its sha256, or of a container by what ``Catalogue.find`` understands.

    Raises :class:`StepFailed` ``lock_not_found``, ``lock_invalid`` or ``container_not_found``.
    """
    if SHA256.fullmatch(reference):
        for root in roots:
            path = os.path.join(root, "locks", f"{reference}.json")
            if os.path.exists(path):
                return _read_lock(path, reference)
        raise StepFailed(
            "lock_not_found",
            f"The endpoint has no lock {reference[:16]}…",
            "Send it with 'cib-flows build --locked FILE'.",
        )
    missing: StepFailed | None = None
    for root in roots:
        catalogue = Catalogue(root)
        try:
            record = catalogue.find(reference)
        except StepFailed as failure:
            missing = missing or failure
            continue
        entry = record.get("lock")
        path = lock_path(catalogue, str(record["name"]), str(record["sha256"]))
        if not isinstance(entry, dict) or not os.path.exists(path):
            raise StepFailed(
                "lock_not_found",
                f"The container {shorten(reference, 80)} has no lock; it was not built here, or by an older version.",
                "Build it again; every build leaves a lock.",
            )
        return _read_lock(path, str(entry.get("sha256")))
    assert missing is not None
    raise missing


def _read_lock(path: str, sha256: str) -> tuple[str, dict[str, Any]]:
    if sha256_file(path) != sha256:
        raise StepFailed("lock_invalid", f"The lock {path} is not what it was when it was written.")
    return sha256, check_lock(read_json(path))


def take_lock(roots: list[str], folder: RunFolder, spec: dict[str, Any]) -> dict[str, Any] | None:
    """The lock that a spec asks to be built from, kept in the run's folder for the steps that follow."""
    if not spec.get("locked"):
        return None
    _, lock = find_lock(roots, spec["locked"])
    folder.write(ASKED_LOCK, lock)
    return lock


def lend_lock(folder: RunFolder, exchange: str) -> None:
    """Write what a locked build installs into the folder that is bound to ``/mnt``."""
    if not folder.has(ASKED_LOCK):
        return
    os.mkdir(os.path.join(exchange, "locked"))
    for name, text in lent_lock(folder.read(ASKED_LOCK)).items():
        write_text(os.path.join(exchange, "locked", name), text)
