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


def recover(site: dict[str, Any], catalogue: Catalogue, name: str, sha256: str) -> dict[str, Any]:
    """Write a record for an image that has none, and list what belongs to it anew; returns the record.

    The list is sealed with the site's key only when a key that the site trusts signed the image, and the image
    was made under this very name: otherwise whoever may write files could have the site vouch for them.
    """
    path = catalogue.image_path(name, sha256)
    signer = Signer(site) if site["verify_keys"] else None
    fingerprint = signer.signer_of(path) if signer else None
    statement = _put_back(catalogue, path, name, sha256, is_signed=fingerprint is not None)
    said = _said(statement) if statement else {}
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


def _documents_within(path: str) -> dict[str, bytes]:
    """SBOM and provenance that lie in an image, by the ending that they have beside it."""
    found = {}
    for item in sif_objects(path):
        if item.kind == SBOM_TYPE:
            found[SBOM_ENDING] = read_object_of(path, item)
        elif item.kind == JSON_TYPE:
            text = read_object_of(path, item)
            if _statement(text):
                found[PROVENANCE_ENDING] = text
    return found


def _put_back(
    catalogue: Catalogue, path: str, name: str, sha256: str, *, is_signed: bool
) -> dict[str, Any] | None:
    """The provenance of this very image; what is signed in it lies beside it again afterwards."""
    if is_signed:
        documents = _documents_within(path)
        for ending, text in documents.items():
            write_text(companion(catalogue, name, sha256, ending), text.decode(), 0o444)
        statement = _statement(documents.get(PROVENANCE_ENDING, b""))
        lock = companion(catalogue, name, sha256, LOCK_ENDING)
        # a lock that is not the one that the signed statement names is nobody's
        if os.path.exists(lock) and sha256_file(lock) != (
            statement and _byproduct(statement, "lock")
        ):
            os.unlink(lock)
    else:
        try:
            with open(companion(catalogue, name, sha256, PROVENANCE_ENDING), "rb") as stream:
                statement = _statement(stream.read())
        except FileNotFoundError:
            return None
    if not statement:
        return None
    partition = squash_partition(path)
    digest = partition_sha256(path, partition) if partition else sha256
    subjects = [subject["digest"].get("sha256") for subject in statement["subject"]]
    return statement if digest in subjects else None


def _statement(text: bytes) -> dict[str, Any] | None:
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
    said |= {key: inner[key] for key in ("engine", "machine", "worker", "account") if key in inner}
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
