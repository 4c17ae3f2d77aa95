"""Publishes a proved image under its sha256 with an immutable record, and moves the tag to it.

An SBOM and a provenance statement stand beside the record. A site with a signing key has both in the image
too, under its signature: the image that is published is then another file than the one that was verified, with
the same file system in it.
"""

from __future__ import annotations

import datetime
import getpass
import os
import platform
import re
from typing import Any

from ._shared.catalogue import Catalogue, container_id_of
from ._shared.documents import document_text, make_provenance, make_sbom
from ._shared.files import read_json, sha256_file, write_text
from ._shared.grammars import UUID
from ._shared.lock_files import MADE_LOCK, publish_lock
from ._shared.results import StepFailed, run_step
from ._shared.run_folder import RunFolder
from ._shared.signing import Signer, signature_of, signed_copy
from ._shared.site import load_site
from ._shared.trust import PROVENANCE_ENDING, SBOM_ENDING, put_beside, seal
from ._shared.turns import Turns
from ._shared.working import working

RECORD_VERSION = 1
PRINCIPAL = re.compile(r"urn:globus:auth:identity:[0-9a-f-]{36}")
VERIFICATION = "verification.json"


class Told:
    """What only the flow can say. Raises :class:`StepFailed` ``internal`` for what is no id."""

    def __init__(self, function_ids: dict[str, str], started_by: str | None) -> None:
        for step, function_id in function_ids.items():
            if not UUID.fullmatch(str(function_id)):
                raise StepFailed("internal", f"The id of the function {step[:40]!r} is not a UUID.")
        if started_by is not None and not PRINCIPAL.fullmatch(str(started_by)):
            raise StepFailed("internal", "'started_by' is not the URN of an identity.")
        self.function_ids = function_ids
        self.started_by = started_by


def register_container(
    run_id: str,
    endpoint_id: str,
    sif_sha256: str | None = None,
    verification_sha256: str | None = None,
    container_id: str | None = None,
    functions: dict[str, str] | None = None,
    started_by: str | None = None,
) -> dict[str, Any]:
    """Last step. Either ``sif_sha256`` and ``verification_sha256`` of this run's image, or the
    ``container_id`` of an identical one that is registered already. ``functions`` maps the flow's steps to
    the ids of its functions, and ``started_by`` is the URN of the identity that started the run, as the flow
    says them: for record and provenance.

    Returns the container's short record: ``container_id``, ``name``, ``tag``, ``path``, ``sha256``,
    ``bytes``, ``record_path``, ``cached``, ``python``, and ``executor``, which goes unchanged into
    ``globus_compute_sdk.Executor(**executor)``.
    """
    return run_step(
        "register_container",
        lambda: _register(
            run_id,
            endpoint_id,
            sif_sha256,
            verification_sha256,
            container_id,
            Told(functions or {}, started_by),
        ),
    )


def _register(
    run_id: str,
    endpoint_id: str,
    sif_sha256: str | None,
    verification_sha256: str | None,
    container_id: str | None,
    told: Told,
) -> dict[str, Any]:
    site = load_site()
    folder = RunFolder(site["root"], run_id)
    folder.require()
    if not UUID.fullmatch(endpoint_id):
        raise StepFailed("internal", f"'endpoint_id' is not a UUID: {endpoint_id!r}.")
    with working(folder, site, "register_container", 97, publishes=True):
        result = _register_image(
            site, folder, endpoint_id, sif_sha256, verification_sha256, container_id, told
        )
    outcome = f"registered {result['container_id']} {result['path']}"
    folder.set_status("finished", "register_container", "registered", 100, outcome)
    folder.clean_work(site)
    Turns(site["root"], folder).release(folder.read("plan.json")["build_digest"])
    return result


def _register_image(
    site: dict[str, Any],
    folder: RunFolder,
    endpoint_id: str,
    sif_sha256: str | None,
    verification_sha256: str | None,
    container_id: str | None,
    told: Told,
) -> dict[str, Any]:
    catalogue = Catalogue(site["root"])
    plan = folder.read("plan.json")
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    if container_id is not None:
        record = catalogue.built(plan["build_digest"])
        if record is None or record["container_id"] != container_id:
            raise StepFailed(
                "container_not_found",
                f"The container {container_id} was removed while this run was under way.",
                "Start the run again; it will build the image.",
            )
    else:
        signer = Signer(site) if site["sign_key"] else None
        verification = _proof_of(folder, sif_sha256, verification_sha256)
        documents = _write_documents(folder, plan, verification, endpoint_id, told)
        record = _publish(
            catalogue, folder, plan, endpoint_id, told, verification, documents, now, signer
        )
    catalogue.tag(plan["name"], plan["tag"], record, now)
    result = _short(catalogue, record, plan, cached=container_id is not None)
    folder.write("result.json", result)
    return result


