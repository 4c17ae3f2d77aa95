"""Proves a registered image once more: it has not changed, the site's policy allows it, and what it was
registered for still works."""

from __future__ import annotations

import os
from typing import Any

from ._shared.catalogue import Catalogue
from ._shared.files import write_json
from ._shared.holds import leased
from ._shared.node_check import prepare_node
from ._shared.reproof import prove_file, spec_of
from ._shared.results import StepFailed, run_step
from ._shared.site import load_site
from ._shared.trust import check_trust

LEAST_S = 20  # what a verification needs of a batch job


def verify_container(reference: str, only_trust: bool = False) -> dict[str, Any]:
    """Compare image, record and documents with what was registered, check signatures and the site's policy
    (``trust`` says what was found), and run the checks of its spec again, as ``verify_image`` does; with
    ``only_trust`` nothing is run.

    The record stays as it is; the new verification is the file ``verification_path``, one for each image.
    Fails like ``verify_image``, with ``image_changed`` for an image that is not what it was, and with
    ``not_trusted`` for one that the site's policy does not allow.
    """
    return run_step("verify_container", lambda: _verify_again(reference, only_trust))


def _verify_again(reference: str, only_trust: bool) -> dict[str, Any]:
    site = load_site() if only_trust else prepare_node(load_site(), least_s=LEAST_S)
    catalogue = Catalogue(site["root"])
    record = catalogue.find(reference)
    about = {key: record[key] for key in ("container_id", "name", "sha256")}
    try:
        # the proof hashes the image itself
        trust = check_trust(site, catalogue, record, hash_image=only_trust)
    except StepFailed as failure:
        catalogue.note("verified", record, ok=False, code=failure.code)
        raise
    if only_trust:
        return {**about, "trust": trust}
    return {**about, "trust": trust, **_proved_again(site, catalogue, record)}


def _proved_again(
    site: dict[str, Any], catalogue: Catalogue, record: dict[str, Any]
) -> dict[str, Any]:
    name, sha256 = str(record["name"]), str(record["sha256"])
    worker = record.get("worker") or {}
    try:
        with leased(catalogue, name, sha256, "verify_container"):
            verification = prove_file(
                site,
                catalogue.image_path(name, sha256),
                sha256,
                spec_of(record.get("spec"), name),
                worker,
                "verify_container",
            )
    except StepFailed as failure:
        catalogue.note("verified", record, ok=False, code=failure.code)
        raise
    path = os.path.join(site["root"], "verifications", f"{sha256}.json")
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    write_json(path, verification)
    catalogue.note("verified", record, ok=True)
    packages = verification["packages"]
    return {
        "verification_path": path,
        "python": verification["python"],
        "imports": len(verification["imports"]),
        "packages": {n: v for n, v in packages.items() if n in worker},
        "package_count": len(packages),
    }
