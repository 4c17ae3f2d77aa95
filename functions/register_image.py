"""Registers an image that exists already: below the endpoint's root, or brought to staging by Transfer."""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from typing import Any

from ._shared.adoption import adopted_record
from ._shared.catalogue import (
    Catalogue,
    container_of_image,
    require_text,
    split_name,
    utc_now,
)
from ._shared.catalogue_index import read_object
from ._shared.files import remove_tree, sha256_file
from ._shared.grammars import SHA256, UUID
from ._shared.node_check import prepare_node
from ._shared.recovery import claims_about, documents_within
from ._shared.reproof import prove_file, spec_of
from ._shared.results import StepFailed, run_step, shorten
from ._shared.run_folder import RunFolder
from ._shared.signing import Signer, signature_of
from ._shared.site import load_site
from ._shared.trust import PROVENANCE_ENDING, SBOM_ENDING, put_beside, require_signer, seal

LEAST_S = 20  # what a verification needs of a batch job


def register_image(
    path: str,
    name_tag: str,
    endpoint_id: str,
    sha256: str | None = None,
    run_endpoint: str | None = None,
    move: bool = False,
) -> dict[str, Any]:
    """Prove the image in the file ``path`` and register it as ``name_tag`` (``name:tag``).

    ``path`` lies below the endpoint's root or its staging folder (there it may also be given as the staging
    collection has it); the file moves into the catalogue, but for a container's image, which stays that one's too.
    A record beside it (``x.json`` beside ``x.sif``) that is of this image is taken over: its spec says what is
    proved. ``sha256`` is what the file must have. A name that is another container's is refused with
    ``already_exists``, unless ``move`` is given.

    Returns what ``register_container`` returns.
    """
    return run_step(
        "register_image",
        lambda: _register_file(path, name_tag, endpoint_id, sha256, run_endpoint, move),
    )


def _register_file(
    path: str,
    name_tag: str,
    endpoint_id: str,
    expected: str | None,
    run_endpoint: str | None,
    move: bool,
) -> dict[str, Any]:
    site = prepare_node(load_site(), least_s=LEAST_S)
    require_text("path", path)
    name, tag = split_name(name_tag)
    for field, value in (("endpoint_id", endpoint_id), ("run_endpoint", run_endpoint)):
        if value is not None and not UUID.fullmatch(str(value)):
            raise StepFailed("illegal_name", f"'{field}' is not a UUID: {shorten(str(value), 60)}.")
    if expected is not None and not SHA256.fullmatch(str(expected)):
        raise StepFailed("illegal_name", "'sha256' must be 64 hexadecimal digits.")
    catalogue = Catalogue(site["root"])
    source, is_staged = _source(site, catalogue, path)
    taken = catalogue.tags_of(name).get(tag)
    if taken and not move and taken["sha256"] != (expected or sha256_file(source)):
        raise StepFailed(
            "already_exists",
            f"{name}:{tag} exists and names another container.",
            "Move the tag on purpose, or choose another.",
        )
    work = RunFolder(site["root"], str(uuid.uuid4()))
    work.create()
    try:
        record = _proved(site, catalogue, work, source, is_staged, name, tag, endpoint_id, expected)
    finally:
        remove_tree(work.work)
        remove_tree(work.path)
    now = utc_now().isoformat(timespec="seconds")
    catalogue.tag(name, tag, record, now, is_new=not taken)
    executor = {
        "endpoint_id": run_endpoint or record["executor"]["endpoint_id"],
        "user_endpoint_config": {"container_uri": record["path"]},
    }
    return {
        **{key: record[key] for key in ("container_id", "name", "path", "sha256", "bytes")},
        "tag": tag,
        "record_path": catalogue.record_path(record["name"], record["sha256"]),
        "cached": False,
        "python": (record.get("verification") or {}).get("python"),
        "executor": executor,
    }


