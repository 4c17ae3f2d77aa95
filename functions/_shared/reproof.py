"""Proving an image that no run has just built: a registered one again, or one that came from elsewhere."""

from __future__ import annotations

import json
import os
import uuid
from typing import Any

from .files import remove_tree, sha256_file
from .proof import ImageUnderTest, prove
from .results import StepFailed, shorten
from .run_folder import RunFolder
from .run_versions import WORKER_PACKAGES, find_apptainer
from .spec_check import check_spec
from .spec_words import SpecRefused
from .working import working

# Runs in the image. What is not installed is left out.
WORKER_SOURCE = """
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def spec_of(given: Any, name: str) -> dict[str, Any]:
    """The spec that a record holds, with the fields that this version knows; the least one where there is
    none that it understands.
    """
    try:
        return check_spec(given)
    except SpecRefused:
        plain = {"name": name, "base": {"image": "debian:12"}, "worker": "none"}
        return check_spec(plain)


def prove_file(
    site: dict[str, Any],
    path: str,
    sha256: str,
    spec: dict[str, Any],
    worker: dict[str, str],
    step: str,
) -> dict[str, Any]:
    """The verification of the image in ``path``, made in a run folder of its own that is removed again. Where no
    ``worker`` is known, its ``worker`` says which one the image's Python has, if any.

    Raises :class:`StepFailed` like ``verify_image``; ``image_changed`` when the file is not ``sha256``.
    """
    engine = find_apptainer()
    if not engine:
        raise StepFailed(
            "apptainer_missing",
            "Neither apptainer nor singularity is installed where images are verified.",
        )
    folder = RunFolder(site["root"], str(uuid.uuid4()))
    folder.create()
    try:
        with working(folder, site, step, 50):
            if sha256_file(path) != sha256:
                raise StepFailed(
                    "image_changed",
                    f"The image {os.path.basename(path)} is damaged: its sha256 is no longer {sha256[:12]}...",
                    "Remove the container with force and build it again.",
                )
            image = ImageUnderTest(engine, path, site, folder)
            verification = prove(image, sha256, spec, worker)
            if not worker:
                verification["worker"] = _worker_within(image)
            return verification
    finally:
        folder.clean_work(site)
        remove_tree(folder.path)


def _worker_within(image: ImageUnderTest) -> dict[str, str]:
    """The versions of a Globus Compute worker in an image of which nothing is told; empty without one, and where the
    image has no Python that says so.
    """
    status, output, _ = image.run("python3", "-c", WORKER_SOURCE, *WORKER_PACKAGES)
    try:
        found = json.loads(output) if status == 0 else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(found.get(name) for name in WORKER_PACKAGES):
        return {}
    return {name: shorten(str(found[name]), 80) for name in WORKER_PACKAGES}
