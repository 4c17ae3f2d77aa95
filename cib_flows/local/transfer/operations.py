"""Transfer's operations that are done at once: ls, stat, mkdir, rename."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cib_flows.local.transfer import files
from cib_flows.local.transfer.collections import Collection
from cib_flows.local.transfer.errors import TransferError

__all__ = ["list_folder", "make_folder", "rename", "status_of"]

MAX_LISTING = 100_000


def _refusal(problem: OSError, collection: Collection, what: str, path: str) -> TransferError:
    context = f"Error ({what})\nEndpoint: {collection.name} ({collection.id})\n"
    reason = problem.strerror or str(problem)
    if isinstance(problem, FileNotFoundError):
        return TransferError(
            404,
            "NotFound",
            f"Path not found, {context}Message: {reason}\nDetails: '{path}' not found",
        )
    if isinstance(problem, PermissionError):
        return TransferError(
            403,
            "EndpointPermissionDenied",
            f"Denied by endpoint, {context}Message: {reason}: {path}",
        )
    if isinstance(problem, FileExistsError):
        return TransferError(
            502,
            "ExternalError.MkdirFailed.Exists",
            f"Path already exists, {context}Details: {path}",
        )
    if isinstance(problem, NotADirectoryError):
        return TransferError(
            502,
            "ExternalError.DirListingFailed.NotDirectory",
            f"Not a directory, {context}Details: {path}",
        )
    return TransferError(502, "EndpointError", f"{reason}, {context}Details: {path}")


def list_folder(
    collection: Collection,
    path: str,
    *,
    show_hidden: bool = True,
    limit: int = MAX_LISTING,
    offset: int = 0,
    order: str | None = None,
    shows: Callable[[Mapping[str, Any]], bool] = lambda item: True,
) -> dict[str, Any]:
    """A folder's ``file_list`` document. ``order`` is a field name, perhaps with ' DESC'."""
    folder = collection.locate(path)
    field, _, direction = (order or "name").partition(" ")
    if field not in ("name", "size", "type", "last_modified", "permissions", "user", "group"):
        raise TransferError.bad_request(f"orderby {field!r} is not a field of a listing.")
    try:
        with os.scandir(folder) as listing:
            names = sorted(entry.name for entry in listing)
    except OSError as problem:
        raise _refusal(problem, collection, "list", path) from problem
    found = []
    for name in names:
        if name.startswith(".") and not show_hidden:
            continue
        try:
            found.append(files.describe(folder / name))
        except FileNotFoundError:
            continue  # it was deleted meanwhile
    found = [item for item in found if shows(item)]
    found.sort(key=lambda entry: entry[field], reverse=direction.strip().upper() == "DESC")
    page = found[offset : offset + limit]
    return {
        "DATA_TYPE": "file_list",
        "DATA": page,
        "endpoint": collection.id,
        "path": path or "/",
        "absolute_path": path or "/",
        "length": len(page),
        "total": len(found),
        "limit": limit,
        "offset": offset,
        "rename_supported": True,
        "symlink_supported": False,
    }


def status_of(collection: Collection, path: str) -> dict[str, Any]:
    """One path's ``file`` document."""
    located = collection.locate(path)
    try:
        return files.describe(located, name="/" if located == Path(collection.path) else None)
    except OSError as problem:
        raise _refusal(problem, collection, "stat", path) from problem


def make_folder(
    collection: Collection,
    path: str,
    begun: bool = False,
    begin: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """``begin`` is called when there is nothing yet where the folder is to be. With ``begun`` that
    was so once before, and a folder that is there now is the one that was to be made."""
    located = collection.locate(path)
    try:
        if not (begun and located.is_dir()):
            if not begun and not os.path.lexists(located):
                begin()
            located.mkdir()
    except OSError as problem:
        raise _refusal(problem, collection, "mkdir", path) from problem
    return {
        "DATA_TYPE": "mkdir_result",
        "code": "DirectoryCreated",
        "message": "The directory was created successfully",
    }


def rename(collection: Collection, old_path: str, new_path: str) -> dict[str, Any]:
    """Rename within the collection; refuses to replace what is there, as the service does."""
    old, new = collection.locate(old_path), collection.locate(new_path)
    try:
        if os.path.lexists(new):
            raise FileExistsError(17, "File exists", str(new))
        old.rename(new)
    except OSError as problem:
        raise _refusal(problem, collection, "rename", old_path) from problem
    return {
        "DATA_TYPE": "result",
        "code": "FileRenamed",
        "message": "File or directory renamed successfully",
    }
