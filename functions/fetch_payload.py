"""Brings the payload into the run's work area, checks it, unpacks it safely and digests it."""

from __future__ import annotations

import hashlib
import os
import shutil
import urllib.error
from typing import Any

from ._shared.archives import unpack
from ._shared.catalogue import Catalogue
from ._shared.files import CHUNK_BYTES, remove_tree, sha256_file, sha256_text, tree_digest
from ._shared.git import checkout
from ._shared.identity import build_digest
from ._shared.network import open_url
from ._shared.results import StepFailed, run_step, shorten
from ._shared.run_folder import RunFolder
from ._shared.site import load_site
from ._shared.working import working


def fetch_payload(run_id: str, recipe_sha256: str) -> dict[str, Any]:
    """Second step of a run that has a payload.

    Returns ``payload_digest`` (of names and contents), ``payload_bytes``, ``payload_files``, the
    ``build_digest`` that follows from it, and ``cached`` with ``container_id`` when that image exists.
    """
    return run_step("fetch_payload", lambda: _fetch(run_id, recipe_sha256))


def _fetch(run_id: str, recipe_sha256: str) -> dict[str, Any]:
    site = load_site()
    folder = RunFolder(site["root"], run_id)
    folder.require()
    plan = folder.read("plan.json")
    if plan["recipe_sha256"] != recipe_sha256 or sha256_file(folder.recipe) != recipe_sha256:
        raise StepFailed(
            "recipe_changed", "The run's recipe is no longer the one that was rendered."
        )
    with working(folder, site, "fetch_payload", 3):
        return _fetch_into(folder, site, plan)


def _fetch_into(folder: RunFolder, site: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    payload = plan["payload"]
    remove_tree(folder.payload)
    os.makedirs(folder.payload, mode=0o700)
    if payload["kind"] == "https":
        _from_https(payload, site, folder)
    elif payload["kind"] == "git":
        checkout(payload["git"], payload["commit"], folder.payload, site)
    else:
        _from_staging(payload, site, folder)
    digest, size, files = tree_digest(folder.payload)
    plan["payload_digest"] = sha256_text(f"{digest} {payload['destination']}")
    plan["build_digest"] = build_digest(plan)
    plan["payload"] = {**payload, "digest": digest, "bytes": size, "files": files}
    folder.write("plan.json", plan)
    cached = None if plan["force"] else Catalogue(site["root"]).built(plan["build_digest"])
    return {
        "payload_digest": digest,
        "payload_bytes": size,
        "payload_files": files,
        "build_digest": plan["build_digest"],
        "cached": cached is not None,
        "container_id": cached["container_id"] if cached else None,
    }


def _from_https(payload: dict[str, Any], site: dict[str, Any], folder: RunFolder) -> None:
    """Download to a file beside the payload folder, then unpack it or move it in."""
    url = payload["url"]
    aside = os.path.join(folder.work, "download")
    digest = hashlib.sha256()
    limit = site["payload_limit_bytes"]
    try:
        answer = open_url(url, site, "payload_refused", "The payload")
    except urllib.error.HTTPError as error:
        raise StepFailed(
            "payload_not_found",
            f"The payload {shorten(url, 120)} cannot be fetched: the server answered {error.code}.",
            "Check 'payload.url'; it must be readable without a password.",
        ) from None
    received = 0
    expected = answer.headers.get("Content-Length")  # type: ignore[attr-defined]
    try:
        with answer, open(aside, "wb") as target:
            while chunk := answer.read(CHUNK_BYTES):
                received += len(chunk)
                if received > limit:
                    raise StepFailed(
                        "payload_refused",
                        f"The payload is larger than the site's limit of {limit} bytes.",
                    )
                digest.update(chunk)
                target.write(chunk)
                folder.raise_if_aborted()
    except OSError as error:
        raise StepFailed(
            "network", f"The payload {shorten(url, 120)} broke off after {received} bytes: {error}."
        ) from None
    if expected and expected.isdigit() and int(expected) != received:
        raise StepFailed(
            "network",
            f"The payload {shorten(url, 120)} broke off after {received} of {expected} bytes.",
            "Start the run again.",
        )
    _take_file(
        aside, os.path.basename(url.split("?")[0]), digest.hexdigest(), payload, site, folder
    )


def _from_staging(payload: dict[str, Any], site: dict[str, Any], folder: RunFolder) -> None:
    staged = payload["staging"]["path"]
    if not os.path.lexists(staged):
        raise StepFailed(
            "payload_not_visible",
            f"Transfer delivered the payload to {payload['staging']['collection_path']} on collection "
            f"{payload['staging']['collection_id']}, but the endpoint does not see it as {staged}.",
            "The endpoint's administrator must let 'staging' in the site profile name one folder twice.",
        )
    if os.path.islink(staged):
        raise StepFailed(
            "payload_refused", "The payload that Transfer delivered is a symbolic link."
        )
    if os.path.isdir(staged):
        _refuse_odd_files(staged, site["payload_limit_bytes"])
        if payload["sha256"]:
            digest, _, _ = tree_digest(staged)
            _check_sha256(digest, payload["sha256"])
        os.rmdir(folder.payload)
        shutil.copytree(staged, folder.payload, symlinks=True)
    else:
        aside = os.path.join(folder.work, "download")
        shutil.copyfile(staged, aside)
        name = os.path.basename(payload["source"]["path"].rstrip("/"))
        _take_file(aside, name, sha256_file(aside), payload, site, folder)
    remove_tree(os.path.dirname(staged))


def _take_file(
    path: str,
    name: str,
    digest: str,
    payload: dict[str, Any],
    site: dict[str, Any],
    folder: RunFolder,
) -> None:
    """Unpack an archive into the payload folder, or put any other file there under its name."""
    if payload["sha256"]:
        _check_sha256(digest, payload["sha256"])
    if unpack(path, folder.payload, site["payload_limit_bytes"]):
        os.unlink(path)
        return
    safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in name).strip(".") or "payload"
    os.rename(path, os.path.join(folder.payload, safe))


def _check_sha256(found: str, expected: str) -> None:
    if found != expected:
        raise StepFailed(
            "payload_checksum",
            f"The payload's sha256 is {found}, and the spec expects {expected}.",
            "The file changed or was damaged on the way; correct 'payload.sha256' if the new one is right.",
        )


def _refuse_odd_files(root: str, limit: int) -> None:
    """A staged folder may hold files, folders and links that stay inside it, up to the site's limit."""
    real = os.path.realpath(root)
    total = 0
    for folder, folders, names in os.walk(root):
        for name in [*folders, *names]:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                target = os.path.realpath(path)
                if target != real and not target.startswith(real + os.sep):
                    raise StepFailed(
                        "payload_refused",
                        f"The payload has a link that leaves it: {shorten(os.path.relpath(path, root), 120)}.",
                    )
            elif os.path.isfile(path):
                total += os.path.getsize(path)
            elif not os.path.isdir(path):
                raise StepFailed(
                    "payload_refused",
                    f"The payload has a device or pipe: {shorten(os.path.relpath(path, root), 120)}.",
                )
    if total > limit:
        raise StepFailed(
            "payload_refused", f"The payload is larger than the site's limit of {limit} bytes."
        )
