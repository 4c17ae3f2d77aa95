"""Pulls an image that was pushed to a registry, ready to be registered; goes on where an earlier call broke off."""

from __future__ import annotations

import os
from typing import Any

from ._shared.artifacts import artifact_reference, find_image_layer
from ._shared.downloads import Download
from ._shared.grammars import SHA256
from ._shared.results import StepFailed, run_step
from ._shared.site import load_site


def pull_image(reference: str, sha256: str | None = None) -> dict[str, Any]:
    """Pull ``reference``, such as ``oras://ghcr.io/lab/name:tag``, into the endpoint's ``incoming`` folder.

    ``sha256`` is what the image must have. Returns ``path``, which ``register_image`` takes and moves into
    the catalogue, ``sha256``, ``bytes`` and ``resumed_at``, the bytes that were there whenever it went on.
    """
    return run_step("pull_image", lambda: _pull(reference, sha256))


def _pull(reference: str, expected: str | None) -> dict[str, Any]:
    site = load_site()
    if expected is not None and not SHA256.fullmatch(expected):
        raise StepFailed("illegal_name", "'sha256' must be 64 hexadecimal digits.")
    host, name = artifact_reference(reference, site)
    sha256, opener = find_image_layer(host, name, site)
    if expected and sha256 != expected:
        raise StepFailed(
            "image_changed",
            f"The image at {name} has the sha256 {sha256}, and {expected} is expected.",
            "Its tag may have been moved; ask whoever pushed it.",
        )
    incoming = os.path.join(site["root"], "incoming")
    fetched = Download(incoming, sha256, "The image", site["payload_limit_bytes"])
    path = fetched.fetch(opener, name)
    return {
        "path": path,
        "sha256": sha256,
        "bytes": os.path.getsize(path),
        "reference": name,
        "resumed_at": fetched.resumed_at[:20],
    }
