"""Proving an image that no run has just built: a registered one again, or one that came from elsewhere."""

from __future__ import annotations

import os
import uuid
from typing import Any

from .files import remove_tree, sha256_file
from .proof import ImageUnderTest, prove
from .results import StepFailed
from .run_folder import RunFolder
from .run_versions import find_apptainer
from .spec_check import check_spec
from .spec_words import SpecRefused
from .working import working


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
    """The verification of the image in ``path``, made in a run folder of its own that is removed again.

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
            return prove(ImageUnderTest(engine, path, site, folder), sha256, spec, worker)
    finally:
        folder.clean_work(site)
        remove_tree(folder.path)
