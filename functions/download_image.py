"""Fetches an image from an https address, ready to be registered; goes on where an earlier call broke off."""

from __future__ import annotations

import os
from typing import Any

from ._shared.downloads import Download
from ._shared.grammars import SHA256
from ._shared.network import check_host, open_url
from ._shared.results import StepFailed, run_step
from ._shared.site import load_site


def download_image(url: str, sha256: str) -> dict[str, Any]:
    """Fetch ``url`` into the endpoint's ``incoming`` folder.

    ``sha256`` is what the image must have. Only public hosts, and those in the site's ``payload_hosts``, are
    asked. Returns ``path``, which ``register_image`` takes and moves into the catalogue, ``sha256``, ``bytes`` and
    ``resumed_at``, the bytes that were there whenever it went on.
    """
    return run_step("download_image", lambda: _download(url, sha256))


def _download(url: str, sha256: str) -> dict[str, Any]:
    site = load_site()
    if not SHA256.fullmatch(str(sha256)):
        raise StepFailed(
            "illegal_name",
            "'sha256' must be 64 hexadecimal digits.",
            "'sha256sum FILE' prints it where the image is.",
        )
    check_host(str(url), site, "payload_refused", "The image")
    incoming = os.path.join(site["root"], "incoming")
    fetched = Download(incoming, sha256, "The image", site["payload_limit_bytes"])
    path = fetched.fetch(
        lambda headers: open_url(url, site, "payload_refused", "The image", headers), url
    )
    return {
        "path": path,
        "sha256": sha256,
        "bytes": os.path.getsize(path),
        "resumed_at": fetched.resumed_at[:20],
    }