def _source(site: dict[str, Any], catalogue: Catalogue, path: str) -> tuple[str, bool]:
    """The file that is meant, and whether it lies in staging, where others may change it.

    The endpoint's account may read more than whoever calls this: only files in two places are looked at.
    """
    staging = site["staging"]
    staged = os.path.realpath(staging["path"]) if staging else None
    if staging and path.startswith(staging["collection_path"].rstrip("/") + "/"):
        beyond = path[len(staging["collection_path"].rstrip("/")) :].lstrip("/")
        candidate = os.path.join(staging["path"], beyond)
        # where the collection begins at '/', either name may be meant
        is_named = path.startswith((site["root"] + os.sep, staging["path"].rstrip("/") + "/"))
        if os.path.lexists(candidate) or not is_named:
            path = candidate
    real = os.path.realpath(path)
    in_staging = bool(staged) and real.startswith(f"{staged}{os.sep}")
    places = [os.path.join(site["root"], inner) for inner in ("work", "trash", "cache", "runs")]
    in_root = real.startswith(site["root"] + os.sep) and not any(
        real.startswith(place + os.sep) for place in places
    )
    if not (in_staging or in_root) or not os.path.isabs(path):
        raise StepFailed(
            "source_not_found",
            f"{shorten(path, 200)} is neither below the endpoint's root {site['root']} nor in its staging folder.",
            "Put the image there first, by Globus Transfer or as the endpoint's account.",
        )
    try:
        info = os.lstat(path)
    except OSError:
        raise StepFailed(
            "source_not_found", f"There is no file {shorten(path, 300)} on the endpoint."
        ) from None
    if not stat.S_ISREG(info.st_mode):
        raise StepFailed("source_not_found", f"{shorten(path, 300)} is not a plain file.")
    with open(real, "rb") as stream:
        if not stream.read(64)[32:].startswith(b"SIF_MAGIC"):
            raise StepFailed(
                "image_unreadable",
                f"{shorten(path, 300)} is not an image in SIF form.",
                "Other forms are built into one: use them as the base of a spec.",
            )
    return real, in_staging


def _proved(
    site: dict[str, Any],
    catalogue: Catalogue,
    work: RunFolder,
    source: str,
    is_staged: bool,
    name: str,
    tag: str,
    endpoint_id: str,
    expected: str | None,
) -> dict[str, Any]:
    """The record under which the image is now registered."""
    beside = read_object(source.removesuffix(".sif") + ".json") or {}
    if is_staged:
        # what others can write to is proved as a copy that they cannot
        image = shutil.copyfile(source, work.image)
        sha256 = sha256_file(image)
    else:
        image, sha256 = source, sha256_file(source)
    if expected and sha256 != expected:
        raise StepFailed(
            "image_changed",
            f"The file's sha256 is {sha256}, and {expected} is expected.",
            "It was damaged or changed on the way; bring it again.",
        )
    there = container_of_image(catalogue, source)
    # a container's own image, here or under another name, stays where it is
    is_kept = there is not None and catalogue.is_whole(*there)
    known = read_object(catalogue.record_path(name, sha256))
    if known and catalogue.is_whole(name, sha256):
        if not is_kept:
            _done_with(source, is_staged, catalogue.image_path(name, sha256))
        return known
    signer = Signer(site) if site["sign_key"] or site["verify_keys"] else None
    fingerprint = require_signer(site, signer, image)
    theirs = beside if beside.get("sha256") == sha256 else {}
    documents = documents_within(image) if fingerprint else {}
    if not theirs and PROVENANCE_ENDING in documents:
        # no record came along; whoever signed the image vouches for what stands in it
        theirs = claims_about(image, sha256, documents[PROVENANCE_ENDING])
    worker = theirs.get("worker")
    worker = worker if isinstance(worker, dict) else {}
    spec = spec_of(theirs.get("spec"), name)
    verification = prove_file(site, image, sha256, spec, worker, "register_image")
    path = catalogue.image_path(name, sha256)
    # an image of which nobody tells may hold a worker all the same, which has to fit the endpoint's
    worker = worker or verification.get("worker") or {}
    theirs = {**theirs, "spec": spec, "worker": worker} if theirs else {"spec": None}
    record = adopted_record(
        {**theirs, "worker": worker} if worker else theirs,
        image=image,
        path=path,
        name=name,
        tag=tag,
        sha256=sha256,
        verification=verification,
        signature=signature_of(fingerprint),
        origin={"file": source},
        endpoint_id=endpoint_id,
        run_endpoint=None,
    )
    for ending, text in documents.items():
        key = "sbom" if ending == SBOM_ENDING else "provenance"
        record[key] = {"sha256": put_beside(catalogue, name, sha256, ending, text)}
    if source == path or is_kept:
        # its record was lost, or it is another's too: publishing would take the image's name away
        os.link(source, work.image)
        image = work.image
    catalogue.publish(image, record)
    seal(catalogue, name, sha256, signer if site["sign_key"] else None)
    if not is_kept:
        _done_with(source, is_staged, path)
    return record


def _done_with(source: str, is_staged: bool, path: str) -> None:
    """The file is the catalogue's now; a name that it had before goes, and a record that came along."""
    if source == path:
        return
    for left in (source, source.removesuffix(".sif") + ".json" if is_staged else source):
        if os.path.lexists(left):
            os.unlink(left)
