"""Brings the payload into the run's work area, checks it, unpacks it safely and digests it."""

from __future__ import annotations

import os
import urllib.error
from typing import IO, Any

from ._shared.archives import refuse_odd_files, unpack
from ._shared.catalogue import Catalogue
from ._shared.downloads import PASSING_STATUSES, Arrival
from ._shared.files import remove_tree, sha256_file, sha256_text, tree_digest
from ._shared.git import checkout
from ._shared.identity import build_digest
from ._shared.network import check_host, open_url
from ._shared.payload_asks import payload_asks
from ._shared.results import StepFailed, run_step, shorten
from ._shared.run_folder import RunFolder
from ._shared.site import load_site
from ._shared.spec_words import without_secrets
from ._shared.staged import take_file, take_folder
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
    plan = folder.plan_of(recipe_sha256)
    with working(folder, site, "fetch_payload", 3):
        return _fetch_into(folder, site, plan)


def _fetch_into(folder: RunFolder, site: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    payload = plan["payload"]
    remove_tree(folder.payload)
    os.makedirs(folder.payload, mode=0o700)
    if payload["kind"] == "https":
        _from_https(payload, site, folder)
    elif payload["kind"] == "git":
        checkout(payload["git"], payload["commit"], folder.payload, site, folder.is_aborted)
    else:
        _from_staging(payload, site, folder)
    # whatever way it came: now nobody else can change it any more
    refuse_odd_files(folder.payload, site["payload_limit_bytes"])
    digest, size, files = tree_digest(folder.payload)
    plan["payload_digest"] = sha256_text(f"{digest} {payload['destination']}")
    if payload.get("base"):
        plan["base"]["digest"] = _take_base(payload["base"], folder)
    if folder.read("spec.json")["payload"].get("install"):
        plan["asked"] = payload_asks(folder.payload)
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
    # a name that does not exist is not asked for again and again
    check_host(url, site, "payload_refused", "The payload")
    aside = os.path.join(folder.work, "download")
    remove_tree(aside)
    arrival = Arrival(
        aside, "The payload", site["payload_limit_bytes"], on_data=folder.raise_if_aborted
    )
    handle = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        shown = without_secrets(url)
        digest = arrival.receive(
            handle, lambda headers: _open(url, headers, site), shown, payload["sha256"]
        )
    finally:
        os.close(handle)
    remove_tree(arrival.said)
    _take_file(aside, os.path.basename(url.split("?")[0]), digest, payload, site, folder)


def _open(url: str, headers: dict[str, str], site: dict[str, Any]) -> IO[bytes]:
    try:
        return open_url(url, site, "payload_refused", "The payload", headers)
    except urllib.error.HTTPError as error:
        if headers or error.code in PASSING_STATUSES:
            raise  # a download that is under way knows what to do
        error.close()
        raise StepFailed(
            "payload_not_found",
            f"The payload {shorten(without_secrets(url), 120)} cannot be fetched: the server answered {error.code}.",
            "Check 'payload.url'; it must be readable without a password.",
        ) from None


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
        refuse_odd_files(staged, site["payload_limit_bytes"])
        take_folder(staged, folder.payload, site["payload_limit_bytes"])
        if payload["sha256"]:
            digest, _, _ = tree_digest(folder.payload)
            _check_sha256(digest, payload["sha256"])
    else:
        if not os.path.isfile(staged) or os.path.getsize(staged) > site["payload_limit_bytes"]:
            raise StepFailed(
                "payload_refused",
                "The payload is not a plain file, or larger than the site's limit of "
                f"{site['payload_limit_bytes']} bytes.",
            )
        aside = os.path.join(folder.work, "download")
        remove_tree(aside)
        take_file(staged, aside, site["payload_limit_bytes"])
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
    base = payload.get("base")
    # a tar archive is then the base image itself, as docker and podman save it
    if unpack(path, name, folder.payload, site["payload_limit_bytes"], keeps_tar=bool(base)):
        os.unlink(path)
        return
    if base:
        place = os.path.join(folder.payload, base)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.rename(path, place)
        return
    plain = "".join(c if c.isalnum() or c in "._-" else "_" for c in name).strip(".") or "payload"
    safe = plain.encode()[-200:].decode("utf-8", "ignore")
    os.rename(path, os.path.join(folder.payload, safe))


def _take_base(place: str, folder: RunFolder) -> str:
    """Move the base image out of the payload, so that it is not in the image too; returns its digest."""
    path = os.path.join(folder.payload, place)
    inside = os.path.realpath(folder.payload)
    if os.path.realpath(path) != os.path.join(inside, place) or not os.path.isfile(path):
        raise StepFailed(
            "base_not_found",
            f"'base.image' names the file {shorten(place, 120)} of the payload, which has no such file.",
            "Give its path below 'payload.destination'; a single tar archive is taken as the base itself.",
        )
    os.replace(path, folder.base)
    return "sha256:" + sha256_file(folder.base)


def _check_sha256(found: str, expected: str) -> None:
    if found != expected:
        raise StepFailed(
            "payload_checksum",
            f"The payload's sha256 is {found}, and the spec expects {expected}.",
            "The file changed or was damaged on the way; correct 'payload.sha256' if the new one is right.",
        )
