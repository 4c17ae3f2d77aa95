"""Proves a built image by running it; nothing is registered that was not proved."""

from __future__ import annotations

from typing import Any

from ._shared.files import sha256_file
from ._shared.lock_files import write_made_lock
from ._shared.node_check import prepare_node
from ._shared.payload_asks import with_asked
from ._shared.proof import ImageUnderTest, prove
from ._shared.results import StepFailed, run_step
from ._shared.run_folder import RunFolder
from ._shared.run_versions import find_apptainer
from ._shared.site import load_site
from ._shared.working import working


def verify_image(run_id: str, sif_sha256: str) -> dict[str, Any]:
    """Fourth step: arguments pass through, requested packages are there, fit together and import, the worker
    matches the endpoint, nothing of the host shows, everybody can read what is in the image, and what the spec's
    ``verify`` asks for holds. Also writes the image's lock.

    Returns ``verification_path``, ``verification_sha256``, ``python``, ``imports`` (how many),
    ``packages`` (the worker's own, with versions) and ``package_count``, and passes ``sif_sha256`` on.
    """
    return run_step("verify_image", lambda: _verify(run_id, sif_sha256))


def _verify(run_id: str, sif_sha256: str) -> dict[str, Any]:
    site = prepare_node(load_site(), least_s=20)
    folder = RunFolder(site["root"], run_id)
    folder.require()
    with working(folder, site, "verify_image", 90):
        return _verify_image(site, folder, sif_sha256)


def _verify_image(site: dict[str, Any], folder: RunFolder, sif_sha256: str) -> dict[str, Any]:
    plan, spec = folder.read("plan.json"), folder.read("spec.json")
    if sha256_file(folder.image) != sif_sha256:
        raise StepFailed("image_changed", "The image is no longer the one that was built.")
    engine = find_apptainer()
    if not engine:
        raise StepFailed(
            "apptainer_missing",
            "Neither apptainer nor singularity is installed where images are verified.",
        )
    image = ImageUnderTest(engine, folder.image, site, folder)
    verification = prove(image, sif_sha256, with_asked(spec, plan), plan["worker"])
    verification["lock_sha256"] = write_made_lock(folder, plan, spec, verification, image.inventory)
    path = folder.write("verification.json", verification)
    packages = verification["packages"]
    return {
        "verification_path": path,
        "verification_sha256": sha256_file(path),
        "sif_sha256": sif_sha256,
        "python": verification["python"],
        "imports": len(verification["imports"]),
        "packages": {n: v for n, v in packages.items() if n in plan["worker"]},
        "package_count": len(packages),
    }
