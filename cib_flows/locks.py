"""Building exactly what an earlier image holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cib_flows.catalogue import Catalogue
from cib_flows.errors import SpecError, UsageError
from cib_flows.spec import ContainerSpec

__all__ = ["locked_spec"]

MAX_TAG_CHARS = 64
SUFFIX = "-locked"


def locked_spec(catalogue: Catalogue, source: str) -> ContainerSpec:
    """The spec of a build that installs what a lock lists.

    ``source`` is a container (name, name:tag, id), or a file with what ``containers lock`` printed, which
    is sent to the catalogue's endpoint. The tag is the lock's with ``-locked`` behind it, so that no name
    moves back to an older image.

    Raises ``NotFoundError`` for an unknown container, ``UsageError`` for a file that is no lock.
    """
    # no container's name has a slash, and one that ends in .json is hardly meant
    if Path(source).is_file() or "/" in source or source.endswith(".json"):
        lock = _read_lock(Path(source))
        reference = catalogue.keep_lock(lock)
    else:
        lock = catalogue.lock(source)["lock"]
        reference = str(catalogue.show(source)["container_id"])
    spec = lock.get("spec")
    if not isinstance(spec, Mapping):
        raise UsageError(f"{source} is no lock: it holds no spec.")
    tag = str(spec.get("tag") or "latest").removesuffix(SUFFIX)[: MAX_TAG_CHARS - len(SUFFIX)]
    try:
        return ContainerSpec.from_dict({**spec, "tag": tag + SUFFIX, "locked": reference})
    except SpecError as refused:
        raise UsageError(
            f"The spec in the lock is not one that this version takes: {refused.message}"
        ) from None


def _read_lock(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise UsageError(f"The lock {path} cannot be read: {problem.strerror}.") from None
    except ValueError as problem:
        raise UsageError(f"The lock {path} is not JSON: {problem}.") from None
    if isinstance(found, dict) and isinstance(found.get("lock"), dict) and "lock_sha256" in found:
        found = found["lock"]
    if not isinstance(found, dict) or "lock_version" not in found:
        raise UsageError(
            f"{path} is no lock.", hint="Take the file that 'cib-flows containers lock' prints."
        )
    return found
