"""The catalogue: images under their content's digest, records beside them, tags and pointers that move.

What lies below ``<root>/images`` is written once and never changed; tags and build pointers are small files
replaced by rename. No lock is needed, since each step is one operation that NFS and Lustre do atomically on
the server: a hard link or an exclusive create takes a name only once, and a rename shows the old file or the
new. Whoever takes something away first hides it, then looks whether somebody has come to rely on it; whoever
comes to rely on it first says so, then looks whether it is still there. So one of the two always notices.
"""

from __future__ import annotations

import datetime
import errno
import getpass
import os
import re
import secrets
import uuid
from typing import Any

from .catalogue_index import CatalogueIndex, image_key, read_object
from .files import sync_folder, write_json, write_text
from .grammars import IMAGE_NAME, SHA256, TAG, UUID
from .results import StepFailed, shorten

# The namespace of container ids: UUIDv5(URL namespace, "urn:cib-flows:container"). Part of the public contract.
CONTAINER_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:cib-flows:container")
MAX_NAME_CHARS = 64
PUBLISH_ATTEMPTS = 5


def container_id_of(sif_sha256: str) -> str:
    """The same image has the same id at every site it is copied to."""
    return str(uuid.uuid5(CONTAINER_NAMESPACE, sif_sha256))


def utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def split_name(text: str, name: str | None = None) -> tuple[str, str]:
    """``name:tag`` in its two parts; a bare tag belongs to ``name``.

    Raises :class:`StepFailed` with ``illegal_name``.
    """
    given, separator, tag = str(text).rpartition(":")
    chosen = given if separator else name or ""
    if not (
        IMAGE_NAME.fullmatch(chosen)
        and TAG.fullmatch(tag)
        and len(chosen) <= MAX_NAME_CHARS
        and len(tag) <= MAX_NAME_CHARS
    ):
        raise StepFailed(
            "illegal_name",
            f"'{shorten(str(text), 80)}' is not an image name and a tag.",
            "Write name:tag in lower-case letters and digits, joined by '.', '_' or '-', at most 64 each.",
        )
    return chosen, tag


def require_text(field: str, value: Any) -> None:
    """Raise :class:`StepFailed` ``illegal_name`` for a field that is no text: a flow passes on any JSON."""
    if not isinstance(value, str):
        raise StepFailed(
            "illegal_name", f"'{field}' must be a text, not {shorten(str(value), 60)}."
        )


