"""The lock of a registered container, or a lock from elsewhere that the endpoint shall build from."""

from __future__ import annotations

from typing import Any

from ._shared.catalogue import require_text
from ._shared.lock import MAX_LOCK_BYTES
from ._shared.lock_files import find_lock, keep_lock
from ._shared.results import StepFailed, run_step
from ._shared.site import load_site


def container_lock(
    reference: str | None = None, lock: dict[str, Any] | None = None
) -> dict[str, Any]:
    """With a ``reference`` (``name:tag``, a container id or its beginning, or a lock's sha256): ``lock``, the
    whole document, and ``lock_sha256``. With a ``lock``: keeps it, and returns the ``lock_sha256`` that a
    spec's ``locked`` names it by.

    No flow calls this: a lock may be some megabytes long.
    """
    return run_step(
        "container_lock", lambda: _container_lock(reference, lock), MAX_LOCK_BYTES + 64 * 1024
    )


def _container_lock(reference: str | None, lock: dict[str, Any] | None) -> dict[str, Any]:
    site = load_site()
    if lock is not None:
        return {"lock_sha256": keep_lock(site["root"], lock)}
    if reference is None:
        raise StepFailed("lock_not_found", "Name a container, or send a lock.")
    require_text("reference", reference)
    sha256, found = find_lock([site["root"], *site["shared_roots"]], reference)
    return {"lock_sha256": sha256, "lock": found}
