"""The record of a container that was made elsewhere."""

from __future__ import annotations

import getpass
import os
import platform
from typing import Any

from .catalogue import container_id_of, utc_now

ADOPTED_RECORD_VERSION = 1
# What a record that came along may say; the rest is found out where it is registered.
ADOPTED_FIELDS = (
    "spec",
    "spec_digest",
    "recipe",
    "recipe_sha256",
    "base",
    "payload",
    "worker",
    "engine",
    "machine",
    "build_s",
)


def first_made(record: dict[str, Any]) -> str | None:
    """When a container was registered for the first time, wherever that was; None where nothing says so."""
    origin = record.get("origin")
    made = origin.get("created_at") if isinstance(origin, dict) else None
    return str(made or record.get("created_at") or "") or None


def adopted_record(
    theirs: dict[str, Any],
    *,
    image: str,
    path: str,
    name: str,
    tag: str,
    sha256: str,
    verification: dict[str, Any],
    signature: dict[str, str] | None,
    origin: dict[str, Any],
    endpoint_id: str,
    run_endpoint: str | None,
) -> dict[str, Any]:
    """A record for the image in the file ``image``, which is about to be published as ``path``.

    ``theirs`` is the record that came along. It does not answer builds here: a build digest is believed of
    this site's own builds only.
    """
    return {
        **{key: theirs[key] for key in ADOPTED_FIELDS if key in theirs},
        "record_version": ADOPTED_RECORD_VERSION,
        "container_id": container_id_of(sha256),
        "name": name,
        "first_tag": tag,
        "path": path,
        "sha256": sha256,
        "bytes": os.path.getsize(image),
        "created_at": utc_now().isoformat(timespec="seconds"),
        "verification": verification,
        "squashfs_sha256": verification.get("squashfs_sha256"),
        "signature": signature,
        "origin": {
            **origin,
            "container_id": theirs.get("container_id"),
            "endpoint_id": theirs.get("endpoint_id"),
            "created_at": first_made(theirs),
        },
        "endpoint_id": endpoint_id,
        "account": getpass.getuser(),
        "host": platform.node(),
        "executor": {
            "endpoint_id": run_endpoint or endpoint_id,
            "user_endpoint_config": {"container_uri": path},
        },
    }
