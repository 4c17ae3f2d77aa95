"""Whether the worker in an image and an endpoint would talk: what their versions must have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .run_versions import WORKER_PACKAGES


def worker_in(record: Mapping[str, Any]) -> dict[str, str]:
    """The versions of the Globus Compute worker in an image: what its record says it was built with, otherwise what
    was found when it was proved. Empty where nothing is known, or there is none.
    """
    worker = record.get("worker")
    if not isinstance(worker, Mapping) or not worker.get("parsl"):
        verification = record.get("verification")
        worker = verification.get("packages") if isinstance(verification, Mapping) else None
    if not isinstance(worker, Mapping):
        return {}
    return {name: str(worker[name]) for name in WORKER_PACKAGES if worker.get(name)}


def differing_version(
    record: Mapping[str, Any], there: Mapping[str, str]
) -> tuple[str, str, str] | None:
    """``(package, version in the image, version there)`` of the first in which an image's worker and an endpoint that
    runs ``there`` differ so that they would not talk; None where nothing is known against it.
    """
    worker = worker_in(record)
    # workers of another parsl register and are then never heard; of another endpoint release, they are refused flags
    for name in reversed(WORKER_PACKAGES):
        here, runs = worker.get(name, ""), str(there.get(name) or "")
        if here and runs and _series(name, here) != _series(name, runs):
            return name, here, runs
    return None


def _series(name: str, version: str) -> str:
    """The part of a version that must agree: all of parsl's, the endpoint's major and minor number."""
    return version if name == "parsl" else ".".join(version.split(".")[:2])
