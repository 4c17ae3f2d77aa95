"""Catalogues as tests fill them, without any run."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from cib_flows.functions._shared.catalogue import Catalogue, container_id_of
from cib_flows.functions._shared.catalogue_index import image_key
from cib_flows.functions._shared.holds import storage_time
from cib_flows.functions.list_containers import list_containers

DAY_S = 86400.0


def sha256_of(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def publish(root: Path, content: str, name: str = "demo", **fields: Any) -> dict[str, Any]:
    """Register an image of this content, as the last step of a run does."""
    catalogue = Catalogue(str(root))
    sif = root / f"new-{os.getpid()}-{sha256_of(content)[:8]}"
    sif.write_text(content)
    sha256 = sha256_of(content)
    record = {
        "container_id": container_id_of(sha256),
        "name": name,
        "path": catalogue.image_path(name, sha256),
        "sha256": sha256,
        "bytes": len(content),
        "created_at": "2026-01-01T00:00:00+00:00",
        "build_digest": sha256_of("build of " + content),
        "base": {"image": "python:3.11-slim"},
        "spec": {"pip": ["NumPy>=2"], "apt": ["git"]},
        "verification": {"packages": {"numpy": "2.1.0", "six": "1"}, "imports": []},
        "worker": {},
        **fields,
    }
    catalogue.publish(str(sif), record)
    catalogue.point(record["build_digest"], record)
    return record


def published(root: Path, content: str, *tags: str, **fields: Any) -> dict[str, Any]:
    record = publish(root, content, **fields)
    for tag in tags:
        Catalogue(str(root)).tag(record["name"], tag, record, "now")
    return record


def grow_old(root: Path, record: dict[str, Any], age_s: float = 400 * DAY_S) -> None:
    """As if nobody had needed the image for so long."""
    catalogue = Catalogue(str(root))
    then = storage_time(str(root)) - age_s
    path = catalogue.record_path(record["name"], record["sha256"])
    os.utime(path, (then, then))
    use = Path(catalogue.uses, image_key(record["name"], record["sha256"]))
    if use.exists():
        os.utime(use, (then, then))


def key_of(record: dict[str, Any]) -> str:
    return image_key(record["name"], record["sha256"])


def ok(result: dict[str, Any]) -> dict[str, Any]:
    assert result["ok"] is True, result
    return result


def refused(result: dict[str, Any]) -> str:
    assert result["ok"] is False
    return str(result["error"]["code"])


def names_listed(**filters: Any) -> list[str]:
    return [row["name"] for row in ok(list_containers(**filters))["containers"]]
