"""The record of an image whose record was lost, from what the image says of itself.

An image that was signed here or elsewhere carries its provenance under the signature, and that says what the
record said of its making. Nothing vouches for what an unsigned image says, nor for the file beside it.
"""

from __future__ import annotations

import datetime
import json
import os
from typing import Any

from .catalogue import Catalogue, container_id_of, utc_now
from .documents import BUILD_TYPE
from .files import sha256_file, write_json, write_text
from .sif import (
    JSON_TYPE,
    SBOM_TYPE,
    partition_sha256,
    read_object_of,
    sif_objects,
    squash_partition,
)
from .signing import Signer, signature_of
from .spec_check import check_spec
from .spec_words import SpecRefused
from .trust import PROVENANCE_ENDING, SBOM_ENDING, companion, seal, unseal

PREDICATE = "https://slsa.dev/provenance/v1"
ENDPOINT_URN = "urn:globus:compute:endpoint:"
RUN_URN = "urn:globus:flows:run:"
LOCK_ENDING = ".lock.json"
NOTHING_SAID: dict[str, Any] = {"predicate": {"runDetails": {"byproducts": []}}}


def recover(site: dict[str, Any], catalogue: Catalogue, name: str, sha256: str) -> dict[str, Any]:
    """Write a record for an image that has none, and list what belongs to it anew; returns the record.

    The list is sealed with the site's key only when a key that the site trusts signed the image, and the image
    was made under this very name: otherwise whoever may write files could have the site vouch for them.
    """
    path = catalogue.image_path(name, sha256)
    signer = Signer(site) if site["verify_keys"] else None
    fingerprint = signer.signer_of(path) if signer else None
    said = _put_back(catalogue, path, name, sha256, is_signed=fingerprint is not None)
    spec = said.get("spec") or {}
    is_vouched = bool(fingerprint and site["sign_key"] and spec.get("name") == name)
    now = utc_now().isoformat(timespec="seconds")
    record: dict[str, Any] = {
        "record_version": 1,
        "container_id": container_id_of(sha256),
        "name": name,
        "path": path,
        "sha256": sha256,
        "bytes": os.path.getsize(path),
        "created_at": _file_time(path),
        **said,
        "recovered_at": now,
        "signature": signature_of(fingerprint) if is_vouched else None,
        "executor": {"user_endpoint_config": {"container_uri": path}},
    }
    run_endpoint = spec.get("run_endpoint") or said.get("endpoint_id")
    if run_endpoint:
        record["executor"]["endpoint_id"] = run_endpoint
    for key, ending in (
        ("sbom", SBOM_ENDING),
        ("provenance", PROVENANCE_ENDING),
        ("lock", LOCK_ENDING),
    ):
        beside = companion(catalogue, name, sha256, ending)
        if os.path.exists(beside):
            record[key] = {"sha256": sha256_file(beside)}
            if key == "lock":
                record[key]["path"] = beside
    unseal(catalogue, name, sha256)
    write_json(catalogue.record_path(name, sha256), record, 0o444)
    seal(catalogue, name, sha256, signer if is_vouched else None)
    return record


def documents_within(path: str) -> dict[str, str]:
    """SBOM and provenance that lie in an image, by the ending that they have beside it."""
    found = {}
    for item in sif_objects(path):
        if item.kind in (SBOM_TYPE, JSON_TYPE):
            text = read_object_of(path, item).decode("utf-8", "replace")
            if item.kind == SBOM_TYPE:
                found[SBOM_ENDING] = text
            elif _statement(text):
                found[PROVENANCE_ENDING] = text
    return found


def claims_about(path: str, sha256: str, provenance: str) -> dict[str, Any]:
    """The fields of a record that a provenance statement says of the image in ``path``; empty when it is about
    another image, or of a form that this project does not write.
    """
    statement = _statement(provenance)
    if not statement:
        return {}
    partition = squash_partition(path)
    digest = partition_sha256(path, partition) if partition else sha256
    subjects = [subject["digest"].get("sha256") for subject in statement["subject"]]
    return _said(statement) if digest in subjects else {}


def _put_back(
    catalogue: Catalogue, path: str, name: str, sha256: str, *, is_signed: bool
) -> dict[str, Any]:
    """What the image's provenance says of it; what is signed in it lies beside it again afterwards."""
    if is_signed:
        documents = documents_within(path)
        for ending, text in documents.items():
            write_text(companion(catalogue, name, sha256, ending), text, 0o444)
        provenance = documents.get(PROVENANCE_ENDING, "")
        lock = companion(catalogue, name, sha256, LOCK_ENDING)
        # a lock that is not the one that the signed statement names is nobody's
        named = _byproduct(_statement(provenance) or NOTHING_SAID, "lock")
        if os.path.exists(lock) and sha256_file(lock) != named:
            os.unlink(lock)
    else:
        try:
            beside = companion(catalogue, name, sha256, PROVENANCE_ENDING)
            with open(beside, encoding="utf-8", errors="replace") as stream:
                provenance = stream.read()
        except FileNotFoundError:
            return {}
    return claims_about(path, sha256, provenance)


def _statement(text: str) -> dict[str, Any] | None:
    """A provenance statement of the form that this project writes; None for any other document."""
    try:
        found = json.loads(text)
        if found["predicateType"] != PREDICATE:
            return None
        if found["predicate"]["buildDefinition"]["buildType"] != BUILD_TYPE:
            return None
        _said(found)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SpecRefused):
        return None
    return dict(found)


def _said(statement: dict[str, Any]) -> dict[str, Any]:
    """The fields of a record that a statement holds."""
    definition = statement["predicate"]["buildDefinition"]
    details = statement["predicate"]["runDetails"]
    asked, inner = definition["externalParameters"], definition["internalParameters"]
    spec = check_spec(asked["spec"])
    base: dict[str, Any] = next(
        (m for m in definition["resolvedDependencies"] if m.get("name") == "base"), {}
    )
    digest = (base.get("digest") or {}).get("sha256")
    said = {
        "spec": spec,
        "spec_digest": asked.get("spec_digest"),
        "base": {
            **spec["base"],
            "resolved": str(base.get("uri", "")).partition("://")[2],
            "digest": f"sha256:{digest}" if digest else "",
        },
        "recipe_sha256": _byproduct(statement, "recipe"),
        "squashfs_sha256": statement["subject"][0]["digest"].get("sha256"),
        "endpoint_id": str(details["builder"]["id"]).removeprefix(ENDPOINT_URN),
        "run_id": str(details["metadata"].get("invocationId", "")).removeprefix(RUN_URN),
        # what the site's limit of age counts from stays what it was
        "created_at": _moment(details["metadata"]["finishedOn"]),
    }
    said |= {
        key: inner[key]
        for key in ("engine", "machine", "worker", "account", "started_by")
        if key in inner
    }
    return said


def _byproduct(statement: dict[str, Any], name: str) -> str | None:
    for found in statement["predicate"]["runDetails"]["byproducts"]:
        if found.get("name") == name:
            return str(found["digest"]["sha256"])
    return None


def _moment(text: str) -> str:
    # Python 3.9 knows no Z
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).isoformat()


def _file_time(path: str) -> str:
    made = datetime.datetime.fromtimestamp(os.path.getmtime(path), datetime.timezone.utc)
    return made.isoformat(timespec="seconds")