class Catalogue:
    """The containers of one root."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.images = os.path.join(root, "images")
        self.tags = os.path.join(root, "tags")
        self.builds = os.path.join(root, "builds")
        self.pins = os.path.join(root, "pins")
        self.uses = os.path.join(root, "uses")
        self.history = os.path.join(root, "history")
        self.index = CatalogueIndex(root)

    def image_path(self, name: str, sha256: str) -> str:
        return os.path.join(self.images, name, f"{sha256}.sif")

    def record_path(self, name: str, sha256: str) -> str:
        return os.path.join(self.images, name, f"{sha256}.json")

    def tag_path(self, name: str, tag: str) -> str:
        return os.path.join(self.tags, name, f"{tag}.json")

    def publish(self, sif: str, record: dict[str, Any]) -> tuple[str, str]:
        """Move a finished image and its record into place: ``(image path, record path)``.

        ``sif`` must be on the root's own file system. An image that is there already is kept, since its name
        says that it has the same content.
        """
        name, sha256 = record["name"], record["sha256"]
        image, record_path = self.image_path(name, sha256), self.record_path(name, sha256)
        folder = os.path.dirname(image)
        os.makedirs(folder, mode=0o755, exist_ok=True)
        os.chmod(sif, 0o444)
        with open(sif, "rb") as stream:
            os.fsync(stream.fileno())
        is_new = False
        for _ in range(PUBLISH_ATTEMPTS):
            _link(sif, image)
            sync_folder(folder)
            if not os.path.exists(record_path):
                write_json(record_path, record, 0o444)
                is_new = True
            if self.is_whole(name, sha256):
                break  # and not removed between the two, as an image that was there before may be
        if os.path.lexists(sif):
            os.unlink(sif)
        if is_new:
            self.note("registered", record)
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

    def tag(
        self, name: str, tag: str, record: dict[str, Any], moved_at: str, *, is_new: bool = False
    ) -> None:
        """Move ``name:tag`` to ``record``; with ``is_new`` refuse when the tag exists.

        Raises :class:`StepFailed` ``already_exists``, or ``container_not_found`` when the image was removed
        meanwhile; the tag is then as it was, or gone.
        """
        folder = os.path.join(self.tags, name)
        os.makedirs(folder, mode=0o755, exist_ok=True)
        path = self.tag_path(name, tag)
        before = read_object(path)
        pointer = {
            "container_id": record["container_id"],
            "sha256": record["sha256"],
            "name": record["name"],
            "moved_at": moved_at,
        }
        if is_new:
            aside = os.path.join(folder, f".{tag}.{secrets.token_hex(6)}")
            write_json(aside, pointer)
            try:
                if not _link(aside, path):
                    raise StepFailed(
                        "already_exists",
                        f"{name}:{tag} exists and names another container.",
                        "Move the tag on purpose, or choose another.",
                    )
            finally:
                if os.path.lexists(aside):
                    os.unlink(aside)
        else:
            write_json(path, pointer)
        if not self.is_whole(record["name"], record["sha256"]):
            if before:
                write_json(path, before)
            else:
                self._drop_tag(path)
            raise StepFailed(
                "container_not_found",
                f"The container {record['container_id']} was removed while {name}:{tag} moved to it.",
                "Start again; a build will make the image anew.",
            )
        previous = before if before and {"name", "sha256"} <= before.keys() else None
        if previous and (previous["name"], previous["sha256"]) == (
            record["name"],
            record["sha256"],
        ):
            return
        if previous:
            self.touch(previous["name"], previous["sha256"])
        was = previous["sha256"] if previous else None
        self.note("tagged", record, name=name, tag=tag, previous=was)

    def untag(self, name: str, tag: str) -> dict[str, Any]:
        """Take ``name:tag`` away and return what it pointed at. Raises ``container_not_found``."""
        pointer = self.tags_of(name).get(tag)
        if pointer is None:
            raise StepFailed(
                "container_not_found",
                f"There is no {name}:{tag}.",
                _known_tags(name, self.tags_of(name)),
            )
        self._drop_tag(self.tag_path(name, tag))
        self.touch(pointer["name"], pointer["sha256"])
        self.note("untagged", pointer, name=name, tag=tag)
        return pointer

    def _drop_tag(self, path: str) -> None:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass  # another was faster
        sync_folder(os.path.dirname(path))

    def touch(self, name: str, sha256: str) -> None:
        """Remember that an image was in use until now: its age counts from here."""
        os.makedirs(self.uses, mode=0o755, exist_ok=True)
        write_text(os.path.join(self.uses, image_key(name, sha256)), "")

    def note(self, event: str, of: dict[str, Any], name: str | None = None, **more: Any) -> None:
        """Add an event to the history of ``name``: one small file, so that no two writers meet."""
        folder = os.path.join(self.history, name or of["name"])
        os.makedirs(folder, mode=0o755, exist_ok=True)
        now = utc_now()
        stamp = now.strftime("%Y%m%dT%H%M%S.%f")
        write_json(
            os.path.join(folder, f"{stamp}-{secrets.token_hex(3)}.json"),
            {
                "at": now.isoformat(timespec="seconds"),
                "event": event,
                "container_id": of["container_id"],
                "sha256": of["sha256"],
                "account": getpass.getuser(),
                **more,
            },
        )

    def events(self, name: str) -> list[dict[str, Any]]:
        """What happened to an image name, newest first."""
        folder = os.path.join(self.history, name)
        try:
            entries = sorted(os.listdir(folder), reverse=True)
        except OSError:
            return []
        found = (read_object(os.path.join(folder, e)) for e in entries if not e.startswith("."))
        return [event for event in found if event]

    def is_whole(self, name: str, sha256: str) -> bool:
        """Whether both record and image are there."""
        return os.path.exists(self.record_path(name, sha256)) and os.path.exists(
            self.image_path(name, sha256)
        )

    def built(self, build_digest: str) -> dict[str, Any] | None:
        """The newest container of a build digest, if its image is still there."""
        pointer = read_object(os.path.join(self.builds, f"{build_digest}.json"))
        if not pointer or not {"name", "sha256"} <= pointer.keys():
            return None
        record = read_object(self.record_path(pointer["name"], pointer["sha256"]))
        if not record or not os.path.exists(self.image_path(pointer["name"], pointer["sha256"])):
            return None
        return record

    def rows(self) -> list[dict[str, Any]]:
        """What the index says of every record, newest first; one that cannot be read is passed over."""
        return sorted(self.index.rows(), key=lambda r: (r["created_at"], r["sha256"]), reverse=True)

    def tags_of(self, name: str) -> dict[str, dict[str, Any]]:
        """Tag -> pointer of one image name."""
        folder = os.path.join(self.tags, name)
        found = {}
        try:
            entries = sorted(os.listdir(folder))
        except OSError:
            return {}
        for entry in entries:
            pointer = read_object(os.path.join(folder, entry)) if entry.endswith(".json") else None
            if pointer and TAG.fullmatch(entry[:-5]) and {"name", "sha256"} <= pointer.keys():
                found[entry[:-5]] = pointer
        return found

    def find(self, reference: str) -> dict[str, Any]:
        """The record that ``name``, ``name:tag``, a container id or a unique beginning of one means.

        Raises :class:`StepFailed` with ``container_not_found``, or ``illegal_name`` for what is no text.
        """
        require_text("container", reference)
        name, _, tag = reference.partition(":")
        is_name = IMAGE_NAME.fullmatch(name) and (not tag or TAG.fullmatch(tag))
        if is_name:
            pointer = read_object(self.tag_path(name, tag or "latest"))
            if pointer and {"name", "sha256"} <= pointer.keys():
                record = read_object(self.record_path(pointer["name"], pointer["sha256"]))
                if record:
                    return record
        if re.fullmatch(r"[0-9a-f-]{6,36}", reference):
            found = [r for r in self.rows() if r["container_id"].startswith(reference)]
            if len(found) == 1 or (found and UUID.fullmatch(reference)):
                record = read_object(self.record_path(found[0]["name"], found[0]["sha256"]))
                if record:
                    return record
            if len(found) > 1:
                raise StepFailed(
                    "container_not_found",
                    f"'{reference}' is the beginning of {len(found)} container ids; give more of it.",
                )
        known = self.tags_of(name) if is_name else {}
        raise StepFailed(
            "container_not_found",
            f"No container '{shorten(reference, 80)}' is registered on this endpoint.",
            _known_tags(name, known),
        )


def container_of_image(catalogue: Catalogue, path: str) -> tuple[str, str] | None:
    """``(name, sha256)`` of a path in the catalogue, None for another file."""
    folder, file_name = os.path.split(os.path.realpath(path))
    sha256 = file_name.removesuffix(".sif")
    if os.path.dirname(folder) != os.path.realpath(catalogue.images):
        return None
    return (os.path.basename(folder), sha256) if SHA256.fullmatch(sha256) else None


def _known_tags(name: str, known: dict[str, dict[str, Any]]) -> str:
    if not known:
        return "'cib-flows containers list' shows them."
    return f"Tags of {name} are {', '.join(known)}."


def _link(source: str, target: str) -> bool:
    """Give ``source`` the name ``target`` unless it is taken; whether ``target`` exists with this content.

    For images the answer is always yes: the name is the content. Where a file system has no hard links, a
    rename does it, in which the later of two writers wins.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        return target.endswith(".sif")
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS):
            raise
        if os.path.exists(target):
            return target.endswith(".sif")
        os.rename(source, target)
    return True
