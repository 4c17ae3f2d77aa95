"""What runs this function: the versions that an image must hold to work with this endpoint."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess

from .recipe import ENDPOINT_PACKAGE
from .results import StepFailed

WORKER_PACKAGES = (ENDPOINT_PACKAGE, "parsl")


def own_versions() -> dict[str, str]:
    """The worker's packages in the Python that runs this, which is the endpoint's; what is not there is left out."""
    found = {}
    for name in WORKER_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def worker_versions(worker: str) -> dict[str, str]:
    """The exact pins for an image's worker; empty for ``none``.

    ``worker`` is the spec's field. A version there replaces the endpoint package's, never parsl's: workers
    and the endpoint's interchange must run the same parsl.
    """
    if worker == "none":
        return {}
    versions = own_versions()
    for name in WORKER_PACKAGES:
        if name not in versions:
            raise StepFailed(
                "internal",
                f"The build endpoint cannot tell its own version of {name}, which the image must match.",
                "Set 'worker' to 'none' for a plain image, or report this to the endpoint's administrator.",
            )
    if worker != "endpoint":
        versions[ENDPOINT_PACKAGE] = worker
    return versions


def find_apptainer() -> str | None:
    """The container engine on PATH, Apptainer before SingularityCE; None when there is neither."""
    return shutil.which("apptainer") or shutil.which("singularity")


def engine_version() -> str:
    """What ``apptainer --version`` says, or ``unknown`` where it is not installed on this node."""
    engine = find_apptainer()
    if not engine:
        return "unknown"
    try:
        said = subprocess.run(
            [engine, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return said if re.fullmatch(r"[A-Za-z0-9 ._+~-]{1,80}", said) else "unknown"


def machine() -> str:
    """The architecture that images built here are for, as ``uname -m`` says it."""
    return os.environ.get("APPTAINER_BUILD_ARCH") or platform.machine()
