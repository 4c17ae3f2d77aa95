"""Registers at a site what Globus Transfer has brought there, once every byte and signature is checked."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import IO, Any

from ._shared.adoption import adopted_record
from ._shared.catalogue import Catalogue, utc_now
from ._shared.catalogue_index import read_object
from ._shared.deliveries import (
    check_destination,
    check_offer,
    clear_places,
    place_path,
    wanted_name,
)
from ._shared.files import CHUNK_BYTES, read_json, remove_tree
from ._shared.node_check import prepare_node
from ._shared.reproof import prove_file, spec_of
from ._shared.results import StepFailed, run_step, shorten
from ._shared.run_folder import RunFolder
from ._shared.signing import Signer, signature_of
from ._shared.site import load_site
from ._shared.trust import (
    LISTED_ENDINGS,
    PROVENANCE_ENDING,
    SBOM_ENDING,
    SEAL_ENDING,
    SUMS_ENDING,
    check_trust,
    companion,
    put_beside,
    seal,
)
from ._shared.working import working

LEAST_S = 20  # what a verification needs of a batch job
# Documents that are taken over as they are; the record is this site's own.
KEPT_DOCUMENTS = {".lock.json": "lock", SBOM_ENDING: "sbom", PROVENANCE_ENDING: "provenance"}
BRING_AGAIN = "Start the publication again; if it happens again, look at the collection's storage."


def receive_container(
    run_id: str,
    offer: dict[str, Any],
    destination: dict[str, Any],
    place: str,
    name_tag: str | None = None,
    move: bool = False,
) -> dict[str, Any]:
    """Last step of a publication at a destination.

    Compares every file with the sha256 that the source told, checks signatures, base and age by this site's
    policy, proves the image by running it, and registers it with a record whose ``executor`` is this site's.
    Until all of that holds nothing is in the catalogue; whatever happens, nothing stays in staging. With an empty
    ``place`` the container is here already and only its name is set.

    Returns what ``register_container`` returns; ``cached`` says that it was here already.
    """
    return run_step(
        "receive_container",
        lambda: _receive(run_id, offer, destination, place, name_tag, move),
    )


def _receive(
    run_id: str,
    given: dict[str, Any],
    destination: dict[str, Any],
    place: str,
    name_tag: str | None,
    move: bool,
) -> dict[str, Any]:
    site = prepare_node(load_site(), least_s=LEAST_S)
    folder = RunFolder(site["root"], run_id)
    offer = check_offer(given)
    asked = check_destination(destination)
    name, tag = wanted_name(name_tag, offer)
    catalogue = Catalogue(site["root"])
    folder.create()
    try:
        with working(folder, site, "receive_container", 50, publishes=True):
            if place:
                path = place_path(site, folder, place)
                delivery = _Delivery(site, folder, offer, asked, path)
                record = delivery.register(catalogue, name, tag)
            else:
                record = _present(site, catalogue, name, offer["sha256"])
            taken = catalogue.tags_of(name).get(tag)
            now = utc_now().isoformat(timespec="seconds")
            catalogue.tag(
                name, tag, record, now, is_new=not (taken and (move or _is(taken, record)))
            )
        folder.set_status(
            "finished", "receive_container", "registered", 100, record["container_id"]
        )
    finally:
        remove_tree(folder.work)
        clear_places(site, folder, ("delivery",))
    return {
        **{key: record[key] for key in ("container_id", "name", "path", "sha256", "bytes")},
        "tag": tag,
        "record_path": catalogue.record_path(name, record["sha256"]),
        "cached": not place,
        "python": (record.get("verification") or {}).get("python"),
        "signer": (record.get("signature") or {}).get("fingerprint"),
        "executor": {
            **record["executor"],
            "endpoint_id": asked["run_endpoint"] or record["executor"]["endpoint_id"],
        },
    }


def _is(pointer: dict[str, Any], record: dict[str, Any]) -> bool:
    return bool(pointer["sha256"] == record["sha256"])


def _present(site: dict[str, Any], catalogue: Catalogue, name: str, sha256: str) -> dict[str, Any]:
    record = read_object(catalogue.record_path(name, sha256))
    if not record or not catalogue.is_whole(name, sha256):
        raise StepFailed(
            "container_not_found",
            f"The image {sha256[:12]} of {name} was removed just now.",
            "Start the publication again; the container is then brought anew.",
        )
    # one that was registered by a process that was killed right then has no list yet
    _seal_if_missing(site, catalogue, name, sha256)
    check_trust(site, catalogue, record, hash_image=False)
    return record


def _seal_if_missing(site: dict[str, Any], catalogue: Catalogue, name: str, sha256: str) -> None:
    if not os.path.exists(companion(catalogue, name, sha256, SUMS_ENDING)):
        seal(catalogue, name, sha256, Signer(site) if site["sign_key"] else None)


def _copy_and_hash(handle: int, target: IO[bytes]) -> str:
    """Copy what an open file holds; returns its sha256."""
    digest = hashlib.sha256()
    while chunk := os.read(handle, CHUNK_BYTES):
        digest.update(chunk)
        target.write(chunk)
    return digest.hexdigest()


class _Delivery:
    """What was brought, as a small catalogue of its own in the run's work area, where nobody else writes."""

    def __init__(
        self,
        site: dict[str, Any],
        folder: RunFolder,
        offer: dict[str, Any],
        asked: dict[str, Any],
        path: str,
    ) -> None:
        self.site = site
        self.folder = folder
        self.offer = offer
        self.asked = asked
        self.path = path
        self.sha256 = str(offer["sha256"])
        self.own = Catalogue(folder.work)
        self.image = self.own.image_path("delivered", self.sha256)
        # of each file as it was copied, so that a large image is read once less
        self.sums: dict[str, str] = {}

    def register(self, catalogue: Catalogue, name: str, tag: str) -> dict[str, Any]:
        self._copy()
        theirs = self._checked()
        spec = spec_of(theirs.get("spec"), name)
        worker = theirs.get("worker")
        worker = worker if isinstance(worker, dict) else {}
        claims = {**theirs, "name": "delivered"}
        trust = check_trust(self.site, self.own, claims, hash_image=False)
        if self.site["require_signature"] and not self.site["sign_key"]:
            raise StepFailed(
                "site_invalid",
                f"The site {self.site['name']} requires signatures and has no 'sign_key' to sign records with.",
                "Ask the endpoint's administrator to set 'sign_key' in the site profile.",
            )
        verification = prove_file(
            self.site, self.image, self.sha256, spec, worker, "receive_container"
        )
        told = {**theirs, "spec": spec} if theirs.get("spec") else theirs
        worker = worker or verification.get("worker") or {}
        record = adopted_record(
            {**told, "worker": worker} if worker else told,
            image=self.image,
            path=catalogue.image_path(name, self.sha256),
            name=name,
            tag=tag,
            sha256=self.sha256,
            verification=verification,
            signature=signature_of(trust["signer"]),
            origin={
                "run_id": self.folder.run_id,
                "record_sha256": self.sums[f"{self.sha256}.json"],
            },
            endpoint_id=self.asked["endpoint"],
            run_endpoint=self.asked["run_endpoint"],
        )
        self._publish(catalogue, name, record)
        return record

    def _copy(self) -> None:
        """Bring the files to where only this account writes. Raises :class:`StepFailed` for one that is missing,
        that is no plain file, or that is larger than was told.
        """
        inside = os.path.dirname(self.image)
        os.makedirs(inside, mode=0o700)
        left = self.offer["bytes"] + 64 * 1024 * 1024
        for file_name in self.offer["files"]:
            source = os.path.join(self.path, file_name)
            try:
                # not through a link, and without waiting for whoever would write into a pipe
                handle = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except OSError:
                raise StepFailed(
                    "payload_not_visible",
                    f"Transfer has ended, but the endpoint does not see {shorten(source, 300)} as a plain file.",
                    "The endpoint's administrator must let 'staging' in the site profile name one folder twice.",
                ) from None
            try:
                info = os.fstat(handle)
                left -= info.st_size
                if not stat.S_ISREG(info.st_mode) or left < 0:
                    raise StepFailed(
                        "image_changed",
                        f"What was delivered is not what was offered: {file_name}.",
                        BRING_AGAIN,
                    )
                copy = os.path.join(inside, file_name)
                with open(copy, "xb") as target:
                    self.sums[file_name] = _copy_and_hash(handle, target)
            except OSError as error:
                error.filename = (
                    error.filename or inside
                )  # so that a full disk is said to be that one
                raise
            finally:
                os.close(handle)

    def _checked(self) -> dict[str, Any]:
        """The record that came along, once every file has the sha256 that the source told."""
        sums = self._companion(SUMS_ENDING)
        if self.sums[os.path.basename(sums)] != self.offer["sums_sha256"]:
            raise StepFailed(
                "image_changed",
                "The list of sums is not the one that the source offered.",
                BRING_AGAIN,
            )
        listed: dict[str, str] = {}
        with open(sums, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                expected, _, file_name = line.rstrip("\n").partition("  ")
                ending = file_name.removeprefix(self.sha256)
                if ending not in LISTED_ENDINGS or file_name not in self.sums:
                    raise StepFailed(
                        "image_changed",
                        f"{shorten(file_name, 100)} is listed and was not delivered.",
                        BRING_AGAIN,
                    )
                found = self.sums[file_name]
                if found != expected:
                    raise StepFailed(
                        "image_changed",
                        f"{file_name} arrived with the sha256 {found[:12]}…, and {expected[:12]}… was sent.",
                        BRING_AGAIN,
                    )
                listed[ending] = found
        extra = {name.removeprefix(self.sha256) for name in self.offer["files"]} - set(listed)
        if ".json" not in listed or extra - {SUMS_ENDING, SEAL_ENDING}:
            raise StepFailed(
                "image_changed",
                "Files were delivered that the source's list does not name.",
                BRING_AGAIN,
            )
        theirs = read_json(self._companion(".json"))
        if not isinstance(theirs, dict) or theirs.get("sha256") != self.sha256:
            raise StepFailed(
                "image_changed", "The record that was delivered is of another container."
            )
        if listed.get(".sif") != self.sha256:
            raise StepFailed(
                "image_changed",
                f"The image is not {self.sha256[:12]}…, which was offered.",
                BRING_AGAIN,
            )
        return theirs

    def _companion(self, ending: str) -> str:
        return companion(self.own, "delivered", self.sha256, ending)

    def _publish(self, catalogue: Catalogue, name: str, record: dict[str, Any]) -> None:
        """Everything beside the image first, the image and its record last."""
        written = []
        try:
            for ending, field in KEPT_DOCUMENTS.items():
                source = self._companion(ending)
                if os.path.exists(source):
                    with open(source, encoding="utf-8") as stream:
                        digest = put_beside(catalogue, name, self.sha256, ending, stream.read())
                    path = companion(catalogue, name, self.sha256, ending)
                    written.append(path)
                    record[field] = {"sha256": digest}
                    if field == "lock":
                        record[field]["path"] = path
            catalogue.publish(self.image, record)
            seal(catalogue, name, self.sha256, Signer(self.site) if self.site["sign_key"] else None)
        except BaseException:
            if not catalogue.is_whole(name, self.sha256):
                for path in written:
                    os.unlink(path)
            raise
