"""The catalogue: images under their content's digest, records beside them, tags and pointers that move.

Everything below ``<root>/images`` is written once and never changed; tags and build pointers are small
files replaced by rename, which NFS and Lustre do atomically. No lock is needed: two publishers of one build
write the same names, and the later rename wins.
"""

from __future__ import annotations

import os
import re
import uuid
from typing import Any

from .files import read_json, sync_folder, write_json
from .grammars import IMAGE_NAME, TAG, UUID
from .results import StepFailed, shorten

# The namespace of container ids: UUIDv5(URL namespace, "urn:cib-flows:container"). Part of the public contract.
CONTAINER_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:cib-flows:container")
# What a record must have to be listed at all.
LISTED = {
    "container_id": str,
    "name": str,
    "path": str,
    "sha256": str,
    "created_at": str,
    "bytes": int,
}


def container_id_of(sif_sha256: str) -> str:
    """The same image has the same id at every site it is copied to."""
    return str(uuid.uuid5(CONTAINER_NAMESPACE, sif_sha256))


class Catalogue:
    """The containers of one root."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.images = os.path.join(root, "images")
        self.tags = os.path.join(root, "tags")
        self.builds = os.path.join(root, "builds")

    def image_path(self, name: str, sha256: str) -> str:
        return os.path.join(self.images, name, f"{sha256}.sif")

    def record_path(self, name: str, sha256: str) -> str:
        return os.path.join(self.images, name, f"{sha256}.json")

    def publish(self, sif: str, record: dict[str, Any]) -> tuple[str, str]:
        """Move a finished image and its record into place: ``(image path, record path)``.

        ``sif`` must be on the root's own file system. An image that is there already is kept, since its name
        says that it has the same content.
        """
        name, sha256 = record["name"], record["sha256"]
        image, record_path = self.image_path(name, sha256), self.record_path(name, sha256)
        folder = os.path.dirname(image)
        os.makedirs(folder, mode=0o755, exist_ok=True)
        if os.path.exists(image):
            os.unlink(sif)
        else:
            os.chmod(sif, 0o444)
            with open(sif, "rb") as stream:
                os.fsync(stream.fileno())
            os.rename(sif, image)
            sync_folder(folder)
        if not os.path.exists(record_path):
            write_json(record_path, record, 0o444)
        return image, record_path

    def point(self, build_digest: str, record: dict[str, Any]) -> None:
        """Make ``record`` the answer to its build digest from now on."""
        os.makedirs(self.builds, mode=0o755, exist_ok=True)
        write_json(
            os.path.join(self.builds, f"{build_digest}.json"),
            {
                "container_id": record["container_id"],
                "name": record["name"],
                "sha256": record["sha256"],
            },
        )

    def tag(self, name: str, tag: str, record: dict[str, Any], moved_at: str) -> None:
        """Move ``name:tag`` to ``record``."""
        folder = os.path.join(self.tags, name)
        os.makedirs(folder, mode=0o755, exist_ok=True)
        write_json(
            os.path.join(folder, f"{tag}.json"),
            {
                "container_id": record["container_id"],
                "sha256": record["sha256"],
                "name": record["name"],
                "moved_at": moved_at,
            },
        )

    def built(self, build_digest: str) -> dict[str, Any] | None:
        """The newest container of a build digest, if its image is still there."""
        pointer = _read(os.path.join(self.builds, f"{build_digest}.json"))
        if not pointer or not {"name", "sha256"} <= pointer.keys():
            return None
        record = _read(self.record_path(pointer["name"], pointer["sha256"]))
        if not record or not os.path.exists(self.image_path(pointer["name"], pointer["sha256"])):
            return None
        return record

    def records(self) -> list[dict[str, Any]]:
        """Every record, newest first; one that cannot be read is passed over."""
        found = []
        for folder, _, names in os.walk(self.images):
            for name in names:
                record = _read(os.path.join(folder, name)) if name.endswith(".json") else None
                if record and all(
                    isinstance(record.get(key), kind) for key, kind in LISTED.items()
                ):
                    found.append(record)
        return sorted(found, key=lambda r: (r["created_at"], r["sha256"]), reverse=True)

    def tags_of(self, name: str) -> dict[str, dict[str, Any]]:
        """Tag -> pointer of one image name."""
        folder = os.path.join(self.tags, name)
        found = {}
        try:
            entries = sorted(os.listdir(folder))
        except OSError:
            return {}
        for entry in entries:
            pointer = _read(os.path.join(folder, entry)) if entry.endswith(".json") else None
            if pointer and TAG.fullmatch(entry[:-5]) and {"name", "sha256"} <= pointer.keys():
                found[entry[:-5]] = pointer
        return found

    def find(self, reference: str) -> dict[str, Any]:
        """The record that ``name``, ``name:tag``, a container id or a unique beginning of one means.

        Raises :class:`StepFailed` with ``container_not_found``.
        """
        name, _, tag = reference.partition(":")
        if IMAGE_NAME.fullmatch(name) and (not tag or TAG.fullmatch(tag)):
            pointer = self.tags_of(name).get(tag or "latest")
            record = (
                _read(self.record_path(pointer["name"], pointer["sha256"])) if pointer else None
            )
            if record:
                return record
        if re.fullmatch(r"[0-9a-f-]{6,36}", reference):
            found = [r for r in self.records() if r["container_id"].startswith(reference)]
            if len(found) == 1 or (found and UUID.fullmatch(reference)):
                return found[0]
            if found:
                raise StepFailed(
                    "container_not_found",
                    f"'{reference}' is the beginning of {len(found)} container ids; give more of it.",
                )
        known = self.tags_of(name) if IMAGE_NAME.fullmatch(name) else {}
        raise StepFailed(
            "container_not_found",
            f"No container '{shorten(reference, 80)}' is registered on this endpoint.",
            f"Tags of {name} are {', '.join(known)}."
            if known
            else "'cib-flows containers list' shows them.",
        )


def _read(path: str) -> dict[str, Any] | None:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
