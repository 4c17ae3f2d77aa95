"""Pushes a registered image to a registry, as an ORAS artifact."""

from __future__ import annotations

import os
from typing import Any

from ._shared.artifacts import artifact_reference, run_transport
from ._shared.catalogue import Catalogue
from ._shared.files import sha256_file
from ._shared.holds import leased
from ._shared.results import StepFailed, run_step
from ._shared.site import load_site


def push_image(container: str, reference: str) -> dict[str, Any]:
    """Push ``container`` to ``reference``, such as ``oras://ghcr.io/lab/name:tag``; a tag that is there moves.

    The login is the endpoint's, and goes only to the hosts in the site's ``registry_login_hosts``. Returns
    ``reference``, ``sha256`` and ``bytes``; whoever pulls it compares the former.
    """
    return run_step("push_image", lambda: _push(container, reference))


def _push(container: str, reference: str) -> dict[str, Any]:
    site = load_site()
    host, name = artifact_reference(reference, site)
    catalogue = Catalogue(site["root"])
    record = catalogue.find(container)
    path = catalogue.image_path(record["name"], record["sha256"])
    with leased(catalogue, record["name"], record["sha256"], "push_image"):
        if sha256_file(path) != record["sha256"]:
            raise StepFailed(
                "image_changed",
                f"The image {os.path.basename(path)} is damaged; it is not pushed.",
                "Remove the container with force and build it again.",
            )
        run_transport("push", [path, name], host, site)
    catalogue.note("pushed", record, reference=name)
    return {
        "container_id": record["container_id"],
        "reference": name,
        "sha256": record["sha256"],
        "bytes": record["bytes"],
    }