def _proof_of(
    folder: RunFolder, sif_sha256: str | None, verification_sha256: str | None
) -> dict[str, Any]:
    """The verification of the run's image, once both are known to be those that were made."""
    path = os.path.join(folder.path, VERIFICATION)
    if sha256_file(path) != verification_sha256:
        raise StepFailed("image_changed", "The verification is no longer the one that was made.")
    if not os.path.exists(folder.image) or sha256_file(folder.image) != sif_sha256:
        raise StepFailed("image_changed", "The image is no longer the one that was verified.")
    verification: dict[str, Any] = read_json(path)
    if verification["sif_sha256"] != sif_sha256:
        raise StepFailed("image_changed", "The verification is of another image.")
    return verification


def _publish(
    catalogue: Catalogue,
    folder: RunFolder,
    plan: dict[str, Any],
    endpoint_id: str,
    told: Told,
    verification: dict[str, Any],
    documents: tuple[str, str],
    now: str,
    signer: Signer | None,
) -> dict[str, Any]:
    sif_sha256 = str(verification["sif_sha256"])
    build = folder.read("build.json")
    image, signature = folder.image, None
    if signer:
        image, fingerprint = signed_copy(signer, folder.image, *documents)
        signature = signature_of(fingerprint)
        sif_sha256 = sha256_file(image)
    lock = publish_lock(catalogue, folder, plan["name"], sif_sha256, verification["lock_sha256"])
    beside = {
        ending: put_beside(catalogue, plan["name"], sif_sha256, ending, _text_of(path))
        for ending, path in zip((SBOM_ENDING, PROVENANCE_ENDING), documents, strict=True)
    }
    record: dict[str, Any] = {
        "record_version": RECORD_VERSION,
        "container_id": container_id_of(sif_sha256),
        "name": plan["name"],
        "first_tag": plan["tag"],
        "path": catalogue.image_path(plan["name"], sif_sha256),
        "sha256": sif_sha256,
        "bytes": os.path.getsize(image),
        "created_at": now,
        "spec": folder.read("spec.json"),
        "spec_digest": plan["spec_digest"],
        "recipe_sha256": plan["recipe_sha256"],
        "build_digest": plan["build_digest"],
        "base": plan["base"],
        "payload": plan["payload"],
        "worker": plan["worker"],
        "engine": plan["engine"],
        "machine": plan["machine"],
        "verification": verification,
        "squashfs_sha256": verification["squashfs_sha256"],
        "lock": lock,
        "sbom": {"sha256": beside[SBOM_ENDING]},
        "provenance": {"sha256": beside[PROVENANCE_ENDING]},
        "signature": signature,
        "build_s": build["build_s"],
        "run_id": plan["run_id"],
        "endpoint_id": endpoint_id,
        "account": getpass.getuser(),
        "started_by": told.started_by,
        "host": platform.node(),
    }
    with open(folder.recipe, encoding="utf-8") as stream:
        record["recipe"] = stream.read()
    run_endpoint = plan["run_endpoint"] or endpoint_id
    record["executor"] = {
        "endpoint_id": run_endpoint,
        "user_endpoint_config": {"container_uri": record["path"]},
    }
    catalogue.publish(image, record)
    seal(catalogue, plan["name"], sif_sha256, signer)
    catalogue.point(plan["build_digest"], record)
    return record


def _write_documents(
    folder: RunFolder,
    plan: dict[str, Any],
    verification: dict[str, Any],
    endpoint_id: str,
    told: Told,
) -> tuple[str, str]:
    """Paths of SBOM and provenance in the run's folder."""
    lock_path = os.path.join(folder.path, MADE_LOCK)
    sbom = make_sbom(plan["name"], plan["tag"], read_json(lock_path), verification)
    provenance = make_provenance(
        plan,
        folder.read("spec.json"),
        verification,
        endpoint_id=endpoint_id,
        account=getpass.getuser(),
        started_by=told.started_by,
        lock_sha256=sha256_file(lock_path),
        verification_sha256=sha256_file(os.path.join(folder.path, VERIFICATION)),
        functions=folder.functions(),
        function_ids=told.function_ids,
    )
    paths = os.path.join(folder.path, "sbom.json"), os.path.join(folder.path, "provenance.json")
    for path, document in zip(paths, (sbom, provenance), strict=True):
        write_text(path, document_text(document))
    return paths


def _text_of(path: str) -> str:
    with open(path, encoding="utf-8") as stream:
        return stream.read()


def _short(
    catalogue: Catalogue, record: dict[str, Any], plan: dict[str, Any], *, cached: bool
) -> dict[str, Any]:
    return {
        "container_id": record["container_id"],
        "name": record["name"],
        "tag": plan["tag"],
        "path": record["path"],
        "sha256": record["sha256"],
        "bytes": record["bytes"],
        "record_path": catalogue.record_path(record["name"], record["sha256"]),
        "cached": cached,
        "build_s": record["build_s"],
        "python": record["verification"]["python"],
        "executor": {
            **record["executor"],
            "endpoint_id": plan["run_endpoint"] or record["executor"]["endpoint_id"],
        },
    }
