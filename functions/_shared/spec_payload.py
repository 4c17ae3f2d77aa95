"""What a spec brings along: a payload and where it lies, and small files written out in the spec itself."""

from __future__ import annotations

import re
from typing import Any

from .grammars import GIT_REF, SHA256, UUID, https_host
from .spec_words import (
    COVERED_FOLDERS,
    OWN_FOLDERS,
    SpecRefused,
    line_of,
    matching,
    object_of,
    place_of,
    refuse_covered,
    shown,
    text_of,
)

MAX_FILE_CHARS = 16 * 1024
# Folders of the image that a payload or a mount point must not take over.
SYSTEM_FOLDERS = frozenset(
    {"bin", "boot", "etc", "lib", "lib32", "lib64", "run", "sbin", "usr", "var"}
)


def check_collection(value: Any) -> dict[str, str] | None:
    if value is None:
        return None
    collection = object_of(value, "payload_collection", ("id", "path"))
    identifier = matching(
        collection.get("id"), "payload_collection.id", UUID, 36, "a collection's UUID"
    )
    if collection.get("path") is None:
        raise SpecRefused(
            "payload_collection.path", "'payload_collection.path' is missing; give a path on it."
        )
    path = line_of(collection["path"], "payload_collection.path", 1024)
    if not path.startswith("/") or ".." in path.split("/"):
        raise SpecRefused(
            "payload_collection.path",
            f"'payload_collection.path' must be an absolute path without '..', not {shown(path)}.",
        )
    return {"id": identifier, "path": path}


def check_payload(value: Any) -> dict[str, Any]:
    payload = object_of(value, "payload", ("url", "git", "ref", "sha256", "destination", "install"))
    checked: dict[str, Any] = {}
    for field in ("url", "git"):
        if payload.get(field) is not None:
            address = line_of(payload[field], f"payload.{field}", 2048)
            if not https_host(address):
                raise SpecRefused(
                    f"payload.{field}",
                    f"'payload.{field}' must be an https address without user name or password, "
                    f"not {shown(address)}.",
                )
            if field == "git" and re.search(r"\.git@|#", address):
                raise SpecRefused(
                    "payload.git",
                    "'payload.git' must be the repository's address alone, with the branch, tag or commit as "
                    f"'payload.ref', not {shown(address)}.",
                )
            checked[field] = address
    if payload.get("ref") is not None:
        checked["ref"] = matching(
            payload["ref"], "payload.ref", GIT_REF, 256, "a branch, tag or commit"
        )
        if ".." in checked["ref"]:
            raise SpecRefused(
                "payload.ref", f"'payload.ref' must not hold '..': {shown(checked['ref'])}."
            )
        if "git" not in checked:
            raise SpecRefused("payload.ref", "'payload.ref' goes with 'payload.git' only.")
    if payload.get("sha256") is not None:
        checked["sha256"] = matching(
            payload["sha256"], "payload.sha256", SHA256, 64, "64 hexadecimal digits in lower case"
        )
        if "git" in checked:
            raise SpecRefused(
                "payload.sha256",
                "'payload.sha256' does not go with 'payload.git'; pin the commit with 'payload.ref'.",
            )
    destination = place_of(payload.get("destination", "/payload"), "payload.destination")
    refuse_covered(destination, "payload.destination")
    taken = destination[1:] in SYSTEM_FOLDERS or destination in COVERED_FOLDERS
    if taken or (destination + "/").startswith(OWN_FOLDERS):
        raise SpecRefused(
            "payload.destination",
            f"'payload.destination' must not be the system folder {destination}; take one of its own.",
        )
    checked["destination"] = destination
    install = payload.get("install")
    if install is not None and not isinstance(install, bool):
        raise SpecRefused(
            "payload.install", f"'payload.install' must be true or false, not {shown(install)}."
        )
    if install:
        checked["install"] = True
    return checked


def base_in_payload(spec: dict[str, Any]) -> str:
    """The path in the payload of the file that is the base image; empty where the base comes from elsewhere."""
    has_payload = bool(spec["payload_collection"]) or any(
        f in spec["payload"] for f in ("url", "git")
    )
    inside = str(spec["payload"]["destination"]) + "/"
    image = str(spec["base"]["image"])
    return image[len(inside) :] if has_payload and image.startswith(inside) else ""


def check_payload_sources(spec: dict[str, Any]) -> None:
    payload = spec["payload"]
    sources = [f"payload.{field}" for field in ("url", "git") if field in payload]
    if spec["payload_collection"]:
        sources.append("payload_collection")
    if len(sources) > 1:
        raise SpecRefused(
            sources[1], f"Only one payload is possible; leave out {' or '.join(sources)}."
        )
    if not sources and "install" in payload:
        raise SpecRefused(
            "payload.install",
            "'payload.install' needs a payload: give 'payload.url', 'payload.git' or 'payload_collection'.",
        )
    if not sources and "sha256" in payload:
        raise SpecRefused(
            "payload.sha256",
            "'payload.sha256' needs 'payload.url' or 'payload_collection' beside it.",
        )


def file_of(value: Any, field: str) -> dict[str, Any]:
    """One file of the image: where, its text, and whether it can be executed."""
    given = object_of(value, field, ("path", "content", "executable"))
    if given.get("path") is None:
        raise SpecRefused(f"{field}.path", f"'{field}.path' is missing; give an absolute path.")
    path = place_of(given["path"], f"{field}.path")
    refuse_covered(path, f"{field}.path")
    if str(given["path"]).endswith("/") or path in COVERED_FOLDERS or path.startswith(OWN_FOLDERS):
        raise SpecRefused(
            f"{field}.path",
            f"'{field}.path' must be a file's own path, not {shown(given['path'])}.",
        )
    executable = given.get("executable")
    if executable is not None and not isinstance(executable, bool):
        raise SpecRefused(
            f"{field}.executable",
            f"'{field}.executable' must be true or false, not {shown(executable)}.",
        )
    content = given.get("content")
    return {
        "path": path,
        "content": text_of("" if content is None else content, f"{field}.content", MAX_FILE_CHARS),
        "executable": executable is True,
    }
